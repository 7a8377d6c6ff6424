"""The router's counts as Prometheus reads them. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric

from modelyard_runtime.protocol import RouterReport

_LABELS = ("endpoint", "deployment")


def families(report: RouterReport) -> Iterator[Metric]:
    """Requests by status, a histogram of their time, and what is in flight, for each deployment."""
    requests = Metric("modelyard_scoring_requests", "Requests answered, by status.", "counter")
    for answered in sorted(report.answered, key=str):
        labels = {"endpoint": answered.endpoint, "deployment": answered.deployment, "status": str(answered.status)}
        kind = {"kind": answered.kind} if answered.kind else {}
        requests.add_sample("modelyard_scoring_requests_total", {**labels, **kind}, answered.count)
    yield requests
    durations = HistogramMetricFamily("modelyard_scoring_duration_seconds", "How long answers took.", labels=_LABELS)
    edges = [*(f"{bound / 1000:g}" for bound in report.bounds_ms), "+Inf"]
    for times in report.times:
        buckets = list(zip(edges, accumulate(times.buckets), strict=True))
        durations.add_metric((times.endpoint, times.deployment), buckets, times.sum_ms / 1000)
    yield durations
    for name, help in (("in_flight", "Requests in flight."), ("waiting", "Requests in the queue."), ("instances", "Instances in use.")):
        gauge = GaugeMetricFamily(f"modelyard_scoring_{name}", help, labels=_LABELS)
        for deployment in report.deployments:
            gauge.add_metric((deployment.endpoint, deployment.deployment), getattr(deployment, name))
        yield gauge

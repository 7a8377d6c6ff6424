"""The router's report as Prometheus reads it."""

from __future__ import annotations

import json

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from modelyard.serving.online.metrics import families
from modelyard_runtime import protocol
from modelyard_runtime.protocol import Answered, AnswerTimes, DeploymentGauges, RouterReport

REPORT = RouterReport(
    bounds_ms=[5, 2500],
    answered=[Answered("w/e", "blue", 200, "", 40), Answered("w/e", "blue", 200, "mirror", 2), Answered('w/"\\\n', "", 404, "", 1)],
    times=[AnswerTimes("w/e", "blue", [3, 2, 1], 6, 1250.5)],
    deployments=[DeploymentGauges("w/e", "blue", 1, 2, 3)],
)


def samples(report: RouterReport) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    class Report(CollectorRegistry):
        def collect(self):  # type: ignore[no-untyped-def]
            return families(report)

    text = generate_latest(Report()).decode()
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for f in text_string_to_metric_families(text) for s in f.samples}


def test_the_counts_of_the_router_are_read_by_the_names_and_labels_they_always_had() -> None:
    blue = (("deployment", "blue"), ("endpoint", "w/e"))
    name = "modelyard_scoring_duration_seconds"
    assert samples(REPORT) == {
        ("modelyard_scoring_requests_total", (*blue, ("status", "200"))): 40,
        ("modelyard_scoring_requests_total", (*blue, ("kind", "mirror"), ("status", "200"))): 2,
        ("modelyard_scoring_requests_total", (("deployment", ""), ("endpoint", 'w/"\\\n'), ("status", "404"))): 1,
        (f"{name}_bucket", (*blue, ("le", "0.005"))): 3,
        (f"{name}_bucket", (*blue, ("le", "2.5"))): 5,
        (f"{name}_bucket", (*blue, ("le", "+Inf"))): 6,
        (f"{name}_count", blue): 6,
        (f"{name}_sum", blue): 1.2505,
        ("modelyard_scoring_in_flight", blue): 1,
        ("modelyard_scoring_waiting", blue): 2,
        ("modelyard_scoring_instances", blue): 3,
    }


def test_a_router_without_requests_has_no_samples() -> None:
    assert samples(RouterReport([], [], [], [])) == {}


def test_a_report_is_the_same_after_its_way_over_the_socket() -> None:
    assert protocol.read(RouterReport, json.loads(json.dumps(protocol.document(REPORT)))) == REPORT

"""The router's counts as Prometheus reads them. Pure."""

from __future__ import annotations

from typing import Any


def prometheus(counted: dict[str, Any]) -> str:
    """Requests by status, a histogram of their time, and what is under way, for each deployment (Prometheus text format 0.0.4)."""
    lines = ["# TYPE modelyard_scoring_requests_total counter"]
    for endpoint, deployment, status, kind, count in sorted(counted["answered"], key=str):
        more = f',kind="{kind}"' if kind else ""
        lines.append(f'modelyard_scoring_requests_total{{{_labels(endpoint, deployment)},status="{status}"{more}}} {count}')
    lines.append("# TYPE modelyard_scoring_duration_seconds histogram")
    for endpoint, deployment, buckets, count, total_ms in counted["times"]:
        labels, sum_ = _labels(endpoint, deployment), 0
        for bound, number in zip([*counted["buckets_ms"], None], buckets, strict=True):
            sum_ += number
            edge = "+Inf" if bound is None else f"{bound / 1000:g}"
            lines.append(f'modelyard_scoring_duration_seconds_bucket{{{labels},le="{edge}"}} {sum_}')
        lines.append(f"modelyard_scoring_duration_seconds_sum{{{labels}}} {total_ms / 1000:.6f}")
        lines.append(f"modelyard_scoring_duration_seconds_count{{{labels}}} {count}")
    for position, name in ((2, "in_flight"), (3, "waiting"), (4, "instances")):
        lines.append(f"# TYPE modelyard_scoring_{name} gauge")
        lines += [f"modelyard_scoring_{name}{{{_labels(item[0], item[1])}}} {item[position]}" for item in counted["busy"]]
    return "\n".join(lines) + "\n"


def _labels(endpoint: str, deployment: str) -> str:
    escaped = (text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for text in (endpoint, deployment))
    return 'endpoint="{}",deployment="{}"'.format(*escaped)

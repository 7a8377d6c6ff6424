"""A rollout: what it is, and what is to be done next with one. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ...core.clock import iso
from ...spec.fields import from_row
from ...spec.online import MetricBound, Rollout
from ...spec.states import RolloutState

WAIT, NEXT = "wait", "next"


@dataclass(frozen=True)
class RolloutRecord:
    """`step` counts from 0; `before` is the traffic that an abort restores; `base` what had been counted when the step began."""

    workspace: str
    endpoint: str
    stored: dict[str, Any]
    state: RolloutState
    step: int
    before: dict[str, int]
    base: dict[str, Any]
    reason: str
    stepped_ms: int
    created_ms: int
    created_by: str

    @cached_property
    def spec(self) -> Rollout:
        return from_row(Rollout, self.stored)

    @property
    def traffic(self) -> dict[str, int]:
        """The shares of this step in percent: what the target does not get is divided as it was before the rollout."""
        share_of_target = self.spec.steps[self.step]
        others = {name: share for name, share in self.before.items() if share and name != self.spec.to}
        left, total = 100 - share_of_target, sum(others.values()) or 1
        shares = {name: left * share // total for name, share in others.items()}
        if shares:
            first = next(iter(shares))
            shares[first] += left - sum(shares.values())
        return {**shares, self.spec.to: 100 - sum(shares.values())}

    def document(self) -> dict[str, Any]:
        return {
            **self.stored, "status": self.state, "step": self.step + 1, "percent": self.spec.steps[self.step],
            "reason": self.reason, "started_at": iso(self.created_ms), "started_by": self.created_by,
        }  # fmt: skip


def since(base: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """What was counted since the step began; a router that was started anew counts from nothing."""
    if now["requests"] < base["requests"] or not base["requests"]:
        return now
    return {
        "requests": now["requests"] - base["requests"],
        "failed": now["failed"] - base["failed"],
        "buckets": [mine - other for mine, other in zip(now["buckets"], base["buckets"], strict=True)],
        "bounds_ms": now["bounds_ms"],
    }


def judge(rollout: Rollout, counted: dict[str, Any], elapsed_ms: int, measured: float | None = None) -> str:
    """`wait`, `next`, or why it is aborted. `counted` is what the deployment has answered in this step, `measured` the
    last value that was logged of the rollout's metric in it."""
    requests = counted["requests"]
    if requests and requests >= rollout.min_requests:
        rate = counted["failed"] / requests
        if rate > rollout.max_error_rate:
            return f"{counted['failed']} of {requests} requests failed, more than {rollout.max_error_rate:.2%}"
        if rollout.max_p99_ms is not None and (worst := _p99(counted)) > rollout.max_p99_ms:
            return f"99 percent of the requests took up to {worst:g} ms, more than {rollout.max_p99_ms:g} ms"
    if rollout.metric is not None:
        if measured is None:
            return WAIT
        if not _within(rollout.metric, measured):
            return f"the metric {rollout.metric.name} is {measured:g}, which is not {_bounds(rollout.metric)}"
    done = elapsed_ms >= rollout.bake_time_s * 1000 and requests >= rollout.min_requests
    return NEXT if done else WAIT


def _within(bound: MetricBound, value: float) -> bool:
    """NaN is within nothing."""
    return (bound.at_least is None or value >= bound.at_least) and (bound.at_most is None or value <= bound.at_most)


def _bounds(bound: MetricBound) -> str:
    sides = ((bound.at_least, "at least"), (bound.at_most, "at most"))
    return " and ".join(f"{word} {side:g}" for side, word in sides if side is not None)


def _p99(counted: dict[str, Any]) -> float:
    """The bound under which 99 percent of the times lie; infinite above the last."""
    seen, total = 0, sum(counted["buckets"])
    for bound, count in zip(counted["bounds_ms"], counted["buckets"], strict=False):
        seen += count
        if seen >= 0.99 * total:
            return float(bound)
    return float("inf")

"""How far a rollout is: its step, the requests that it has seen of those it needs, and how long the step is still watched."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from .values import duration, moment

if TYPE_CHECKING:
    from ..sdk.nouns.online import OnlineEndpointOperations

_MOST_COUNTED = 10_000
"""Requests that the yard lists at once."""


class Steps:
    """Counts by the endpoint's list of requests, from when a step was first seen: the yard does not tell when one began."""

    def __init__(self, endpoints: OnlineEndpointOperations, endpoint: str) -> None:
        self._endpoints, self._endpoint = endpoints, endpoint
        self._step, self._began, self._requests = 0, datetime.now(UTC), 0

    def seen(self, rollout: dict[str, Any] | None) -> tuple[str, str]:
        """(what is shown now, what is said once)"""
        if not rollout:
            return "", ""
        if rollout["step"] != self._step:
            now = datetime.now(UTC)
            self._began = (moment(rollout["started_at"]) or now) if self._step == 0 and rollout["step"] == 1 else now
            self._step, self._requests = rollout["step"], 0
        step = f"step {rollout['step']} of {len(rollout['steps'])}: {rollout['to']} has {rollout['percent']} % of the traffic"
        waits = []
        if needed := rollout["min_requests"]:
            waits.append(f"{self._counted(rollout['to'], needed):,} of {needed:,} requests")
        left = timedelta(seconds=rollout["bake_time_s"]) - (datetime.now(UTC) - self._began)
        if left > timedelta(0):
            waits.append(f"{duration(left.total_seconds())} to watch")
        if rollout.get("metric"):
            waits.append(f"metric {rollout['metric']['name']}")
        return f"{step}; {', '.join(waits) or 'being judged'}", step

    def _counted(self, deployment: str, needed: int) -> int:
        """Requests that the deployment has answered in this step; no more are counted than it needs."""
        if self._requests < needed:
            rows = self._endpoints.list_requests(self._endpoint, deployment_name=deployment, limit=min(needed, _MOST_COUNTED))
            self._requests = sum((moment(row.get("time")) or self._began) >= self._began for row in rows)
        return self._requests

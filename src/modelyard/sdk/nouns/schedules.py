from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ...spec.nouns import NOUNS
from ..poller import Poller, finished
from ..resources import NamedOperations

if TYPE_CHECKING:
    from ...spec.schedule import FiredJob, Schedule


class ScheduleOperations(NamedOperations["Schedule"]):
    noun = NOUNS["schedule"]

    def list(self, *, enabled: bool | None = True, **kwargs: Any) -> Iterator[Schedule]:
        """The enabled ones; with None those that are disabled, too."""
        params = {} if enabled is None else {"enabled": str(enabled).lower()}
        return map(self._answered, self._pages("/schedules", params))

    def begin_enable(self, name: str, **kwargs: Any) -> Poller[Schedule]:
        return finished(self._answered(self._call("POST", f"/schedules/{name}/enable")))

    def begin_disable(self, name: str, **kwargs: Any) -> Poller[Schedule]:
        return finished(self._answered(self._call("POST", f"/schedules/{name}/disable")))

    def trigger(self, name: str, **kwargs: Any) -> FiredJob:
        """Make the job now."""
        fired: FiredJob = self._call("POST", f"/schedules/{name}/trigger")
        return fired

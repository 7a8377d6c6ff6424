"""A clock that a test turns."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class TurnedClock:
    """Stands still until it is turned. A `core.clock.Clock`; `elapsed` is what `core.clock.elapsed_ms` is to the real one."""

    def __init__(self, start: str = "2026-01-05T12:00:00+00:00") -> None:
        self.ms = int(datetime.fromisoformat(start).timestamp() * 1000)
        self._elapsed = 0

    def __call__(self) -> int:
        return self.ms

    def turn(self, **by: float) -> None:
        """Forward by `timedelta(**by)`, such as `hours=2`."""
        self._pass(self.ms + round(timedelta(**by).total_seconds() * 1000))

    def turn_to(self, moment: str) -> None:
        """To an ISO time, which is UTC unless it says otherwise."""
        read = datetime.fromisoformat(moment)
        self._pass(int((read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp() * 1000))

    def set(self, moment: str) -> None:
        """To an ISO time, as somebody sets a clock: no time passes."""
        read = datetime.fromisoformat(moment)
        self.ms = int((read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp() * 1000)

    def elapsed(self) -> int:
        """Milliseconds that have passed; a clock that is turned back takes none of them away."""
        return self._elapsed

    def _pass(self, ms: int) -> None:
        self._elapsed += max(0, ms - self.ms)
        self.ms = ms

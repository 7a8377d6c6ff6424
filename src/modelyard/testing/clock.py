"""A clock that a test turns."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class TurnedClock:
    """Stands still until it is turned. A `core.clock.Clock`."""

    def __init__(self, start: str = "2026-01-05T12:00:00+00:00") -> None:
        self.ms = int(datetime.fromisoformat(start).timestamp() * 1000)

    def __call__(self) -> int:
        return self.ms

    def turn(self, **by: float) -> None:
        """Forward by `timedelta(**by)`, such as `hours=2`."""
        self.ms += round(timedelta(**by).total_seconds() * 1000)

    def turn_to(self, moment: str) -> None:
        """To an ISO time, which is UTC unless it says otherwise."""
        read = datetime.fromisoformat(moment)
        self.ms = int((read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp() * 1000)

"""Time, injected so that tests can set it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], int]
"""Milliseconds since 1970 in UTC."""


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def elapsed_ms() -> int:
    """Milliseconds since some moment, which nobody can set: the time of durations. It goes on while the machine sleeps, where the system
    says so."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)) // 1_000_000


class ExpiryClock:
    """The time by which things expire: that of the wall clock, but never less than it was, whatever the clock is set to.

    What has expired stays so. A clock that was ahead for a while and is set right leaves this one ahead, at the pace of elapsed time: what
    is made from then on lasts as long as it was to. The highest time reached is kept in the database (`storage/high_water`).
    """

    def __init__(self, elapsed: Clock = elapsed_ms) -> None:
        self._elapsed = elapsed
        self._lock = threading.Lock()
        self._reached = 0
        self._at = elapsed()

    def at(self, now: int) -> int:
        """The time of expiries when the wall clock says `now`."""
        with self._lock:
            elapsed = self._elapsed()
            if self._reached:
                now = max(now, self._reached + max(0, elapsed - self._at))
            self._reached, self._at = now, elapsed
            return now

    def raise_to(self, reached: int) -> None:
        """It was already this late, in this process or an earlier one."""
        with self._lock:
            self._reached = max(self._reached, reached)


class JumpWatch:
    """Notices that the wall clock was set, by comparing it with elapsed time. `now` is the wall clock's time at the first look."""

    def __init__(self, elapsed: Clock = elapsed_ms) -> None:
        self._elapsed = elapsed
        self._last: tuple[int, int] | None = None

    def jumped(self, now: int) -> int:
        """Milliseconds by which the clock was set forward (or back, negative) since the last look."""
        before, self._last = self._last, (now, self._elapsed())
        return 0 if before is None else (now - before[0]) - (self._last[1] - before[1])


def iso(millis: int | None) -> str | None:
    """`2026-01-31T12:00:00.000Z` of milliseconds since 1970."""
    if millis is None:
        return None
    millis = min(millis, 253_402_300_799_999)  # the last moment a calendar date can say
    return datetime.fromtimestamp(millis / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

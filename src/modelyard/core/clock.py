"""Time, injected so that tests can set it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], int]
"""Milliseconds since 1970 in UTC."""


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def iso(millis: int | None) -> str | None:
    """`2026-01-31T12:00:00.000Z` of milliseconds since 1970."""
    if millis is None:
        return None
    millis = min(millis, 253_402_300_799_999)  # the last moment a calendar date can say
    return datetime.fromtimestamp(millis / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

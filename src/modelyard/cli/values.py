"""Values as a person reads them: six digits of a number, times with their age, the state of a thing in its color.

Programs read the whole values: what is printed as JSON, YAML or TSV never passes here.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from ..core.terminal import harmless

_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_OLD_S = 14 * 86_400
"""Seconds after which a date says more than an age."""
_EPOCH_MS = 10**12
"""No duration in milliseconds is as long as the time since 1970."""
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))

COLORS = {
    "green": ("Completed", "Succeeded", "FINISHED", "Running", "RUNNING", "Healthy"),
    "red": ("Failed", "FAILED", "Aborted", "CrashLoopBackOff", "Missing", "ERROR"),
    "yellow": ("Canceled", "CancelRequested", "KILLED", "Skipped", "Deleting"),
    "cyan": ("Queued", "Preparing", "Finalizing", "Creating", "Updating", "Starting", "NotStarted", "SCHEDULED", "InProgress"),
}
_COLOR = {word: color for color, words in COLORS.items() for word in words}
STATES = frozenset(("status", "provisioning_state", "state"))
"""Fields whose value has a color."""


def color_of(word: str) -> str | None:
    return _COLOR.get(word.strip())


def moment(value: Any, name: str = "") -> datetime | None:
    """The time that a value stands for: ISO 8601, or milliseconds since 1970 in a field that ends with `_ms`."""
    if isinstance(value, str) and _MOMENT.fullmatch(value):
        return datetime.fromisoformat(value)
    if name.endswith("_ms") and isinstance(value, int) and value > _EPOCH_MS:
        return datetime.fromtimestamp(value / 1000, UTC)
    return None


def text_of(value: Any, name: str = "") -> str:
    """A value as a cell of a table: nothing in it steers the terminal."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return number(value)
    if (time := moment(value, name)) is not None:
        return f"{time:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, (dict, list)):
        import yaml

        return harmless(yaml.safe_dump(_shown(value), sort_keys=False, allow_unicode=True, width=10**9).rstrip())
    return harmless(str(value))


def number(value: float) -> str:
    return f"{value:.6g}"


def _shown(value: Any) -> Any:
    """With rounded numbers, and without what is not set."""
    if isinstance(value, float):
        return float(number(value))
    if isinstance(value, dict):
        return {key: _shown(part) for key, part in value.items() if part not in (None, {}, "")}
    return [_shown(part) for part in value] if isinstance(value, list) else value


def age(time: datetime, now: datetime) -> str:
    """`5 min ago`, `in 3 h`; of what is two weeks away, the date."""
    seconds = (now - time).total_seconds()
    if not _near(time, now):
        return f"{time:%Y-%m-%d}"
    if abs(seconds) < 1:
        return "just now"
    return f"{duration(seconds)} ago" if seconds > 0 else f"in {duration(-seconds)}"


def duration(seconds: float) -> str:
    """In its largest unit, rounded down: `45 s`, `12 min`, `3 h`."""
    unit, word = next(((unit, word) for unit, word in _UNITS if seconds >= unit), (1, "s"))
    return f"{int(seconds // unit)} {word}"


def exact_duration(seconds: float) -> str:
    """`0.4 s`, `45 s`, `3 min 12 s`, `2 h 5 min`, `3 d 4 h`."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    whole = int(seconds)
    for unit, smaller, words in ((86_400, 3_600, ("d", "h")), (3_600, 60, ("h", "min")), (60, 1, ("min", "s"))):
        if whole >= unit:
            rest = whole % unit // smaller
            return f"{whole // unit} {words[0]}" + (f" {rest} {words[1]}" if rest else "")
    return f"{whole} s"


def time_and_age(value: Any, now: datetime | None = None) -> str:
    """`2026-01-31 12:00:00 UTC (5 min ago)`; the text itself where it is no time."""
    time = moment(value)
    if time is None:
        return text_of(value)
    now = now or datetime.now(UTC)
    near = f" ({age(time, now)})" if _near(time, now) else ""
    return f"{time:%Y-%m-%d %H:%M:%S} UTC{near}"


def _near(time: datetime, now: datetime) -> bool:
    return abs((now - time).total_seconds()) < _OLD_S


def seconds_between(first: Any, last: Any) -> float | None:
    begin, end = moment(first), moment(last)
    return (end - begin).total_seconds() if begin and end else None

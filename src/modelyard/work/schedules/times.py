"""When a trigger is due next. Times are wall-clock times of the trigger's zone: 9:00 stays 9:00 when the clocks change.

A time that does not exist (clocks go forward) fires at the moment they jump to; one that occurs twice fires once, the first time. Pure.
"""

from __future__ import annotations

import calendar
import datetime
from collections.abc import Iterator
from typing import Any

from cronsim import CronSim

from ...spec.schedule import WEEK_DAYS, CronTrigger, RecurrenceTrigger, zone_of

Moment = datetime.datetime
_UTC = datetime.UTC
MOST_DAYS = 366 * 80
"""That are looked at for the next firing: a pattern that never fits ends."""


def next_due(trigger: CronTrigger | RecurrenceTrigger, after_ms: int, created_ms: int) -> int | None:
    """The first due time after `after_ms`, in milliseconds since 1970; None when there is none before the trigger's end."""
    zone = zone_of(trigger.time_zone)
    start, end = _bound(trigger.start_time, zone), _bound(trigger.end_time, zone)
    after = datetime.datetime.fromtimestamp(after_ms / 1000, _UTC)
    if start is not None and after < start:
        after = start - datetime.timedelta(milliseconds=1)
    due = _cron(trigger, after, zone) if isinstance(trigger, CronTrigger) else _recurring(trigger, after, zone, start, created_ms)
    if due is None or (end is not None and due > end):
        return None
    return int(due.timestamp() * 1000)


def _bound(text: str | None, zone: datetime.tzinfo) -> Moment | None:
    if text is None:
        return None
    moment = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(_UTC)


def _cron(trigger: CronTrigger, after: Moment, zone: datetime.tzinfo) -> Moment | None:
    return next((moment.astimezone(_UTC) for moment in CronSim(trigger.expression, after.astimezone(zone)) if moment > after), None)


def _recurring(trigger: RecurrenceTrigger, after: Moment, zone: datetime.tzinfo, start: Moment | None, created_ms: int) -> Moment | None:
    anchor = (start or datetime.datetime.fromtimestamp(created_ms / 1000, _UTC)).astimezone(zone)
    if trigger.frequency in ("minute", "hour"):
        step = datetime.timedelta(**{trigger.frequency + "s": trigger.interval})
        # Counted in elapsed time: every two hours is every two hours, also in the night when the clocks change.
        base = anchor.astimezone(_UTC).replace(microsecond=0)
        if start is None:
            base = base.replace(second=0)
        passed = max(0, (after - base) // step + 1) if after >= base else 0
        return base + passed * step
    for day in _days(trigger, anchor.date(), after.astimezone(zone).date()):
        for hour, minute in _clock(trigger, anchor):
            moment = _at(day, hour, minute, zone)
            if moment > after and (start is None or moment >= start):
                return moment
    return None


def _clock(trigger: RecurrenceTrigger, anchor: Moment) -> list[tuple[int, int]]:
    pattern = trigger.schedule
    if pattern is None:
        return [(anchor.hour, anchor.minute)]
    return sorted((hour, minute) for hour in pattern.hours for minute in pattern.minutes)


def _at(day: datetime.date, hour: int, minute: int, zone: datetime.tzinfo) -> Moment:
    local = datetime.datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone)
    moment = local.astimezone(_UTC)
    back = moment.astimezone(zone)
    if (back.hour, back.minute) != (hour, minute):  # skipped by the clock: the moment it jumps to
        before = local.replace(fold=0).utcoffset() or datetime.timedelta()
        after = local.replace(fold=1).utcoffset() or datetime.timedelta()
        gap = abs(after - before)
        minutes_in = (hour * 60 + minute) % max(1, int(gap.total_seconds() // 60))
        return (moment - datetime.timedelta(minutes=minutes_in)).astimezone(_UTC)
    return moment


def _days(trigger: RecurrenceTrigger, anchor: datetime.date, first: datetime.date) -> Iterator[datetime.date]:
    """The days on which the trigger fires, from `first` on (or the anchor, when that is later)."""
    pattern: Any = trigger.schedule
    day = max(anchor, first)
    for _ in range(min(366 * 8 * (trigger.interval if trigger.frequency != "day" else 1), MOST_DAYS, (datetime.date.max - day).days)):
        if trigger.frequency == "day":
            fits = (day - anchor).days % trigger.interval == 0
        elif trigger.frequency == "week":
            weeks = (day - datetime.timedelta(day.weekday()) - (anchor - datetime.timedelta(anchor.weekday()))).days // 7
            week_days = pattern.week_days if pattern and pattern.week_days else [WEEK_DAYS[anchor.weekday()]]
            fits = weeks % trigger.interval == 0 and WEEK_DAYS[day.weekday()] in week_days
        else:
            months = (day.year - anchor.year) * 12 + day.month - anchor.month
            last = calendar.monthrange(day.year, day.month)[1]
            wanted_days = pattern.month_days if pattern and pattern.month_days else [anchor.day]
            fits = months % trigger.interval == 0 and any(day.day == (number if number > 0 else last) for number in wanted_days)
        if trigger.frequency == "day" and pattern and pattern.week_days:
            fits = fits and WEEK_DAYS[day.weekday()] in pattern.week_days
        if fits:
            yield day
        day += datetime.timedelta(1)

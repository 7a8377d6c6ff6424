from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from ...core.events import Event
from ...storage.tables import events
from ...storage.unit import Unit


def _event(row: Any) -> Event:
    return Event(row.seq, row.time_ms, row.workspace, row.actor, row.topic, row.subject, row.detail)


def unsealed(unit: Unit, limit: int) -> list[Event]:
    return [_event(row) for row in unit.rows(sa.select(events).where(events.c.hash.is_(None)).order_by(events.c.seq).limit(limit))]


def last_sealed(unit: Unit) -> tuple[str, int]:
    """(hash, seq) of the newest row that is sealed; `("", 0)` when none is."""
    query = sa.select(events.c.hash, events.c.seq).where(events.c.hash.is_not(None)).order_by(events.c.seq.desc()).limit(1)
    row = unit.row(query)
    return (row.hash, row.seq) if row is not None else ("", 0)


def hash_of(unit: Unit, seq: int) -> str | None:
    digest: str | None = unit.value(sa.select(events.c.hash).where(events.c.seq == seq))
    return digest


def unsealed_before_sealed(unit: Unit) -> int:
    """How many rows have no hash though a later one has."""
    newest = sa.select(sa.func.max(events.c.seq)).where(events.c.hash.is_not(None)).scalar_subquery()
    return int(unit.value(sa.select(sa.func.count()).where(events.c.hash.is_(None), events.c.seq < newest)))


def seal(unit: Unit, seq: int, digest: str) -> None:
    unit.run(sa.update(events).where(events.c.seq == seq).values(hash=digest))


def sealed_after(unit: Unit, seq: int, limit: int) -> list[tuple[Event, str]]:
    query = sa.select(events).where(events.c.seq > seq, events.c.hash.is_not(None)).order_by(events.c.seq).limit(limit)
    return [(_event(row), row.hash) for row in unit.rows(query)]


def of_topics(unit: Unit, after: int, topics: Sequence[str], limit: int) -> list[Event]:
    query = sa.select(events).where(events.c.seq > after, events.c.topic.in_(topics)).order_by(events.c.seq).limit(limit)
    return [_event(row) for row in unit.rows(query)]


def search(unit: Unit, workspace: str | None, subject: str | None, before: int | None, limit: int) -> list[Event]:
    query = sa.select(events).order_by(events.c.seq.desc()).limit(limit)
    if workspace is not None:
        query = query.where(events.c.workspace == workspace)
    if subject is not None:
        query = query.where(events.c.subject == subject)
    if before is not None:
        query = query.where(events.c.seq < before)
    return [_event(row) for row in unit.rows(query)]

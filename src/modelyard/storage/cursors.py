"""How far a reader of the event log has come: what it has handled is kept, so after a restart it goes on with the next event, in order."""

from __future__ import annotations

import sqlalchemy as sa

from .tables import cursors, events
from .unit import Unit


def position(unit: Unit, reader: str) -> int | None:
    """The last event that a reader has handled; None of one that comes for the first time."""
    seq = unit.value(sa.select(cursors.c.seq).where(cursors.c.reader == reader))
    return None if seq is None else int(seq)


def begin(unit: Unit, reader: str) -> int:
    """A reader that comes for the first time begins after the newest event there is."""
    seq = newest(unit)
    move_to(unit, reader, seq)
    return seq


def newest(unit: Unit) -> int:
    """The last event that was written; 0 before the first."""
    return int(unit.value(sa.select(sa.func.max(events.c.seq))) or 0)


def move_to(unit: Unit, reader: str, seq: int) -> None:
    """`seq` and all before it are handled."""
    unit.upsert(cursors, {"reader": reader, "seq": seq})

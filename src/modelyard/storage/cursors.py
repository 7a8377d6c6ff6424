"""How far a reader of the event log has come: what it has handled is kept, so after a restart it goes on with the next event, in order."""

from __future__ import annotations

import sqlalchemy as sa

from .tables import cursors, events
from .unit import Unit


def position(unit: Unit, reader: str) -> int:
    """The last event that a reader has handled. One that comes for the first time begins after the newest there is."""
    seq = unit.value(sa.select(cursors.c.seq).where(cursors.c.reader == reader))
    if seq is None:
        seq = unit.value(sa.select(sa.func.max(events.c.seq))) or 0
        move_to(unit, reader, seq)
    return int(seq)


def move_to(unit: Unit, reader: str, seq: int) -> None:
    """`seq` and all before it are handled."""
    unit.upsert(cursors, {"reader": reader, "seq": seq})

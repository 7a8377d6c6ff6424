"""The latest time by which things expired, kept so that a clock that is set back revives nothing, also after a restart."""

from __future__ import annotations

import sqlalchemy as sa

from .tables import high_water
from .unit import Unit


def reached(unit: Unit) -> int:
    """Milliseconds since 1970; 0 when nothing is stored yet."""
    return int(unit.value(sa.select(high_water.c.time_ms)) or 0)


def keep(unit: Unit) -> int:
    """Store the time that expiries go by now, unless another server was further; the one that is stored then."""
    unit.insert(high_water, {"id": 1, "time_ms": unit.expiry_now}, keep_existing=True)
    unit.run(sa.update(high_water).where(high_water.c.time_ms < unit.expiry_now).values(time_ms=unit.expiry_now))
    return reached(unit)

"""Leases with fencing tokens: who may do a piece of work now, provable to the writer of its result.

A lease alone is unsafe (its holder may sleep past the end); the token grows with every new owner, and the writer
of a result checks it inside its unit.
"""

from __future__ import annotations

import sqlalchemy as sa

from ..core.errors import Conflict
from .tables import leases
from .unit import Unit


def acquire(unit: Unit, name: str, owner: str, duration_ms: int) -> int | None:
    """Take or renew the lease `name`. The fencing token, or None while another owner holds it."""
    row = unit.row(sa.select(leases).where(leases.c.name == name).with_for_update())
    now = _database_now(unit)
    expires = now + duration_ms
    if row is None:
        inserted = unit.insert(leases, {"name": name, "owner": owner, "token": 1, "expires_ms": expires}, keep_existing=True)
        return 1 if inserted else None
    # An end that is further away than a lease can be was set by a clock that was ahead.
    held = now < row.expires_ms <= expires
    if row.owner == owner and held:
        unit.run(sa.update(leases).where(leases.c.name == name).values(expires_ms=expires))
        return int(row.token)
    if held:
        return None
    unit.run(sa.update(leases).where(leases.c.name == name).values(owner=owner, token=row.token + 1, expires_ms=expires))
    return int(row.token) + 1


def _database_now(unit: Unit) -> int:
    """Milliseconds by the database's clock, the same for all of its servers. That of SQLite is this machine's."""
    if unit.dialect == "sqlite":
        return unit.now
    return int(unit.value(sa.select(sa.func.floor(sa.extract("epoch", sa.func.clock_timestamp()) * 1000))))


def release(unit: Unit, name: str, token: int) -> None:
    unit.run(sa.update(leases).where(leases.c.name == name, leases.c.token == token).values(expires_ms=0))


def check(unit: Unit, name: str, token: int) -> None:
    """Raise Conflict unless `token` is the current one: a later holder has taken over."""
    current = unit.value(sa.select(leases.c.token).where(leases.c.name == name).with_for_update())
    if current != token:
        raise Conflict(f"the lease {name} has passed to another holder", code="stale_lease")

"""Idempotency keys: a repeated POST answers what the first one answered, in the same unit as the change itself."""

from __future__ import annotations

import sqlalchemy as sa

from ..core.errors import Conflict
from .tables import idempotency
from .unit import Unit

KEEP_MS = 24 * 3600 * 1000


def earlier_answer(unit: Unit, key: str, request: str) -> object | None:
    """What `key` was answered before, or None. `request` is a digest of the request: another one raises Conflict."""
    row = unit.row(sa.select(idempotency).where(idempotency.c.actor == unit.actor.id, idempotency.c.key == key))
    if row is None or row.time_ms < unit.expiry_now - KEEP_MS:
        return None
    if row.request != request:
        raise Conflict(
            "this idempotency key was used for another request", code="idempotency_key_reused", hint="Use a new key for each request."
        )
    answer: object = row.answer
    return answer


def remember(unit: Unit, key: str, request: str, answer: object) -> None:
    row = {"actor": unit.actor.id, "key": key, "request": request, "answer": answer, "time_ms": unit.expiry_now}
    unit.upsert(idempotency, row)
    unit.run(sa.delete(idempotency).where(idempotency.c.time_ms < unit.expiry_now - KEEP_MS))

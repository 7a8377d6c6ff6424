"""Use cases of the audit log."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import Any

import orjson

from ...core.actor import internal, requires
from ...core.clock import iso
from ...core.events import Event
from ...core.paging import Page, decode_token, encode_token
from ...storage.unit import Unit
from . import store


@requires("workspaces/audit/read")
def search(unit: Unit, subject: str | None, limit: int, token: str | None) -> Page[dict[str, Any]]:
    """Newest first; of the unit's workspace."""
    limit = max(1, min(limit, 1000))
    position = decode_token(token, 1)
    events = store.search(unit, unit.workspace, subject, int(position[0]) if position else None, limit)
    following = encode_token([events[-1].seq]) if len(events) == limit else None
    return Page([_shown(event) for event in events], following)


@requires("Microsoft.Authorization/audit/read")
def verify(unit: Unit) -> dict[str, Any]:
    """Recompute the chain. `ok` is false with the first bad row when a sealed row was altered or removed."""
    previous, last, count = "", 0, 0
    while rows := store.sealed_after(unit, last, 2000):
        for event, digest in rows:
            if chained(previous, event) != digest:
                return {"ok": False, "checked": count, "first_bad_row": event.seq}
            previous, last, count = digest, event.seq, count + 1
    return {"ok": True, "checked": count, "head": previous}


@internal
def seal(unit: Unit, limit: int = 1000) -> int:
    """Chain the committed rows that have no hash yet; how many there were."""
    rows = store.unsealed(unit, limit)
    if rows:
        previous = store.hash_before(unit, rows[0].seq)
        for event in rows:
            previous = chained(previous, event)
            store.seal(unit, event.seq, previous)
    return len(rows)


def chained(previous: str, event: Event) -> str:
    """sha256(previous ‖ canonical JSON of the row)."""
    return hashlib.sha256(previous.encode() + orjson.dumps(asdict(event), option=orjson.OPT_SORT_KEYS)).hexdigest()


def _shown(event: Event) -> dict[str, Any]:
    return {
        "seq": event.seq,
        "time": iso(event.time_ms),
        "actor": event.actor,
        "event": event.topic,
        "subject": event.subject,
        "detail": event.detail,
    }

"""Use cases of the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...core.actor import internal, requires
from ...core.clock import iso
from ...core.errors import Kind, YardError
from ...core.events import Event
from ...core.paging import Page, decode_token, encode_token
from ...storage import cursors
from ...storage.unit import Unit
from . import store
from .model import Anchor, Ledger, Verification


@requires("workspaces/audit/read")
def search(unit: Unit, subject: str | None, limit: int, token: str | None) -> Page[dict[str, Any]]:
    """Newest first; of the unit's workspace."""
    return _search(unit, unit.workspace, subject, limit, token)


@requires("Microsoft.Authorization/audit/read")
def search_all(unit: Unit, subject: str | None, limit: int, token: str | None) -> Page[dict[str, Any]]:
    """Newest first; of all workspaces, and of none: users, roles, tokens, and sign-ins that were refused."""
    return _search(unit, None, subject, limit, token)


def _search(unit: Unit, workspace: str | None, subject: str | None, limit: int, token: str | None) -> Page[dict[str, Any]]:
    limit = max(1, min(limit, 1000))
    position = decode_token(token, 1)
    events = store.search(unit, workspace, subject, int(position[0]) if position else None, limit)
    following = encode_token([events[-1].seq]) if len(events) == limit else None
    return Page([_shown(event) for event in events], following)


@requires("Microsoft.Authorization/audit/read")
def verify(unit: Unit, ledger: Ledger) -> dict[str, Any]:
    """Recompute the chain and compare it with what is known outside the database. `ok` is false, with the problems and the first bad row, when
    a sealed row was altered, forged, removed or cut off. `parts` says which rows were sealed with which key."""
    verification, last = Verification(ledger), 0
    while rows := store.sealed_after(unit, last, 2000):
        if not all(verification.row(event, digest) for event, digest in rows):
            break
        last = rows[-1][0].seq
    return verification.result(store.unsealed_before_sealed(unit))


class Altered(YardError):
    """The chain is not as it was left."""

    kind = Kind.CONFLICT


@internal
def seal(unit: Unit, ledger: Ledger, limit: int = 1000) -> tuple[int, Anchor | None]:
    """Chain the committed rows that have no hash yet: how many, and the head of the chain.

    Raises Altered when the chain does not go on where it was left: nothing is sealed then.
    """
    previous, last = _end_of_chain(unit, ledger)
    rows = store.unsealed(unit, limit)
    if not rows:
        return 0, ledger.head
    if rows[0].seq < last:
        raise Altered(f"row {rows[0].seq} of the audit log has lost its seal", code="audit_altered")
    keyed_from = ledger.keyed_from()
    for event in rows:
        previous = ledger.keys.seal(previous, event)
        store.seal(unit, event.seq, previous)
    head = Anchor(rows[-1].seq, previous, rows[0].seq if keyed_from is None else keyed_from, unit.now)
    return len(rows), head


def _end_of_chain(unit: Unit, ledger: Ledger) -> tuple[str, int]:
    """(hash, seq) of the newest sealed row, if everything since the head that was noted follows from it."""
    if ledger.head is None:
        return store.last_sealed(unit)
    previous, last = ledger.head.hash, ledger.head.seq
    if store.hash_of(unit, last) != previous:
        raise Altered(f"row {last} of the audit log, the newest that was sealed, was changed or is gone", code="audit_altered")
    while rows := store.sealed_after(unit, last, 2000):  # sealed before a kill, and not noted
        for event, digest in rows:
            if not ledger.keys.fits(previous, event, digest):
                raise Altered(f"row {event.seq} of the audit log was not sealed by this yard", code="audit_altered")
            previous, last = digest, event.seq
    return previous, last


@internal
def happened(unit: Unit, after: int, topics: Sequence[str], limit: int) -> tuple[list[Event], int]:
    """The next events of these topics, of all workspaces in the order of commit, and up to which one there are no others."""
    newest = cursors.newest(unit)
    events = store.of_topics(unit, after, topics, limit)
    return events, events[-1].seq if len(events) == limit else max(newest, after)


def _shown(event: Event) -> dict[str, Any]:
    return {
        "seq": event.seq,
        "time": iso(event.time_ms),
        **({"workspace": event.workspace} if event.workspace else {}),
        "actor": event.actor,
        "event": event.topic,
        "subject": event.subject,
        "detail": event.detail,
    }

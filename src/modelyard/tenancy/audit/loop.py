"""The sealer: chains committed audit rows, away from the writes themselves, and anchors the chain outside the database."""

from __future__ import annotations

import asyncio

from ...core.errors import Unavailable
from ...engine.yard import Yard
from . import service
from .anchoring import hand_over, read_setting
from .files import LedgerFiles
from .model import Anchor, Ledger

ALTERED, NOT_ANCHORED = "audit_altered", "audit_not_anchored"


class Sealer:
    name = "audit-sealer"
    topics: tuple[str, ...] = ()
    every = 5.0
    exclusive = True

    def __init__(self, yard: Yard) -> None:
        self.yard = yard
        self._files = LedgerFiles(yard.home.audit)
        self._target = read_setting(yard.settings.audit_anchor)
        self._owed: bytes | None = None
        """An anchor that its target has not taken yet."""

    async def turn(self) -> None:
        ledger = await asyncio.to_thread(self._files.read)
        try:
            sealed = 1000
            while sealed == 1000:
                sealed, ledger.head = await self.yard.db.write(lambda unit: service.seal(unit, ledger))
                if sealed and ledger.head is not None:
                    await asyncio.to_thread(self._files.write_head, ledger.head, ledger.keys)
        except service.Altered as problem:
            # Nothing is sealed on top of what was altered: the seal would vouch for it.
            self.yard.alarms.sound(ALTERED, "audit", problem.message)
            return
        self.yard.alarms.end(ALTERED)
        await self._anchor(ledger)

    async def _anchor(self, ledger: Ledger) -> None:
        if self._is_due(ledger) and ledger.head is not None:
            await asyncio.to_thread(self._files.add_anchor, ledger.head, ledger.keys)
            self._owed = ledger.head.line(ledger.keys)
        if self._owed is not None and self._target is not None:
            try:
                await hand_over(self._target, self._owed)
            except Unavailable as problem:
                self.yard.alarms.sound(NOT_ANCHORED, "audit", problem.message)
                return
            self.yard.alarms.end(NOT_ANCHORED)
        self._owed = None

    def _is_due(self, ledger: Ledger) -> bool:
        """An interval after the last one when something was sealed since; at once for a first key and for a new one, which thereby vouches
        for what was sealed with those before."""
        if ledger.head is None:
            return False
        last = ledger.anchors[-1] if ledger.anchors else None
        if last is None or self._files.last_anchor_key() != ledger.keys.current:
            return True
        return _moved(last, ledger.head) and ledger.head.time_ms - last.time_ms >= self.yard.settings.audit_anchor_s * 1000


def _moved(last: Anchor, head: Anchor) -> bool:
    return head.seq > last.seq

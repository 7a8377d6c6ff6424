"""Requests that were refused, as rows of the audit log: one for many, since whoever is refused decides how many there are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...core.clock import iso, now_ms
from ...engine.yard import Yard
from ...storage.unit import Unit

MOST_KEPT = 1_000
"""Callers that are told apart between two rows; what others do is counted together."""


@dataclass(frozen=True)
class Refusal:
    """What the refused requests that one row stands for have in common. `actor` is empty where nobody was known."""

    workspace: str
    actor: str
    token: str
    """The public part of the token that was sent, `yard_ID`; empty where there was none."""
    address: str
    status: int


@dataclass
class _Count:
    first_ms: int
    number: int = 0
    request: str = ""


class Refusals:
    """Counts what is refused until the loop writes it down."""

    def __init__(self, yard: Yard) -> None:
        self._counts: dict[Refusal, _Count] = {}

    def note(self, refusal: Refusal, request: str) -> None:
        """Count one more; `request` is its method and path, of which the last is shown as an example."""
        if refusal not in self._counts and len(self._counts) >= MOST_KEPT:
            refusal = Refusal("", "", "", "many", refusal.status)
        count = self._counts.setdefault(refusal, _Count(now_ms()))
        count.number += 1
        count.request = request[:200]

    def take(self) -> Callable[[Unit], None] | None:
        """What writes down all that was counted until now, in one unit; None when that is nothing."""
        counts, self._counts = self._counts, {}
        if not counts:
            return None

        def write(unit: Unit) -> None:
            for refusal, count in counts.items():
                unit.at(refusal.workspace).record(
                    "access.refused", refusal.actor or refusal.token or "anonymous",
                    status=refusal.status, count=count.number, address=refusal.address, request=count.request, since=iso(count.first_ms),
                )  # fmt: skip

        return write


class RefusalWriter:
    """Writes them down. A kill in between loses some seconds of counts, of requests that changed nothing."""

    name = "access-refusals"
    topics: tuple[str, ...] = ()
    every = 5.0
    exclusive = False

    def __init__(self, yard: Yard) -> None:
        self.yard = yard

    async def turn(self) -> None:
        write = self.yard.one(Refusals).take()
        if write is not None:
            await self.yard.db.write(write)

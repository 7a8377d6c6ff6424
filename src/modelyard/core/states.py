"""State machines as tables: which state may follow which."""

from __future__ import annotations

from collections.abc import Mapping

from .errors import Conflict


class Machine:
    """`table` maps each state to the states that may follow it; a state that nothing follows is terminal."""

    def __init__(self, noun: str, table: Mapping[str, tuple[str, ...]]) -> None:
        self.noun = noun
        self.table = table
        self.terminal = frozenset(state for state, following in table.items() if not following)

    def check(self, name: str, old: str, new: str) -> None:
        """Raise Conflict unless `new` may follow `old`."""
        if new not in self.table[old]:
            raise Conflict(f"{self.noun} {name} is {old} and cannot become {new}", code="invalid_state")

"""State machines as tables: which state may follow which."""

from __future__ import annotations

from collections.abc import Mapping


class Machine:
    """`table` maps each state to the states that may follow it; a state that nothing follows is terminal."""

    def __init__(self, table: Mapping[str, tuple[str, ...]]) -> None:
        self.table = table
        self.terminal = frozenset(state for state, following in table.items() if not following)

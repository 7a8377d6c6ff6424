"""Tables for a terminal: the columns that fit, each whole, from the first on. A name is never broken in its middle.

Where nobody reads along (a pipe, a file) there is no width to keep to, and every value stands whole.
"""

from __future__ import annotations

import re
import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest
from typing import Any

from ..core.terminal import harmless
from . import values

Paint = Callable[[str], str]
GAP = 2
TEXT = 20
"""Text that is wider than this may be wrapped between its words; what is narrower stays on its line."""


def cell_len(text: str) -> int:
    """Columns of a terminal that a line takes: two for wide characters, none for those that join the one before."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.category(char) in ("Mn", "Me", "Cf") else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


@dataclass(frozen=True)
class Column:
    title: str
    cells: list[str]
    state: bool = False
    """Whether its cells are states, which have a color."""

    @property
    def widest(self) -> int:
        return max((cell_len(line) for cell in (self.title, *self.cells) for line in cell.splitlines()), default=0)

    @property
    def least(self) -> int:
        """The width below which a word would be broken."""
        longest = max((cell_len(word) for cell in (self.title, *self.cells) for word in cell.split()), default=0)
        return min(self.widest, max(longest, TEXT))


def columns_of(items: list[dict[str, Any]], names: tuple[str, ...], now: datetime | None = None) -> list[Column]:
    """A column for each path of `names`, such as `creation_context.created_at`, titled by its last part.

    With `now`, for somebody who reads along: times are ages, and a column without any value is left out.
    """
    columns: list[Column] = []
    for name in names:
        title = name if name in items[0] else name.rsplit(".", 1)[-1]
        cells = [_cell(_reach(item, name), title, now) for item in items]
        if any(cells) or now is None or not columns:
            columns.append(Column(harmless(title), cells, title in values.STATES))
    return columns


def _cell(value: Any, name: str, now: datetime | None) -> str:
    time = values.moment(value, name) if now is not None else None
    return values.age(time, now) if time is not None and now is not None else values.text_of(value, name)


def terminal_width() -> int:
    """Columns of the terminal; elsewhere there is no end to a line."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize


def fitting(columns: list[Column], width: int) -> list[tuple[Column, int]]:
    """The columns that fit into `width` characters, with their own widths: the last are dropped first, the first never."""
    shown = list(columns)
    while len(shown) > 1 and _room(shown, width) < 0:
        shown.pop()
    spare = max(0, _room(shown, width))
    fitted = []
    for column in shown:
        more = min(spare, column.widest - column.least)
        spare -= more
        fitted.append((column, column.least + more))
    return fitted


def _room(columns: list[Column], width: int) -> int:
    return width - sum(column.least for column in columns) - GAP * (len(columns) - 1)


def rows(fitted: list[tuple[Column, int]], paint: Paint | None = None) -> Iterator[str]:
    """The lines of the cells, without the titles; `paint` colors those that are states."""
    widths = [width for _, width in fitted]
    for cells in zip(*(column.cells for column, _ in fitted), strict=True):
        wrapped = [list(_wrapped(cell, width)) for cell, width in zip(cells, widths, strict=True)]
        for parts in zip_longest(*wrapped, fillvalue=""):
            yield line(parts, widths, [paint if column.state else None for column, _ in fitted])


def titles(fitted: list[tuple[Column, int]]) -> str:
    return line([column.title for column, _ in fitted], [width for _, width in fitted])


def line(cells: Any, widths: list[int], paints: Sequence[Paint | None] = ()) -> str:
    padded = (
        (paint(cell) if paint else cell) + " " * (width - cell_len(cell)) for cell, width, paint in zip_longest(cells, widths, paints)
    )
    return (" " * GAP).join(padded).rstrip()


def _wrapped(text: str, width: int) -> Iterator[str]:
    """Lines of at most `width` where words allow it; what goes on is indented as its line is."""
    for written in text.splitlines() or [""]:
        current, indent = "", re.match(r"\s*(?:- )?", written)[0]  # type: ignore[index]
        for word in re.findall(r"\s*\S+", written):
            if current and cell_len(current + word) > width:
                yield current
                current = " " * len(indent) + word.lstrip()
            else:
                current += word
        yield current


def _reach(item: dict[str, Any], path: str) -> Any:
    if path in item:  # a flat row whose keys have dots, such as metrics.loss
        return item[path]
    current: Any = item
    for part in path.split("."):
        current = current.get(part) if isinstance(current, dict) else None
    return current

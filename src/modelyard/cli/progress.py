"""What goes on while a command waits: one line of the terminal that changes, or lines now and then where nobody reads along.

Everything here is on standard error: what a command answers stays alone on standard output.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..core.terminal import harmless
from .output import say

_REDRAW_S = 0.1
_STILL_S = 30.0
"""Of silence where no line can change, before one says what still goes on."""


class Line:
    """The last line of a terminal, which changes. Where none can change, lines: each milestone, and what goes on after a long silence."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._text = self._milestone = ""
        self._began = self._drawn = self._said = time.monotonic()

    def show(self, text: str, milestone: str = "") -> None:
        """`text` with the time since the beginning; `milestone` is what a line of its own says where none can change."""
        now = time.monotonic()
        if self._live:
            changed, self._text = text != self._text, text
            if changed or now - self._drawn >= _REDRAW_S:
                self._drawn = now
                self._draw(f"{text} ({int(now - self._began)} s)" if now - self._began >= 1 else text)
        elif milestone and milestone != self._milestone:
            self._milestone, self._said = milestone, now
            say(milestone)
        elif text and now - self._said >= _STILL_S:
            self._said = now
            say(text)

    def _draw(self, text: str) -> None:
        from .table import cell_len

        text = harmless(text).replace("\n", " ").replace("\t", " ")
        width = shutil.get_terminal_size().columns - 1
        if cell_len(text) > width:
            text = text[:width]
            while cell_len(text) >= width:
                text = text[:-1]
            text += "…"
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()

    def clear(self) -> None:
        """Before something else is printed."""
        self._said = time.monotonic()
        if self._live and self._text:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._text = ""


@contextmanager
def waiting(text: str, interrupted: str = "") -> Iterator[Line]:
    """A line that says what is waited for. Ctrl-C says `interrupted`: what goes on all the same, and how it is ended."""
    line = Line()
    if text:
        line.show(text, text)
    try:
        yield line
    except KeyboardInterrupt:
        line.clear()
        if interrupted:
            say(interrupted)
        raise
    finally:
        line.clear()


@contextmanager
def transfers(*, of_bytes: bool = True) -> Iterator[Callable[[str, int, int], None]]:
    """A callback (what, done, in all) for uploads and downloads in bytes, or for pieces. Shown on a terminal alone."""
    if not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    line, began, shown = Line(), time.monotonic(), 0.0

    def update(what: str, done: int, total: int) -> None:
        nonlocal shown
        if time.monotonic() - shown < _REDRAW_S:
            return  # many small pieces are many calls
        shown = time.monotonic()
        share = f"{100 * done // total if total else 100} %"
        if not of_bytes:
            line.show(f"{what}: {done:,} of {total:,}")
            return
        rate = done / max(time.monotonic() - began, 0.001)
        line.show(f"{what}: {share}, {size(done)} of {size(total)}, {size(rate)}/s")

    try:
        yield update
    finally:
        line.clear()


def size(count: float) -> str:
    """`512 B`, `1.5 MiB`"""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"

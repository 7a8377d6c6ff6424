"""Text of others on a terminal. Names, tags, messages and logs come from whoever may write them; printed as they are, they could move
the cursor, set the clipboard, hide a line or turn one around.

`harmless` is for what the yard says; `LogText` for logs, which keep what logs have: colors, tabs, and progress bars that begin a line anew.
"""

from __future__ import annotations

import re

_ACTS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\U000e0000-\U000e007f]")
"""Control characters but tab and line feed, what changes the direction of writing (bidi), line separators, invisible tags."""
_LOG = re.compile(r"(\x1b\[[0-9;:]{0,32}m)|" + _ACTS.pattern.replace("\x0b-\x1f", "\x0b\x0c\x0e-\x1f"))
_UNFINISHED = re.compile(r"\x1b(\[[0-9;:]{0,32})?\Z")
_INSTEAD = "\N{REPLACEMENT CHARACTER}"
RESET = "\x1b[0m"


def harmless(text: str) -> str:
    """The text with a replacement for each character that acts on a terminal; lines and tabs stay."""
    return text if text.isascii() and text.isprintable() else _ACTS.sub(_INSTEAD, text)


def escaped_json(text: str) -> str:
    """A JSON document with the same value and without such characters: JSON can spell them."""
    return _ACTS.sub(lambda match: "".join(f"\\u{unit:04x}" for unit in _utf16(match[0])), text)


def _utf16(char: str) -> list[int]:
    data = char.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(data[index : index + 2], "big") for index in range(0, len(data), 2)]


class LogText:
    """A log that comes in chunks, for a terminal: a sequence that is cut in two is held back until the rest of it is there."""

    def __init__(self) -> None:
        self._held = ""
        self._colored = False

    def add(self, chunk: str) -> str:
        """What may be printed now."""
        text = self._held + chunk
        unfinished = _UNFINISHED.search(text)
        self._held = unfinished[0] if unfinished else ""
        return self._cleaned(text[: len(text) - len(self._held)])

    def end(self) -> str:
        """What is left, and a reset where colors were used, so that they do not go on behind the log."""
        held, self._held = self._held, ""
        return self._cleaned(held) + (RESET if self._colored else "")

    def _cleaned(self, text: str) -> str:
        def keep(match: re.Match[str]) -> str:
            if match[1]:
                self._colored = True
                return match[1]
            return _INSTEAD

        return _LOG.sub(keep, text)

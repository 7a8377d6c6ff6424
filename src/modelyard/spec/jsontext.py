"""JSON read safely: the twin of `yamlfile`, with the same limits.

Refused: nesting deeper than 64, more than 100,000 values, a key that appears twice, NaN and Infinity (also where a number would overflow to
it), integers of more than 64 bits, NUL characters, text that is not Unicode, anything behind the document.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, NoReturn

from ..core.errors import Invalid
from .yamlfile import MAX_DEPTH, MAX_VALUES

MAX_DIGITS = 20
"""Of an integer of 64 bits with its sign; Python's own reading of a longer one takes a time that grows with its square."""


def loads(text: bytes | str, most_values: int = MAX_VALUES) -> Any:
    """The document as plain dicts, lists and scalars. Raises Invalid for one that is not acceptable."""
    try:
        document = _read(text.decode() if isinstance(text, bytes) else text)
        _check_size(document, most_values)
    except RecursionError:
        raise _refusal(f"nested deeper than {MAX_DEPTH}") from None
    except UnicodeError:
        raise _refusal("not text in UTF-8") from None
    except json.JSONDecodeError as error:
        raise _refusal(f"{error.msg}, line {error.lineno}, column {error.colno}") from None
    return document


def _refusal(reason: str) -> Invalid:
    return Invalid(f"the body is not valid JSON: {reason}", code="invalid_json")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        keys: set[str] = set()
        for key, _ in pairs:
            if key in keys:
                raise _refusal(f"the key {key[:80]!r} appears twice")
            keys.add(key)
    return document


def _integer(digits: str) -> int:
    number = int(digits) if len(digits) <= MAX_DIGITS else 2**63
    if not -(2**63) <= number < 2**63:
        raise _refusal(f"the integer {digits[:30]} has more than 64 bits")
    return number


def _float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise _refusal(f"the number {digits[:30]} is too large")
    return number


def _constant(word: str) -> NoReturn:
    raise _refusal(f"{word} is not a number in JSON")


_read: Callable[[str], Any] = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant
).decode


def _check_size(document: Any, most_values: int) -> None:
    """Level by level, so that no depth exhausts the interpreter's stack. Raises Invalid."""
    values, level = 1, [document]
    if isinstance(document, str):
        _check_text(document, "the document")
    for _ in range(MAX_DEPTH + 1):
        following: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                values += len(item)
                for key, value in item.items():
                    _check_text(key, "a key")
                    if isinstance(value, str):
                        _check_text(value, key)
                    else:
                        following.append(value)
            elif isinstance(item, list):
                values += len(item)
                for value in item:
                    if isinstance(value, str):
                        _check_text(value, "an item")
                    else:
                        following.append(value)
        if values > most_values:
            raise _refusal(f"it holds more than {most_values:,} values")
        if not following:
            return
        level = following
    raise _refusal(f"nested deeper than {MAX_DEPTH}")


def _check_text(text: str, where: str) -> None:
    if "\0" in text:  # no process, path or PostgreSQL takes one
        raise _refusal(f"{where[:80]} holds a NUL character")
    if not text.isascii():
        text.encode()  # half of a surrogate pair, which JSON can spell and no UTF-8 holds

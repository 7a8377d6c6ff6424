"""Opaque page tokens: the sort position after the last row of a page, so that deep pages cost what the first does."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from .errors import Invalid

T = TypeVar("T")


@dataclass(frozen=True)
class Page(Generic[T]):
    items: list[T]
    next_token: str | None = None


def encode_token(position: list[Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(position, separators=(",", ":")).encode()).decode()


def decode_token(token: str | None, length: int | None = None) -> list[Any] | None:
    """The position inside `token`, a list of plain values (`length` of them); Invalid when it is not one of ours."""
    if not token:
        return None
    if not isinstance(token, str):
        raise Invalid("a page token is text", code="invalid_page_token")
    try:
        position = json.loads(base64.b64decode(token.encode(), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError):
        position = None
    if (
        not isinstance(position, list)
        or length not in (None, len(position))
        or not position
        or not all(value is None or isinstance(value, (int, float, str)) for value in position)
        or any(isinstance(value, int) and abs(value) >= 2**63 for value in position)
    ):
        raise Invalid("the page token is not one this server issued; start again without it", code="invalid_page_token")
    return position


def check_limit(limit: int, most: int) -> int:
    if not 1 <= limit <= most:
        raise Invalid(
            f"Invalid value {limit} for parameter 'max_results' supplied: It must be at least 1 and at most {most}",
            code="invalid_max_results",
        )
    return limit


def offset_page(fetch: Callable[[int, int], list[T]], limit: int, most: int, token: str | None) -> Page[T]:
    """A page by position, for orders that have no key of their own. `fetch(size, offset)` reads the rows.

    Raises Invalid for a `limit` outside 1 to `most`, and for a token that is not ours.
    """
    check_limit(limit, most)
    position = decode_token(token, 1)
    offset = int(position[0]) if position and isinstance(position[0], int) and position[0] >= 0 else 0
    items = fetch(limit + 1, offset)
    return Page(items[:limit], encode_token([offset + limit]) if len(items) > limit else None)

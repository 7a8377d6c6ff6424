"""Keyset paging: a search that goes on from the position of a page's last row, so that a deep page costs what the first one does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from ..core.errors import Invalid
from ..core.paging import decode_token, encode_token
from .prepared import Prepared, place
from .unit import Unit


@dataclass(frozen=True)
class Term:
    """One part of an order. The expression is never NULL, so that the position after a row can be said."""

    column: sa.ColumnElement[Any]
    descending: bool


class PagedQuery:
    """A select in an order whose last term is unique, read page by page from the position after the last row.

    Deep pages cost what the first one does (keyset paging).
    """

    def __init__(self, statement: sa.Select[Any], terms: Sequence[Term]) -> None:
        self.statement = statement
        self._width = len(terms)
        kept = statement.add_columns(*(term.column.label(f"position_{index}") for index, term in enumerate(terms)))
        ordered = kept.order_by(*(term.column.desc() if term.descending else term.column.asc() for term in terms))
        ordered = ordered.limit(place("page_limit", sa.BigInteger))
        self._first = Prepared(ordered)
        self._next = Prepared(ordered.where(_after(terms)))

    def page(self, unit: Unit, limit: int, token: str | None, **given: Any) -> tuple[list[tuple[Any, ...]], str | None]:
        """(rows, token of the next page)"""
        return page_through((self,), unit, limit, token, **given)

    def rows(self, unit: Unit, limit: int, position: Sequence[Any] | None, given: dict[str, Any]) -> list[tuple[Any, ...]]:
        if position is None:
            return unit.rows(self._first, page_limit=limit, **given)
        if len(position) != self._width:
            raise Invalid("the page token belongs to another search; start again without it", code="invalid_page_token")
        return unit.rows(self._next, page_limit=limit, **given, **{f"after_{index}": value for index, value in enumerate(position)})

    def bare(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        return row[: -self._width]

    def position(self, row: tuple[Any, ...]) -> list[Any]:
        return list(row[-self._width :])


def _after(terms: Sequence[Term]) -> sa.ColumnElement[bool]:
    places = [place(f"after_{index}", term.column.type) for index, term in enumerate(terms)]
    further = [term.column < place if term.descending else term.column > place for term, place in zip(terms, places, strict=True)]
    same = [term.column == place for term, place in zip(terms, places, strict=True)]
    steps = [sa.and_(*same[:index], further[index]) for index in range(len(terms))]
    # Said once more for the first term alone, so that its index is entered at the right place.
    leading = terms[0].column <= places[0] if terms[0].descending else terms[0].column >= places[0]
    return sa.and_(leading, sa.or_(*steps))


def page_through(
    queries: Sequence[PagedQuery], unit: Unit, limit: int, token: str | None, **given: Any
) -> tuple[list[tuple[Any, ...]], str | None]:
    """A page over queries whose results follow one another. Raises Invalid for a token that is not of this search."""
    at: Any = 0
    position: list[Any] | None = None
    if token:
        at, *position = decode_token(token) or [None]
        if type(at) is not int or not 0 <= at < len(queries):
            raise Invalid("the page token belongs to another search; start again without it", code="invalid_page_token")
    found: list[tuple[tuple[Any, ...], int, list[Any]]] = []
    while at < len(queries) and len(found) <= limit:
        for row in queries[at].rows(unit, limit + 1 - len(found), position or None, given):
            found.append((queries[at].bare(row), at, queries[at].position(row)))
        at, position = at + 1, None
    page = found[:limit]
    return [row for row, _, _ in page], encode_token([page[-1][1], *page[-1][2]]) if len(found) > limit else None

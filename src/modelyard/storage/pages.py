"""Keyset paging: a search that goes on from the position of a page's last row, so that a deep page costs what the first one does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from ..core.errors import Invalid
from ..core.paging import decode_token, encode_token
from .statements import Statement, param
from .unit import Unit


@dataclass(frozen=True)
class Term:
    """One part of an order. The expression is never NULL, so that the position after a row can be stated."""

    column: sa.ColumnElement[Any]
    descending: bool


class PagedQuery:
    """A select in an order whose last term is unique, read page by page from the position after the last row.

    Compiling one costs more than running it: a store keeps the ones it builds, in a cache with a bound.
    """

    def __init__(self, select: sa.Select[Any], terms: Sequence[Term]) -> None:
        self.select = select
        self._width = len(terms)
        positioned = select.add_columns(*(term.column.label(f"position_{index}") for index, term in enumerate(terms)))
        ordered = positioned.order_by(*(term.column.desc() if term.descending else term.column.asc() for term in terms))
        ordered = ordered.limit(param("page_limit", sa.BigInteger))
        self._first = Statement(ordered)
        self._next = Statement(ordered.where(_after(terms)))

    def page(self, unit: Unit, limit: int, token: str | None, **values: Any) -> tuple[list[Any], str | None]:
        """(rows, token of the next page)"""
        return page_through((self,), unit, limit, token, **values)

    def rows(self, unit: Unit, limit: int, position: Sequence[Any] | None, values: Mapping[str, Any]) -> list[Any]:
        if position is None:
            return unit.rows(self._first, page_limit=limit, **values)
        if len(position) != self._width:
            raise Invalid("the page token belongs to another search; start again without it", code="invalid_page_token")
        return unit.rows(self._next, page_limit=limit, **values, **{f"after_{index}": value for index, value in enumerate(position)})

    def position(self, row: tuple[Any, ...]) -> list[Any]:
        return list(row[-self._width :])


def _after(terms: Sequence[Term]) -> sa.ColumnElement[bool]:
    last = [param(f"after_{index}", term.column.type) for index, term in enumerate(terms)]
    further = [term.column < value if term.descending else term.column > value for term, value in zip(terms, last, strict=True)]
    same = [term.column == value for term, value in zip(terms, last, strict=True)]
    steps = [sa.and_(*same[:index], further[index]) for index in range(len(terms))]
    # Repeated for the first term alone, so that its index is entered at the right position.
    leading = terms[0].column <= last[0] if terms[0].descending else terms[0].column >= last[0]
    return sa.and_(leading, sa.or_(*steps))


def page_through(queries: Sequence[PagedQuery], unit: Unit, limit: int, token: str | None, **values: Any) -> tuple[list[Any], str | None]:
    """A page over queries whose results follow one another. Raises Invalid for a token that is not of this search."""
    index: Any = 0
    position: list[Any] | None = None
    if token:
        index, *position = decode_token(token) or [None]
        if type(index) is not int or not 0 <= index < len(queries):
            raise Invalid("the page token belongs to another search; start again without it", code="invalid_page_token")
    rows: list[tuple[int, Any]] = []
    while index < len(queries) and len(rows) <= limit:
        rows += [(index, row) for row in queries[index].rows(unit, limit + 1 - len(rows), position or None, values)]
        index, position = index + 1, None
    page = [row for _, row in rows[:limit]]
    if len(rows) <= limit:
        return page, None
    number, last = rows[limit - 1]
    return page, encode_token([number, *queries[number].position(last)])

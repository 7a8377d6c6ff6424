"""Rows as records and back. The column `spec` of a row is the field `stored` of a record, whose `spec` is the model of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa


def fields_of(row: Any, **changed: Any) -> dict[str, Any]:
    """The columns of a row as fields of its record."""
    return fields_in({**row._asdict(), **changed})


def fields_in(columns: Mapping[str, Any]) -> dict[str, Any]:
    return {"stored" if name == "spec" else name: value for name, value in columns.items()}


def columns_of(record: Any, table: sa.Table) -> dict[str, Any]:
    """The fields of a record as columns of a row, those that the table has."""
    return {
        column.name: getattr(record, "stored" if column.name == "spec" else column.name) for column in table.columns if column.name != "seq"
    }

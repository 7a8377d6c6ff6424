from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from ...storage.tables import Json, metadata
from ...storage.unit import Unit
from .model import ComputeRecord

computes = sa.Table(
    "computes",
    metadata,
    sa.Column("workspace", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("spec", Json, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
)


def _where(unit: Unit, name: str) -> sa.ColumnElement[bool]:
    return sa.and_(computes.c.workspace == unit.workspace, computes.c.name == name)


def get(unit: Unit, name: str) -> ComputeRecord | None:
    row = unit.row(sa.select(computes).where(_where(unit, name)))
    return ComputeRecord(row.name, row.spec, row.created_ms) if row else None


def list_(unit: Unit) -> list[ComputeRecord]:
    query = sa.select(computes).where(computes.c.workspace == unit.workspace).order_by(computes.c.name)
    return [ComputeRecord(row.name, row.spec, row.created_ms) for row in unit.rows(query)]


def put(unit: Unit, name: str, spec: dict[str, Any]) -> None:
    if get(unit, name) is None:
        row = {"workspace": unit.workspace, "name": name, "spec": spec, "created_ms": unit.now}
        unit.insert(computes, row)
    else:
        unit.run(sa.update(computes).where(_where(unit, name)).values(spec=spec))


def delete(unit: Unit, name: str) -> None:
    unit.run(sa.delete(computes).where(_where(unit, name)))

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from ...core.clock import iso
from ...spec.workspace import Workspace
from ...storage.tables import Json, metadata
from ...storage.unit import Unit

workspaces = sa.Table(
    "workspaces",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("spec", Json, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
)


def _record(row: Any) -> Workspace:
    return Workspace.model_validate(
        {
            **row.spec,
            "id": f"azureml://workspaces/{row.name}",
            "creation_context": {"created_at": iso(row.created_ms), "created_by": row.created_by},
        }
    )


def get(unit: Unit, name: str) -> Workspace | None:
    row = unit.row(sa.select(workspaces).where(workspaces.c.name == name))
    return _record(row) if row else None


def exists(unit: Unit, name: str) -> bool:
    return unit.value(sa.select(workspaces.c.name).where(workspaces.c.name == name)) is not None


def list_all(unit: Unit) -> list[Workspace]:
    return [_record(row) for row in unit.rows(sa.select(workspaces).order_by(workspaces.c.name))]


def insert(unit: Unit, spec: Workspace) -> None:
    row = {"name": spec.name, "spec": spec.document(), "created_ms": unit.now, "created_by": unit.actor.name}
    unit.insert(workspaces, row)


def replace(unit: Unit, spec: Workspace) -> None:
    unit.run(sa.update(workspaces).where(workspaces.c.name == spec.name).values(spec=spec.document()))


def delete(unit: Unit, name: str) -> None:
    unit.run(sa.delete(workspaces).where(workspaces.c.name == name))


def holds_rows(unit: Unit, table: sa.Table, workspace: str) -> bool:
    rows = sa.select(sa.literal(1)).select_from(table).where(table.c.workspace == workspace)
    return unit.value(rows.limit(1)) is not None

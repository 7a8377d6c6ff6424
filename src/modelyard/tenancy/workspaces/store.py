from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from ...core.actor import ANY_WORKSPACE
from ...core.clock import iso
from ...spec.workspace import Workspace
from ...storage.statements import Statement, param
from ...storage.tables import Json, metadata
from ...storage.unit import Unit
from .model import StorageUse

workspaces = sa.Table(
    "workspaces",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("spec", Json, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
)

storage_use = sa.Table(
    "storage_use",
    metadata,
    sa.Column("workspace", sa.Text, primary_key=True),
    sa.Column("used_bytes", sa.BigInteger, nullable=False),
    sa.Column("stale", sa.Boolean, nullable=False),
    sa.Column("quota_bytes", sa.BigInteger),
)
"""What each workspace stores, counted up as it comes; `stale` once something may have gone since it was counted. The row of `*` has the
quota of workspaces that have none of their own."""
_U = storage_use.c
_USE = Statement(
    sa.select(_U.workspace, _U.used_bytes, _U.stale, _U.quota_bytes).where(
        sa.or_(_U.workspace == param("workspace"), _U.workspace == ANY_WORKSPACE)
    )
)
_ADD = Statement(
    sa.update(storage_use)
    .where(_U.workspace == param("workspace"))
    .values(used_bytes=_U.used_bytes + param("bytes", sa.BigInteger), stale=sa.or_(_U.stale, param("stale", sa.Boolean)))
)
_MARK_STALE = Statement(sa.update(storage_use).where(_U.workspace == param("workspace"), _U.stale.is_(False)).values(stale=sa.true()))


def use_of(unit: Unit, workspace: str) -> StorageUse:
    rows = {row.workspace: row for row in unit.rows(_USE, workspace=workspace)}
    own, default = rows.get(workspace), rows.get(ANY_WORKSPACE)
    quota = own.quota_bytes if own is not None and own.quota_bytes is not None else default.quota_bytes if default is not None else None
    return StorageUse(own.used_bytes if own is not None else 0, bool(own.stale) if own is not None else False, quota)


def add_use(unit: Unit, bytes: int, stale: bool) -> None:
    if not unit.run(_ADD, workspace=unit.workspace, bytes=bytes, stale=stale):
        _insert_use(unit, unit.workspace)
        unit.run(_ADD, workspace=unit.workspace, bytes=bytes, stale=stale)


def _insert_use(unit: Unit, workspace: str) -> None:
    """A row that counts nothing yet; another server may have been first."""
    unit.insert(storage_use, {"workspace": workspace, "used_bytes": 0, "stale": False, "quota_bytes": None}, keep_existing=True)


def mark_stale(unit: Unit) -> None:
    unit.run(_MARK_STALE, workspace=unit.workspace)


def set_use(unit: Unit, workspace: str, bytes: int) -> None:
    unit.run(sa.update(storage_use).where(_U.workspace == workspace).values(used_bytes=bytes, stale=False))


def counted(unit: Unit) -> list[str]:
    """The workspaces of which use is counted."""
    return [row.workspace for row in unit.rows(sa.select(_U.workspace).where(_U.workspace != ANY_WORKSPACE))]


def set_quota(unit: Unit, workspace: str, quota: int | None) -> None:
    _insert_use(unit, workspace)
    unit.run(sa.update(storage_use).where(_U.workspace == workspace).values(quota_bytes=quota))


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


def delete_rows(unit: Unit, table: sa.Table, workspace: str) -> None:
    unit.run(sa.delete(table).where(table.c.workspace == workspace))


def holds_rows(unit: Unit, table: sa.Table, workspace: str) -> bool:
    rows = sa.select(sa.literal(1)).select_from(table).where(table.c.workspace == workspace)
    return unit.value(rows.limit(1)) is not None

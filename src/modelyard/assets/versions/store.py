from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from ...storage.statements import Statement, param
from ...storage.tables import Json, metadata
from ...storage.unit import Unit
from .model import AssetVersion

asset_versions = sa.Table(
    "asset_versions",
    metadata,
    sa.Column("workspace", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("version", sa.Text, primary_key=True),
    sa.Column("number", sa.BigInteger),
    sa.Column("order", sa.BigInteger, nullable=False),
    sa.Column("spec", Json, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("made_in", sa.Text, nullable=False, server_default=""),
    sa.Column("archived", sa.Boolean, nullable=False),
    sa.Column("content", sa.Text),
    sa.Column("seen", sa.Text),
    sa.Index("ix_asset_versions_order", "workspace", "kind", "name", "order"),
)
_T = asset_versions.c


def _record(row: Any) -> AssetVersion:
    return AssetVersion(
        row.kind, row.name, row.version, row.spec, row.created_ms, row.created_by, row.made_in, row.archived, row.content, row.seen
    )


def _where(unit: Unit, kind: str, name: str) -> sa.ColumnElement[bool]:
    return sa.and_(_T.workspace == unit.workspace, _T.kind == kind, _T.name == name)


_GET = Statement(
    sa.select(asset_versions).where(
        _T.workspace == param("workspace"), _T.kind == param("kind"), _T.name == param("name"), _T.version == param("version")
    )
)


def get(unit: Unit, kind: str, name: str, version: str) -> AssetVersion | None:
    row = unit.row(_GET, workspace=unit.workspace, kind=kind, name=name, version=version)
    return _record(row) if row else None


def latest(unit: Unit, kind: str, name: str) -> AssetVersion | None:
    query = sa.select(asset_versions).where(_where(unit, kind, name), _T.archived.is_(False)).order_by(_T.order.desc())
    row = unit.row(query.limit(1))
    return _record(row) if row else None


def insert(
    unit: Unit, kind: str, name: str, version: str | None, spec: dict[str, Any], content: str | None, seen: str | None
) -> AssetVersion:  # fmt: skip
    """Insert a new version; None takes the highest integer version plus one."""
    if version is None:
        highest = unit.value(sa.select(sa.func.max(_T.number)).where(_where(unit, kind, name)))
        version = str((highest or 0) + 1)
    order = unit.value(sa.select(sa.func.max(_T.order)).where(_where(unit, kind, name)))
    marks = unit.actor.marks
    row = {
        "workspace": unit.workspace, "kind": kind, "name": name, "version": version,
        "number": int(version) if version.isdigit() and len(version) < 16 else None, "order": (order or 0) + 1,
        "spec": spec, "created_ms": unit.now, "archived": False, **marks,
        "content": content, "seen": seen,
    }  # fmt: skip
    unit.insert(asset_versions, row)
    return AssetVersion(kind, name, version, spec, unit.now, marks["created_by"], marks["made_in"], False, content, seen)


def set_spec(unit: Unit, kind: str, name: str, version: str, spec: dict[str, Any]) -> None:
    where = sa.and_(_where(unit, kind, name), _T.version == version)
    unit.run(sa.update(asset_versions).where(where).values(spec=spec))


def set_archived(unit: Unit, kind: str, name: str, version: str | None, archived: bool) -> int:
    where = _where(unit, kind, name)
    if version is not None:
        where = sa.and_(where, _T.version == version)
    return unit.run(sa.update(asset_versions).where(where).values(archived=archived))


def list_versions(unit: Unit, kind: str, name: str, archived: bool | None) -> list[AssetVersion]:
    """Newest first; `archived` None means both."""
    query = sa.select(asset_versions).where(_where(unit, kind, name)).order_by(_T.order.desc())
    if archived is not None:
        query = query.where(_T.archived.is_(archived))
    return [_record(row) for row in unit.rows(query)]


def list_latest(unit: Unit, kind: str, archived: bool | None) -> list[AssetVersion]:
    """The newest version of every name."""
    here = sa.and_(_T.workspace == unit.workspace, _T.kind == kind)
    if archived is not None:
        here = sa.and_(here, _T.archived.is_(archived))
    newest = sa.select(_T.name, sa.func.max(_T.order).label("top")).where(here).group_by(_T.name).subquery()
    query = (
        sa.select(asset_versions)
        .join(newest, sa.and_(_T.name == newest.c.name, _T.order == newest.c.top))
        .where(_T.workspace == unit.workspace, _T.kind == kind)
        .order_by(_T.name)
    )
    return [_record(row) for row in unit.rows(query)]

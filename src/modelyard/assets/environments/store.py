from __future__ import annotations

import sqlalchemy as sa

from ...ports.builder import Lock
from ...storage.statements import Statement, param
from ...storage.tables import Json, metadata
from ...storage.unit import Unit

environment_locks = sa.Table(
    "environment_locks",
    metadata,
    sa.Column("workspace", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("version", sa.Text, primary_key=True),
    sa.Column("python", sa.Text, nullable=False),
    sa.Column("packages", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("notes", Json, nullable=False),
    sa.Column("from_source", Json, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
)


_L = environment_locks.c
_LOCK = Statement(
    sa.select(_L.python, _L.packages, _L.key, _L.notes, _L.from_source).where(
        _L.workspace == param("workspace"), _L.name == param("name"), _L.version == param("version")
    )
)


def get_lock(unit: Unit, name: str, version: str) -> Lock | None:
    row = unit.row(_LOCK, workspace=unit.workspace, name=name, version=version)
    if row is None:
        return None
    return Lock(row.python, row.packages, row.key, tuple(row.notes), from_source=tuple(row.from_source))


def put_lock(unit: Unit, name: str, version: str, lock: Lock) -> None:
    row = {
        "workspace": unit.workspace, "name": name, "version": version, "python": lock.python, "packages": lock.packages,
        "key": lock.key, "notes": list(lock.notes), "from_source": list(lock.from_source), "created_ms": unit.now,
    }  # fmt: skip
    unit.upsert(environment_locks, row)

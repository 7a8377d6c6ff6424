from __future__ import annotations

import sqlalchemy as sa

from ...storage.tables import metadata
from ...storage.unit import Unit

secrets = sa.Table(
    "secrets",
    metadata,
    sa.Column("workspace", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
    sa.Column("time_ms", sa.BigInteger, nullable=False),
)


def get(unit: Unit, name: str) -> tuple[int, bytes] | None:
    where = sa.and_(secrets.c.workspace == unit.workspace, secrets.c.name == name)
    row = unit.row(sa.select(secrets.c.version, secrets.c.sealed).where(where))
    return (row.version, row.sealed) if row else None


def put(unit: Unit, name: str, version: int, sealed: bytes) -> None:
    row = {"workspace": unit.workspace, "name": name, "version": version, "sealed": sealed, "time_ms": unit.now}
    unit.upsert(secrets, row)


def delete(unit: Unit, owner: str) -> None:
    own = sa.or_(secrets.c.name == owner, secrets.c.name.startswith(owner + "/", autoescape=True))
    where = sa.and_(secrets.c.workspace == unit.workspace, own)
    unit.run(sa.delete(secrets).where(where))

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


def after(unit: Unit, workspace: str, name: str, limit: int) -> list[tuple[str, str, int, bytes]]:
    """(workspace, name, version, sealed) of secrets of every workspace, in the order of their keys."""
    position = sa.tuple_(secrets.c.workspace, secrets.c.name) > sa.tuple_(sa.literal(workspace), sa.literal(name))
    query = sa.select(secrets.c.workspace, secrets.c.name, secrets.c.version, secrets.c.sealed).where(position)
    rows = unit.rows(query.order_by(secrets.c.workspace, secrets.c.name).limit(limit))
    return [(row.workspace, row.name, row.version, bytes(row.sealed)) for row in rows]


def replace(unit: Unit, workspace: str, name: str, sealed: bytes) -> None:
    where = sa.and_(secrets.c.workspace == workspace, secrets.c.name == name)
    unit.run(sa.update(secrets).where(where).values(sealed=sealed))


def delete(unit: Unit, owner: str) -> None:
    own = sa.or_(secrets.c.name == owner, secrets.c.name.startswith(owner + "/", autoescape=True))
    where = sa.and_(secrets.c.workspace == unit.workspace, own)
    unit.run(sa.delete(secrets).where(where))

from __future__ import annotations

import sqlalchemy as sa

from ...storage.tables import metadata
from ...storage.unit import Unit

holds = sa.Table(
    "holds",
    metadata,
    sa.Column("workspace", sa.Text, primary_key=True),
    sa.Column("holder_kind", sa.Text, primary_key=True),
    sa.Column("holder", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("version", sa.Text, primary_key=True),
    sa.Column("strong", sa.Boolean, nullable=False),
    sa.Index("ix_holds_thing", "workspace", "kind", "name", "version"),
)


def put(unit: Unit, holder_kind: str, holder: str, kind: str, name: str, version: str, strong: bool) -> None:
    row = {
        "workspace": unit.workspace, "holder_kind": holder_kind, "holder": holder,
        "kind": kind, "name": name, "version": version, "strong": strong,
    }  # fmt: skip
    unit.upsert(holds, row)


def delete(unit: Unit, holder_kind: str, holder: str) -> None:
    where = sa.and_(holds.c.workspace == unit.workspace, holds.c.holder_kind == holder_kind, holds.c.holder == holder)
    unit.run(sa.delete(holds).where(where))


def of_resource(unit: Unit, kind: str, name: str, version: str | None) -> list[tuple[str, str, bool]]:
    query = sa.select(holds.c.holder_kind, holds.c.holder, holds.c.strong).where(
        holds.c.workspace == unit.workspace, holds.c.kind == kind, holds.c.name == name
    )
    if version is not None:
        query = query.where(holds.c.version == version)
    return [(row.holder_kind, row.holder, row.strong) for row in unit.rows(query.order_by(holds.c.holder))]


def of_holder(unit: Unit, holder_kind: str, holder: str) -> list[tuple[str, str, str]]:
    query = sa.select(holds.c.kind, holds.c.name, holds.c.version).where(
        holds.c.workspace == unit.workspace, holds.c.holder_kind == holder_kind, holds.c.holder == holder
    )
    return [(row.kind, row.name, row.version) for row in unit.rows(query)]


def held_anywhere(unit: Unit, holder_kind: str, kind: str) -> list[tuple[str, str, str]]:
    t = holds.c
    query = sa.select(t.workspace, t.name, t.version).where(t.holder_kind == holder_kind, t.kind == kind).distinct()
    return [(row.workspace, row.name, row.version) for row in unit.rows(query)]


def rename(unit: Unit, kind: str, old: str, new: str) -> None:
    here = holds.c.workspace == unit.workspace
    unit.run(sa.update(holds).where(here, holds.c.kind == kind, holds.c.name == old).values(name=new))
    own = sa.and_(here, holds.c.holder_kind == kind, holds.c.holder.startswith(f"{old}:", autoescape=True))
    unit.run(sa.update(holds).where(own).values(holder=sa.literal(new) + sa.func.substr(holds.c.holder, len(old) + 1, type_=sa.Text)))

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from ...core.errors import Invalid
from ...storage import filters
from ...storage.tables import Json, metadata
from ...storage.unit import Unit
from .model import PROMPT, ModelVersion, RegisteredModel

registered_models = sa.Table(
    "registered_models",
    metadata,
    sa.Column("workspace", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("updated_ms", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False, server_default=""),
    sa.Column("made_in", sa.Text, nullable=False, server_default=""),
)
registered_model_tags = sa.Table(
    "registered_model_tags",
    metadata,
    sa.Column("workspace", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
model_versions = sa.Table(
    "model_versions",
    metadata,
    sa.Column("workspace", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("version", sa.Text, primary_key=True),
    sa.Column("number", sa.BigInteger),
    sa.Column("order", sa.BigInteger, nullable=False),
    sa.Column("spec", Json, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text),
    sa.Column("model_id", sa.Text),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("stage", sa.Text, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("updated_ms", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("made_in", sa.Text, nullable=False, server_default=""),
    sa.Column("archived", sa.Boolean, nullable=False),
    sa.Column("content", sa.Text),
    sa.Index("ix_model_versions_run", "workspace", "run_id"),
)
model_version_tags = sa.Table(
    "model_version_tags",
    metadata,
    sa.Column("workspace", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("version", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
model_aliases = sa.Table(
    "model_aliases",
    metadata,
    sa.Column("workspace", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("alias", sa.Text, primary_key=True),
    sa.Column("version", sa.Text, nullable=False),
)
_ALL = (model_aliases, model_version_tags, model_versions, registered_model_tags, registered_models)


def _here(unit: Unit, table: sa.Table, name: str | None = None, version: str | None = None) -> sa.ColumnElement[bool]:
    parts = [table.c.workspace == unit.workspace]
    if name is not None:
        parts.append(table.c.name == name)
    if version is not None:
        parts.append(table.c.version == version)
    return sa.and_(*parts)


def insert_model(unit: Unit, name: str, description: str) -> None:
    row = {"workspace": unit.workspace, "name": name, "description": description, **unit.actor.marks}
    unit.insert(registered_models, {**row, "created_ms": unit.now, "updated_ms": unit.now})


def has_model(unit: Unit, name: str) -> bool:
    return unit.value(sa.select(registered_models.c.name).where(_here(unit, registered_models, name))) is not None


def set_model(unit: Unit, name: str, **values: Any) -> None:
    unit.run(sa.update(registered_models).where(_here(unit, registered_models, name)).values({"updated_ms": unit.now, **values}))


def rename(unit: Unit, name: str, new: str) -> None:
    for table in _ALL:
        unit.run(sa.update(table).where(_here(unit, table, name)).values(name=new))
    set_model(unit, new)


def delete_model(unit: Unit, name: str) -> None:
    for table in _ALL:
        unit.run(sa.delete(table).where(_here(unit, table, name)))


def models(unit: Unit, where: sa.ColumnElement[bool], order: list[Any], limit: int, offset: int) -> list[RegisteredModel]:
    query = sa.select(registered_models).where(_here(unit, registered_models), where).order_by(*order).limit(limit).offset(offset)
    rows = unit.rows(query)
    names = [row.name for row in rows]
    tags = _grouped(unit, registered_model_tags, names, "key", "value")
    aliases = _grouped(unit, model_aliases, names, "alias", "version")
    return [
        RegisteredModel(
            r.name, r.description, r.created_ms, r.updated_ms, r.created_by, r.made_in, tags.get(r.name, {}), aliases.get(r.name, {})
        )
        for r in rows
    ]


def _grouped(unit: Unit, table: sa.Table, names: list[str], key: str, value: str) -> dict[str, dict[str, str]]:
    groups: dict[str, dict[str, str]] = {}
    for start in range(0, len(names), 500):
        query = sa.select(table).where(_here(unit, table), table.c.name.in_(names[start : start + 500])).order_by(table.c[key])
        for row in unit.rows(query):
            groups.setdefault(row.name, {})[getattr(row, key)] = getattr(row, value)
    return groups


def put_model_tag(unit: Unit, name: str, key: str, value: str) -> None:
    unit.upsert(registered_model_tags, {"workspace": unit.workspace, "name": name, "key": key, "value": value})


def delete_model_tag(unit: Unit, name: str, key: str) -> None:
    where = sa.and_(_here(unit, registered_model_tags, name), registered_model_tags.c.key == key)
    unit.run(sa.delete(registered_model_tags).where(where))


def insert_version(unit: Unit, name: str, version: str | None, row: dict[str, Any]) -> str:
    """Insert; None takes the highest integer version plus one. The version."""
    here = _here(unit, model_versions, name)
    if version is None:
        version = str((unit.value(sa.select(sa.func.max(model_versions.c.number)).where(here)) or 0) + 1)
    order = (unit.value(sa.select(sa.func.max(model_versions.c.order)).where(here)) or 0) + 1
    values = {
        "workspace": unit.workspace, "name": name, "version": version, "order": order,
        "number": int(version) if version.isdigit() and len(version) < 16 else None,
        "created_ms": unit.now, "updated_ms": unit.now, **unit.actor.marks, "archived": False,
    }  # fmt: skip
    unit.insert(model_versions, {**values, **row})
    return version


def set_version(unit: Unit, name: str, version: str | None, **values: Any) -> int:
    where = _here(unit, model_versions, name, version)
    return unit.run(sa.update(model_versions).where(where).values({"updated_ms": unit.now, **values}))


def delete_version(unit: Unit, name: str, version: str) -> None:
    for table in (model_aliases, model_version_tags, model_versions):
        unit.run(sa.delete(table).where(_here(unit, table, name, version)))


def put_version_tag(unit: Unit, name: str, version: str, key: str, value: str) -> None:
    row = {"workspace": unit.workspace, "name": name, "version": version, "key": key, "value": value}
    unit.upsert(model_version_tags, row)


def delete_version_tag(unit: Unit, name: str, version: str, key: str) -> None:
    where = sa.and_(_here(unit, model_version_tags, name, version), model_version_tags.c.key == key)
    unit.run(sa.delete(model_version_tags).where(where))


def put_alias(unit: Unit, name: str, alias: str, version: str) -> None:
    unit.upsert(model_aliases, {"workspace": unit.workspace, "name": name, "alias": alias, "version": version})


def delete_alias(unit: Unit, name: str, alias: str) -> None:
    unit.run(sa.delete(model_aliases).where(_here(unit, model_aliases, name), model_aliases.c.alias == alias))


def version_of_alias(unit: Unit, name: str, alias: str) -> str | None:
    where = sa.and_(_here(unit, model_aliases, name), model_aliases.c.alias == alias)
    version: str | None = unit.value(sa.select(model_aliases.c.version).where(where))
    return version


def get_version(unit: Unit, name: str, version: str) -> ModelVersion | None:
    records = versions(unit, model_versions.c.version == version, [], 1, 0, name=name)
    return records[0] if records else None


def newest(unit: Unit, name: str, *, stage: str | None = None, archived: bool = False) -> ModelVersion | None:
    where = sa.true() if stage is None else model_versions.c.stage == stage
    if not archived:
        where = sa.and_(where, model_versions.c.archived.is_(False))
    records = versions(unit, where, [model_versions.c.order.desc()], 1, 0, name=name)
    return records[0] if records else None


def versions(
    unit: Unit, where: sa.ColumnElement[bool], order: list[Any], limit: int, offset: int, *, name: str | None = None
) -> list[ModelVersion]:
    query = sa.select(model_versions).where(_here(unit, model_versions, name), where).order_by(*order).limit(limit).offset(offset)
    rows = unit.rows(query)
    names = sorted({row.name for row in rows})
    tags: dict[tuple[str, str], dict[str, str]] = {}
    aliases: dict[tuple[str, str], list[str]] = {}
    for start in range(0, len(names), 500):
        chunk = names[start : start + 500]
        for tag in unit.rows(sa.select(model_version_tags).where(_here(unit, model_version_tags), model_version_tags.c.name.in_(chunk))):
            tags.setdefault((tag.name, tag.version), {})[tag.key] = tag.value
        for alias in unit.rows(sa.select(model_aliases).where(_here(unit, model_aliases), model_aliases.c.name.in_(chunk))):
            aliases.setdefault((alias.name, alias.version), []).append(alias.alias)
    return [
        ModelVersion(
            r.name, r.version, r.spec, r.source, r.run_id, r.model_id, r.status, r.stage, r.created_ms, r.updated_ms,
            r.created_by, r.made_in, r.archived, tags.get((r.name, r.version), {}), tuple(sorted(aliases.get((r.name, r.version), []))),
            r.content,
        )
        for r in rows
    ]  # fmt: skip


def newest_of_each(unit: Unit, archived: bool | None) -> list[ModelVersion]:
    here = _here(unit, model_versions)
    if archived is not None:
        here = sa.and_(here, model_versions.c.archived.is_(archived))
    top = (
        sa.select(model_versions.c.name, sa.func.max(model_versions.c.order).label("top"))
        .where(here)
        .group_by(model_versions.c.name)
        .subquery()
    )
    where = sa.exists().where(top.c.name == model_versions.c.name, top.c.top == model_versions.c.order)
    return versions(unit, where, [model_versions.c.name], 100_000, 0)


def versions_of(unit: Unit, name: str, archived: bool | None) -> list[ModelVersion]:
    """Newest first; `archived` None means both."""
    where = sa.true() if archived is None else model_versions.c.archived.is_(archived)
    return versions(unit, where, [model_versions.c.order.desc()], 100_000, 0, name=name)


def get_model(unit: Unit, name: str) -> RegisteredModel | None:
    records = models(unit, registered_models.c.name == name, [], 1, 0)
    return records[0] if records else None


def archive_stage(unit: Unit, name: str, stage: str) -> None:
    where = sa.and_(_here(unit, model_versions, name), model_versions.c.stage == stage)
    unit.run(sa.update(model_versions).where(where).values(stage="Archived", updated_ms=unit.now))


def search_models(
    unit: Unit, conditions: tuple[filters.Condition, ...], orders: tuple[filters.Order, ...], limit: int, offset: int
) -> list[RegisteredModel]:
    t, tags = registered_models.c, registered_model_tags
    where: sa.ColumnElement[bool] = sa.true()
    for condition in conditions:
        if condition.group in ("", "attribute", "attributes") and condition.name == "name":
            where = sa.and_(where, filters.text_condition(t.name, condition))
        elif condition.group in ("tag", "tags"):
            where = sa.and_(where, _tag(tags, sa.and_(tags.c.workspace == t.workspace, tags.c.name == t.name), condition))
        else:
            raise Invalid(f"Invalid attribute key '{condition.name}' specified. Valid keys are name and tags.", code="invalid_filter")
    columns = {"name": t.name, "timestamp": t.updated_ms, "last_updated_timestamp": t.updated_ms, "creation_timestamp": t.created_ms}
    return models(unit, where, [*_sort(columns, orders), t.name], limit, offset)


def search_versions(
    unit: Unit, conditions: tuple[filters.Condition, ...], orders: tuple[filters.Order, ...], limit: int, offset: int
) -> list[ModelVersion]:
    t, tags = model_versions.c, model_version_tags
    texts = {"name": t.name, "run_id": t.run_id, "source_path": t.source, "source": t.source, "version": t.version}
    where: sa.ColumnElement[bool] = sa.true()
    for condition in conditions:
        plain = condition.group in ("", "attribute", "attributes")
        if plain and condition.name == "version_number":
            where = sa.and_(where, filters.number_condition(t.number, condition))
        elif plain and condition.name in texts:
            where = sa.and_(where, filters.text_condition(texts[condition.name], condition))
        elif condition.group in ("tag", "tags"):
            joined = sa.and_(tags.c.workspace == t.workspace, tags.c.name == t.name, tags.c.version == t.version)
            where = sa.and_(where, _tag(tags, joined, condition))
        else:
            keys = ", ".join((*texts, "version_number", "tags"))
            raise Invalid(f"Invalid attribute key '{condition.name}' specified. Valid keys are {keys}.", code="invalid_filter")
    columns = {"name": t.name, "version_number": t.number, "creation_timestamp": t.created_ms, "last_updated_timestamp": t.updated_ms}
    return versions(unit, where, [*_sort(columns, orders), t.updated_ms.desc(), t.name, t.order.desc()], limit, offset)


def _tag(table: sa.Table, joined: sa.ColumnElement[bool], condition: filters.Condition) -> sa.ColumnElement[bool]:
    """As every tag, but for MLflow's mark of prompts: clients ask for models as `is_prompt != 'true'`, which most lack."""
    if condition.name == PROMPT and condition.operator == "!=":
        return ~sa.exists().where(joined, table.c.key == PROMPT, table.c.value == condition.value)
    return filters.tag_condition(table, joined, condition)


def _sort(columns: dict[str, sa.Column[Any]], orders: tuple[filters.Order, ...]) -> list[Any]:
    for order in orders:
        if order.name not in columns:
            raise Invalid(f"Invalid order_by key '{order.name}'. Valid keys are {', '.join(columns)}.", code="invalid_order")
    return [columns[order.name].desc() if order.descending else columns[order.name].asc() for order in orders]

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from operator import attrgetter, itemgetter
from typing import Any

import orjson
import sqlalchemy as sa

from ...core.errors import Invalid
from ...core.paging import Page
from ...storage import filters
from ...storage.pages import PagedQuery, Term, page_through
from ...storage.statements import Statement, among, param
from ...storage.tables import Json, Serial, metadata
from ...storage.unit import Unit
from .model import MAX_INT, PARENT, Experiment, LoggedModel, Metric, Run

experiments = sa.Table(
    "experiments",
    metadata,
    sa.Column("id", Serial, primary_key=True),
    sa.Column("workspace", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("artifact_location", sa.Text, nullable=False),
    sa.Column("lifecycle", sa.Text, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("updated_ms", sa.BigInteger, nullable=False),
    sa.Column("deleted_ms", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("created_by", sa.Text, nullable=False, server_default=""),
    sa.Column("made_in", sa.Text, nullable=False, server_default=""),
    # A deleted experiment gives its name free.
    sa.UniqueConstraint("workspace", "name", "deleted_ms"),
)
experiment_tags = sa.Table(
    "experiment_tags",
    metadata,
    sa.Column("experiment_id", sa.BigInteger, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
runs = sa.Table(
    "runs",
    metadata,
    sa.Column("key", Serial, primary_key=True),
    sa.Column("workspace", sa.Text, nullable=False),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("experiment_id", sa.BigInteger, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("start_ms", sa.BigInteger),
    sa.Column("end_ms", sa.BigInteger),
    sa.Column("lifecycle", sa.Text, nullable=False),
    sa.Column("user", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("deleted_ms", sa.BigInteger),
    sa.Index("ix_runs_experiment", "experiment_id", "lifecycle", "start_ms", "id"),
    sa.Index(
        "ix_runs_deleted", "deleted_ms", sqlite_where=sa.text("deleted_ms IS NOT NULL"), postgresql_where=sa.text("deleted_ms IS NOT NULL")
    ),
)
metrics = sa.Table(
    "metrics",
    metadata,
    sa.Column("run_key", sa.BigInteger, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("step", sa.BigInteger, primary_key=True),
    sa.Column("time_ms", sa.BigInteger, primary_key=True),
    sa.Column("value", sa.Double, primary_key=True),
    sa.Column("is_nan", sa.Boolean, primary_key=True),
    sqlite_with_rowid=False,
)
latest_metrics = sa.Table(
    "latest_metrics",
    metadata,
    sa.Column("run_key", sa.BigInteger, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("experiment_id", sa.BigInteger, nullable=False),
    sa.Column("step", sa.BigInteger, nullable=False),
    sa.Column("time_ms", sa.BigInteger, nullable=False),
    sa.Column("value", sa.Double, nullable=False),
    sa.Column("is_nan", sa.Boolean, nullable=False),
    sa.Index("ix_latest_metrics_order", "experiment_id", "key", "is_nan", "value", "run_key"),
    sqlite_with_rowid=False,
)
params = sa.Table(
    "params",
    metadata,
    sa.Column("run_key", sa.BigInteger, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
    sqlite_with_rowid=False,
)
tags = sa.Table(
    "tags",
    metadata,
    sa.Column("run_key", sa.BigInteger, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
    sa.Index("ix_tags_parent", "value", sqlite_where=sa.text(f"key = '{PARENT}'"), postgresql_where=sa.text(f"key = '{PARENT}'")),
    sqlite_with_rowid=False,
)
run_inputs = sa.Table(
    "run_inputs",
    metadata,
    sa.Column("run_key", sa.BigInteger, primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("context", sa.Text, primary_key=True),
    sa.Column("document", Json, nullable=False),
)
logged_models = sa.Table(
    "logged_models",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("workspace", sa.Text, nullable=False),
    sa.Column("experiment_id", sa.BigInteger, nullable=False, index=True),
    sa.Column("run_id", sa.Text, index=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("model_type", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("status_message", sa.Text, nullable=False),
    sa.Column("params", Json, nullable=False),
    sa.Column("tags", Json, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("updated_ms", sa.BigInteger, nullable=False),
    sa.Column("lifecycle", sa.Text, nullable=False),
)
logged_model_metrics = sa.Table(
    "logged_model_metrics",
    metadata,
    sa.Column("model_id", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("step", sa.BigInteger, primary_key=True),
    sa.Column("time_ms", sa.BigInteger, primary_key=True),
    sa.Column("dataset", sa.Text, primary_key=True),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("value", sa.Double, nullable=False),
    sa.Column("is_nan", sa.Boolean, nullable=False),
)


# Experiments


_EXPERIMENT = (
    experiments.c.id, experiments.c.name, experiments.c.artifact_location, experiments.c.lifecycle, experiments.c.created_ms,
    experiments.c.updated_ms, experiments.c.created_by, experiments.c.made_in,
)  # fmt: skip
_HERE = experiments.c.workspace == param("workspace")
_EXPERIMENT_BY_ID = Statement(sa.select(*_EXPERIMENT).where(_HERE, experiments.c.id == param("id")))
_EXPERIMENT_BY_NAME = Statement(sa.select(*_EXPERIMENT).where(_HERE, experiments.c.name == param("name"), experiments.c.deleted_ms == 0))
_EXPERIMENT_TAGS = Statement(
    sa.select(experiment_tags.c.experiment_id, experiment_tags.c.key, experiment_tags.c.value)
    .where(among(experiment_tags.c.experiment_id, "ids"))
    .order_by(experiment_tags.c.key)
)


def _experiments(unit: Unit, rows: Sequence[Any], *, bare: bool = False) -> list[Experiment]:
    tags: dict[int, dict[str, str]] = {}
    if rows and not bare:
        for tag in unit.rows(_EXPERIMENT_TAGS, ids=[row.id for row in rows]):
            tags.setdefault(tag.experiment_id, {})[tag.key] = tag.value
    return [
        Experiment(
            str(row.id),
            row.name,
            row.artifact_location,
            row.lifecycle,
            row.created_ms,
            row.updated_ms,
            row.created_by,
            row.made_in,
            tags.get(row.id, {}),
        )
        for row in rows
    ]


def get_experiment(unit: Unit, id: int, *, bare: bool = False) -> Experiment | None:
    """`bare` leaves the tags out."""
    rows = unit.rows(_EXPERIMENT_BY_ID, workspace=unit.workspace, id=id)
    return _experiments(unit, rows, bare=bare)[0] if rows else None


def experiment_by_name(unit: Unit, name: str) -> Experiment | None:
    """The experiment of this name that is not deleted."""
    rows = unit.rows(_EXPERIMENT_BY_NAME, workspace=unit.workspace, name=name)
    return _experiments(unit, rows)[0] if rows else None


def experiment_id(unit: Unit, name: str, deleted_ms: int) -> int | None:
    """The experiment of this name that was deleted at this time; 0: the one that is not deleted."""
    t = experiments.c
    id: int | None = unit.value(sa.select(t.id).where(t.workspace == unit.workspace, t.name == name, t.deleted_ms == deleted_ms))
    return id


def insert_experiment(unit: Unit, name: str, artifact_location: str, id: int | None = None, **values: Any) -> int:
    row = {
        "workspace": unit.workspace, "name": name, "artifact_location": artifact_location, "lifecycle": "active",
        "created_ms": unit.now, "updated_ms": unit.now, "deleted_ms": 0, **unit.actor.marks, **({"id": id} if id is not None else {}), **values,
    }  # fmt: skip
    return int(unit.value(sa.insert(experiments).values(row).returning(experiments.c.id)))


def set_experiment(unit: Unit, id: int, **values: Any) -> None:
    unit.run(sa.update(experiments).where(experiments.c.id == id).values(**{"updated_ms": unit.now, **values}))


def put_experiment_tag(unit: Unit, id: int, key: str, value: str) -> None:
    unit.upsert(experiment_tags, {"experiment_id": id, "key": key, "value": value})


def delete_experiment_tag(unit: Unit, id: int, key: str) -> bool:
    where = sa.and_(experiment_tags.c.experiment_id == id, experiment_tags.c.key == key)
    return unit.run(sa.delete(experiment_tags).where(where)) > 0


def search_experiments(
    unit: Unit,
    conditions: tuple[filters.Condition, ...],
    orders: tuple[filters.Order, ...],
    lifecycles: tuple[str, ...],
    limit: int,
    token: str | None,
) -> Page[Experiment]:
    query = _experiment_query(conditions, orders, lifecycles)
    rows, next_token = query.page(unit, limit, token, workspace=unit.workspace)
    return Page(_experiments(unit, rows), next_token)


@functools.lru_cache(maxsize=256)
def _experiment_query(
    conditions: tuple[filters.Condition, ...], orders: tuple[filters.Order, ...], lifecycles: tuple[str, ...]
) -> PagedQuery:
    t = experiments.c
    query = sa.select(*_EXPERIMENT).where(_HERE, t.lifecycle.in_(lifecycles))
    numbers = {"creation_time": t.created_ms, "last_update_time": t.updated_ms}
    for condition in conditions:
        plain = condition.group in ("", "attribute", "attributes", "attr")
        if plain and condition.name == "name":
            query = query.where(filters.text_condition(t.name, condition))
        elif plain and condition.name == "experiment_id":
            query = query.where(filters.text_condition(sa.cast(t.id, sa.Text), condition))
        elif plain and condition.name in numbers:
            query = query.where(filters.number_condition(numbers[condition.name], condition))
        elif condition.group in ("tag", "tags"):
            query = query.where(filters.tag_condition(experiment_tags, experiment_tags.c.experiment_id == t.id, condition))
        else:
            raise Invalid(f"Invalid attribute key '{condition.name}' specified for experiments", code="invalid_filter")
    columns = {"name": t.name, "experiment_id": t.id, **numbers}
    terms = []
    for order in orders:
        if order.name not in columns:
            raise Invalid(f"Invalid order_by key '{order.name}'", code="invalid_order")
        terms.append(Term(columns[order.name], order.descending))
    return PagedQuery(query, [*(terms or [Term(t.created_ms, True)]), Term(t.id, True)])


# Runs


_RUN = (
    runs.c.key, runs.c.id, runs.c.experiment_id, runs.c.name, runs.c.status, runs.c.start_ms, runs.c.end_ms, runs.c.lifecycle,
    runs.c.user, runs.c.owner,
)  # fmt: skip
_INSERT_RUN = Statement(
    sa.insert(runs).values({c.name: param(c.name) for c in runs.c if c.name not in ("key", "deleted_ms")}).returning(runs.c.key)
)
_RUN_BY_ID = Statement(sa.select(*_RUN).where(runs.c.id == param("id"), runs.c.workspace == param("workspace")))


def _everything() -> sa.CompoundSelect[Any]:
    """All that was logged to runs in one statement: (table, run_key, key, text, value, time_ms, step, is_nan)."""

    def part(what: str, table: sa.Table, key: str, text: str | None, *numbers: str) -> sa.Select[Any]:
        types: tuple[Any, ...] = (sa.Double(), sa.BigInteger(), sa.BigInteger(), sa.Boolean())
        shown: list[Any] = [table.c[name] for name in numbers] or [sa.cast(sa.null(), type) for type in types]
        # Of thousands of rows, those of metrics alone are asked whether they are NaN; the driver's 0 and 1 do for them.
        shown[-1] = sa.type_coerce(shown[-1], sa.Integer)
        text_value = sa.cast(sa.null(), sa.Text) if text is None else sa.cast(table.c[text], sa.Text)
        return sa.select(sa.literal_column(f"'{what}'"), table.c.run_key, table.c[key], text_value, *shown).where(
            among(table.c.run_key, "keys")
        )

    return sa.union_all(
        part("metric", latest_metrics, "key", None, "value", "time_ms", "step", "is_nan"),
        part("param", params, "key", "value"),
        part("tag", tags, "key", "value"),
        part("input", run_inputs, "kind", "document"),
    )


_EVERYTHING = Statement(_everything(), plain=True)


def insert_run(unit: Unit, **values: Any) -> int:
    return int(unit.value(_INSERT_RUN, workspace=unit.workspace, lifecycle="active", **{"end_ms": None, **values}))


def run_row(unit: Unit, id: str) -> Run | None:
    """The run alone, without what was logged to it: for guards on hot paths."""
    row = unit.row(_RUN_BY_ID, id=id, workspace=unit.workspace)
    return _bare(row) if row else None


_CHILDREN = Statement(
    sa.select(*_RUN)
    .join(tags, tags.c.run_key == runs.c.key)
    # The tag's name is part of the statement: only so is the index of parents used.
    .where(tags.c.key == sa.literal_column(f"'{PARENT}'"), tags.c.value == param("parent"), runs.c.workspace == param("workspace"))
    .order_by(runs.c.key)
)


def children(unit: Unit, id: str) -> list[Run]:
    """The bare runs that name this one as their parent, in the order in which they were made."""
    return [_bare(row) for row in unit.rows(_CHILDREN, parent=id, workspace=unit.workspace)]


def run_id_is_free(unit: Unit, id: str) -> bool:
    """Whether no workspace has a run of this id."""
    return unit.value(sa.select(runs.c.key).where(runs.c.id == id)) is None


def clear_texts(unit: Unit, run_key: int) -> None:
    """Remove params, tags and inputs of a run."""
    for table in (params, tags, run_inputs):
        unit.run(sa.delete(table).where(table.c.run_key == run_key))


def count_of_run(unit: Unit, run_key: int) -> dict[str, int]:
    tables = {"points": metrics, "params": params, "tags": tags}
    return {what: unit.value(sa.select(sa.func.count()).where(table.c.run_key == run_key)) for what, table in tables.items()}


def tag_of_runs(unit: Unit, tag: str, ids: Sequence[str]) -> dict[str, str]:
    """run id → value of a tag, of those runs that have it."""
    query = sa.select(runs.c.id, tags.c.value).join(tags, tags.c.run_key == runs.c.key)
    query = query.where(runs.c.workspace == unit.workspace, runs.c.id.in_(ids), tags.c.key == tag)
    return {row.id: row.value for row in unit.rows(query)}


def _bare(row: Any) -> Run:
    return Run(
        row.key, row.id, str(row.experiment_id), row.name, row.status, row.start_ms, row.end_ms, row.lifecycle, row.user, row.owner
    )  # fmt: skip


def get_run(unit: Unit, id: str) -> Run | None:
    run = run_row(unit, id)
    if run is not None:
        fill(unit, [run])
    return run


def fill(unit: Unit, bare: Sequence[Run]) -> None:
    """Read what was logged to the runs into them; metrics, params and tags in the order of their keys."""
    by_key = {run.key: run for run in bare}
    rows = unit.rows(_EVERYTHING, keys=by_key)
    rows.sort(key=itemgetter(2))  # the key
    for what, run_key, key, text, value, time_ms, step, is_nan in rows:
        run = by_key[run_key]
        if what == "metric":
            run.metrics.append(Metric(key, value, time_ms, step, bool(is_nan)))
        elif what == "param":
            run.params[key] = text
        elif what == "tag":
            run.tags[key] = text
        else:
            run.inputs.append({"kind": key, **orjson.loads(text)})


def keep_columns(unit: Unit, bare: Sequence[Run], columns: Sequence[tuple[str, str]]) -> None:
    """As `fill`, with the requested columns only."""
    by_key = {run.key: run for run in bare}
    for group, statement in _COLUMNS.items():
        names = [name for part, name in columns if part == group]
        for row in unit.rows(statement, keys=by_key, names=names) if names else ():
            run = by_key[row.run_key]
            if group == "metrics":
                run.metrics.append(Metric(row.key, row.value, row.time_ms, row.step, row.is_nan))
            else:
                getattr(run, group)[row.key] = row.value


_COLUMNS = {
    group: Statement(sa.select(table).where(among(table.c.run_key, "keys"), among(table.c.key, "names")).order_by(table.c.key))
    for group, table in (("metrics", latest_metrics), ("params", params), ("tags", tags))
}


def all_experiments(unit: Unit, names: Sequence[str] | None) -> dict[str, int]:
    """name → id of the experiments that are not deleted; of these names, or of all."""
    t = experiments.c
    query = sa.select(t.name, t.id).where(t.workspace == unit.workspace, t.deleted_ms == 0)
    if names is not None:
        query = query.where(t.name.in_(names))
    return {row.name: row.id for row in unit.rows(query)}


def purge_run(unit: Unit, run: Run) -> list[str]:
    """Remove every row of a run. The ids of the logged models that went with it."""
    models = [row.id for row in unit.rows(sa.select(logged_models.c.id).where(logged_models.c.run_id == run.id))]
    for table in (metrics, latest_metrics, params, tags, run_inputs):
        unit.run(sa.delete(table).where(table.c.run_key == run.key))
    unit.run(sa.delete(logged_model_metrics).where(logged_model_metrics.c.model_id.in_(models)))
    unit.run(sa.delete(logged_models).where(logged_models.c.run_id == run.id))
    unit.run(sa.delete(runs).where(runs.c.key == run.key))
    return models


def deleted_before(unit: Unit, time_ms: int, limit: int) -> list[tuple[str, str]]:
    """(workspace, run id) of what was deleted before, in every workspace."""
    query = sa.select(runs.c.workspace, runs.c.id).where(runs.c.deleted_ms < time_ms).order_by(runs.c.deleted_ms).limit(limit)
    return [(row.workspace, row.id) for row in unit.rows(query)]


def purge_experiments(unit: Unit, time_ms: int) -> int:
    """Remove deleted experiments in which no run is left."""
    t = experiments.c
    empty = ~sa.exists().where(runs.c.experiment_id == t.id)
    gone = [row.id for row in unit.rows(sa.select(t.id).where(t.deleted_ms > 0, t.deleted_ms < time_ms, empty))]
    unit.run(sa.delete(experiment_tags).where(experiment_tags.c.experiment_id.in_(gone)))
    unit.run(sa.delete(experiments).where(t.id.in_(gone)))
    return len(gone)


def set_run(unit: Unit, key: int, **values: Any) -> None:
    if values:
        unit.run(sa.update(runs).where(runs.c.key == key).values(**values))


def move_run(unit: Unit, key: int, experiment_id: int) -> None:
    """Into another experiment, where it is active."""
    set_run(unit, key, experiment_id=experiment_id, lifecycle="active", deleted_ms=None)
    unit.run(sa.update(latest_metrics).where(latest_metrics.c.run_key == key).values(experiment_id=experiment_id))


def set_runs_lifecycle(unit: Unit, experiment_id: int, lifecycle: str) -> None:
    deleted = unit.now if lifecycle == "deleted" else None
    unit.run(sa.update(runs).where(runs.c.experiment_id == experiment_id).values(lifecycle=lifecycle, deleted_ms=deleted))


_AGE = attrgetter("step", "time_ms", "value")
"""Of two points of a metric the later one is its latest value."""


def _later(old: Any, new: Any) -> sa.ColumnElement[bool]:
    """As `_AGE`, in SQL."""
    return sa.or_(
        new.step > old.step,
        sa.and_(new.step == old.step, new.time_ms > old.time_ms),
        sa.and_(new.step == old.step, new.time_ms == old.time_ms, new.value > old.value),
    )


_EXISTING_PARAMS = Statement(
    sa.select(params.c.key, params.c.value).where(params.c.run_key == param("run_key"), among(params.c.key, "keys"))
)


def put_metrics(unit: Unit, run: Run, points: Sequence[Metric]) -> None:
    """Add points (one that is stored already changes nothing) and move the latest values forward."""
    run_key, experiment_id = run.key, int(run.experiment_id)
    rows = [(run_key, key, step, time_ms, value, is_nan) for key, value, time_ms, step, is_nan, _, _ in points]
    unit.insert(metrics, *rows, keep_existing=True)
    latest = {point.key: point for point in sorted(points, key=_AGE)}
    unit.upsert(
        latest_metrics, *((run_key, p.key, experiment_id, p.step, p.time_ms, p.value, p.is_nan) for p in latest.values()), when=_later
    )


_POINTS = (
    # A million points are read at once: whether one is NaN stays what the driver says, 0 and 1 on SQLite.
    sa.select(metrics.c.step, metrics.c.time_ms, metrics.c.value, sa.type_coerce(metrics.c.is_nan, sa.Integer))
    .where(
        metrics.c.run_key == param("run_key"),
        metrics.c.key == param("key"),
        metrics.c.step.between(param("first"), param("last")),
    )
    .order_by(metrics.c.step, metrics.c.time_ms, metrics.c.value)
    .limit(param("limit", sa.BigInteger))
)
_AFTER = sa.tuple_(metrics.c.step, metrics.c.time_ms, metrics.c.value) > sa.tuple_(
    param("step", sa.BigInteger), param("time_ms", sa.BigInteger), param("value", sa.Double)
)
_HISTORY = Statement(_POINTS, plain=True)
_HISTORY_AFTER = Statement(_POINTS.where(_AFTER), plain=True)


def metric_history(
    unit: Unit,
    run_key: int,
    key: str,
    limit: int,
    after: tuple[int, int, float] | None = None,
    first: int = -MAX_INT,
    last: int = MAX_INT - 1,
) -> list[tuple[int, int, float, bool]]:
    """(step, time_ms, value, is_nan) by step, then time, then value; `after` is the last point of the page before."""
    bounds = {"run_key": run_key, "key": key, "limit": limit, "first": first, "last": last}
    if after is None:
        return unit.rows(_HISTORY, **bounds)
    return unit.rows(_HISTORY_AFTER, **bounds, step=after[0], time_ms=after[1], value=after[2])


def existing_params(unit: Unit, run_key: int, keys: list[str]) -> dict[str, str]:
    return dict(unit.rows(_EXISTING_PARAMS, run_key=run_key, keys=keys))


def put_params(unit: Unit, run_key: int, values: dict[str, str]) -> None:
    """Rows that exist already stay unchanged."""
    unit.insert(params, *((run_key, key, value) for key, value in values.items()), keep_existing=True)


def put_tags(unit: Unit, run_key: int, values: dict[str, str]) -> None:
    unit.upsert(tags, *((run_key, key, value) for key, value in values.items()))


def delete_tag(unit: Unit, run_key: int, key: str) -> bool:
    return unit.run(sa.delete(tags).where(tags.c.run_key == run_key, tags.c.key == key)) > 0


def put_inputs(unit: Unit, run_key: int, rows: list[dict[str, Any]]) -> None:
    unit.upsert(run_inputs, *({"run_key": run_key, **row} for row in rows))


def tag(unit: Unit, run_key: int, key: str) -> str | None:
    value: str | None = unit.value(sa.select(tags.c.value).where(tags.c.run_key == run_key, tags.c.key == key))
    return value


def dataset_summaries(unit: Unit, experiment_ids: list[int]) -> list[dict[str, str]]:
    t = run_inputs.c
    query = (
        sa.select(runs.c.experiment_id, t.name, t.digest, t.context)
        .join(runs, runs.c.key == t.run_key)
        .where(
            runs.c.workspace == unit.workspace, runs.c.experiment_id.in_(experiment_ids), t.kind == "dataset", runs.c.lifecycle == "active"
        )
        .distinct()
        .order_by(runs.c.experiment_id, t.name, t.digest, t.context)
        .limit(1000)
    )
    return [
        {"experiment_id": str(row.experiment_id), "name": row.name, "digest": row.digest, "context": row.context}
        for row in unit.rows(query)
    ]


_RUN_ATTRIBUTES = {
    "run_id": runs.c.id,
    "run_name": runs.c.name,
    "status": runs.c.status,
    "user_id": runs.c.user,
    "lifecycle_stage": runs.c.lifecycle,
    "experiment_id": sa.cast(runs.c.experiment_id, sa.Text),
}
_RUN_NUMBERS = {"start_time": runs.c.start_ms, "end_time": runs.c.end_ms, "created": runs.c.start_ms}
_SPELLINGS = {
    "run id": "run_id",
    "run name": "run_name",
    "Run ID": "run_id",
    "Run name": "run_name",
    "Created": "start_time",
    "Start Time": "start_time",
}
_METRIC, _PARAM, _TAG = ("metric", "metrics"), ("param", "params", "parameter", "parameters"), ("tag", "tags")
_ATTRIBUTE = ("", "attribute", "attributes", "attr", "run")


def search_runs(
    unit: Unit,
    experiment_ids: Sequence[int],
    conditions: tuple[filters.Condition, ...],
    orders: tuple[filters.Order, ...],
    lifecycles: tuple[str, ...],
    limit: int,
    token: str | None,
) -> Page[Run]:
    """A page of bare runs; `fill` reads the rest."""
    values = {"workspace": unit.workspace, "experiments": experiment_ids, "experiment": next(iter(experiment_ids), -1)}
    queries = _run_queries(conditions, orders, lifecycles, len(experiment_ids) == 1)
    rows, next_token = page_through(queries, unit, limit, token, **values)
    return Page([_bare(row) for row in rows], next_token)


def count_runs(unit: Unit, experiment_ids: Sequence[int], conditions: tuple[filters.Condition, ...], lifecycles: tuple[str, ...]) -> int:
    (query,) = _run_queries(conditions, (), lifecycles, False)
    count = sa.select(sa.func.count()).select_from(query.select.with_only_columns(runs.c.key).subquery())
    return int(unit.value(count, workspace=unit.workspace, experiments=experiment_ids))


@functools.lru_cache(maxsize=512)
def _run_queries(
    conditions: tuple[filters.Condition, ...], orders: tuple[filters.Order, ...], lifecycles: tuple[str, ...], single: bool
) -> tuple[PagedQuery, ...]:
    """Queries whose results follow one another.

    Ordered by a metric first, what has the metric comes from the index of latest values in its order, then what has a
    NaN, then what lacks it: no run outside the page is looked at.
    """

    def within(column: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
        return column == param("experiment") if single else among(column, "experiments")

    query: sa.Select[Any] = sa.select(*_RUN).where(runs.c.workspace == param("workspace"), runs.c.lifecycle.in_(lifecycles))
    for condition in conditions:
        query = query.where(_run_condition(condition))
    last = [Term(runs.c.start_ms, True), Term(runs.c.id, False)]
    if not orders or orders[0].group not in _METRIC:
        query, terms = _run_order(query, orders)
        return (PagedQuery(query.where(within(runs.c.experiment_id)), [*terms, *last]),)
    key = _SPELLINGS.get(orders[0].name, orders[0].name)
    query, terms = _run_order(query, orders[1:])
    t, other = latest_metrics.c, sa.alias(latest_metrics).c
    # The experiment is asked of the metrics alone: a planner without statistics must not be led to walk the runs.
    having = query.join(latest_metrics, sa.and_(t.run_key == runs.c.key, t.key == key, within(t.experiment_id)))
    lacking = query.where(within(runs.c.experiment_id), ~sa.exists().where(other.run_key == runs.c.key, other.key == key))
    return (
        PagedQuery(having.where(t.is_nan == sa.false()), [Term(t.value, orders[0].descending), *terms, *last]),
        PagedQuery(having.where(t.is_nan == sa.true()), [*terms, *last]),
        PagedQuery(lacking, [*terms, *last]),
    )


def _run_condition(condition: filters.Condition) -> sa.ColumnElement[bool]:
    group = condition.group
    name = _SPELLINGS.get(condition.name, condition.name)
    if group in _METRIC:
        t = sa.alias(latest_metrics).c
        return sa.exists().where(
            t.run_key == runs.c.key, t.key == name, t.is_nan == sa.false(), filters.number_condition(t.value, condition)
        )
    if group in _PARAM:
        return filters.tag_condition(params, params.c.run_key == runs.c.key, condition)
    if group in _TAG:
        if name == "mlflow.runName":
            return filters.text_condition(runs.c.name, condition)
        return filters.tag_condition(tags, tags.c.run_key == runs.c.key, condition)
    if group in ("dataset", "datasets"):
        column = {"name": run_inputs.c.name, "digest": run_inputs.c.digest, "context": run_inputs.c.context}.get(name)
        if column is not None:
            here = sa.and_(run_inputs.c.run_key == runs.c.key, run_inputs.c.kind == "dataset")
            return sa.exists().where(here, filters.text_condition(column, condition))
    if group in _ATTRIBUTE:
        if name in _RUN_NUMBERS:
            return filters.number_condition(_RUN_NUMBERS[name], condition)
        if name in _RUN_ATTRIBUTES:
            operators = ("=", "!=", "LIKE", "ILIKE", "IN", "NOT IN") if name == "run_id" else ("=", "!=", "LIKE", "ILIKE")
            return filters.text_condition(_RUN_ATTRIBUTES[name], condition, operators)
    known = ", ".join((*_RUN_ATTRIBUTES, *_RUN_NUMBERS))
    raise Invalid(
        f"Invalid attribute key '{f'{group}.{name}'.lstrip('.')}' specified. Valid keys are {known}, metrics.*, params.*, tags.*, dataset.*",
        code="invalid_filter",
    )


def _run_order(query: sa.Select[Any], orders: Sequence[filters.Order]) -> tuple[sa.Select[Any], list[Term]]:
    """What is absent comes last, NaN before it, whatever the direction, as in MLflow."""
    terms: list[Term] = []
    for order in orders:
        name = _SPELLINGS.get(order.name, order.name)
        column: Any
        if order.group in _METRIC:
            joined = sa.alias(latest_metrics)
            query = query.outerjoin(joined, sa.and_(joined.c.run_key == runs.c.key, joined.c.key == name))
            rank = sa.case((joined.c.value.is_(None), 2), (joined.c.is_nan.is_(True), 1), else_=0)
            column = sa.func.coalesce(joined.c.value, 0.0, type_=sa.Double)
        elif order.group in (*_PARAM, *_TAG):
            joined = sa.alias(params if order.group in _PARAM else tags)
            query = query.outerjoin(joined, sa.and_(joined.c.run_key == runs.c.key, joined.c.key == name))
            rank = sa.case((joined.c.value.is_(None), 1), else_=0)
            column = sa.func.coalesce(joined.c.value, "", type_=sa.Text)
        elif order.group in _ATTRIBUTE and name == "end_time":
            rank = sa.case((runs.c.end_ms.is_(None), 1), else_=0)
            column = sa.func.coalesce(runs.c.end_ms, 0, type_=sa.BigInteger)
        elif order.group in _ATTRIBUTE and name in {**_RUN_ATTRIBUTES, **_RUN_NUMBERS}:
            terms.append(Term({**_RUN_ATTRIBUTES, **_RUN_NUMBERS}[name], order.descending))
            continue
        else:
            raise Invalid(f"Invalid order_by key '{f'{order.group}.{name}'.lstrip('.')}'", code="invalid_order")
        terms += [Term(rank, False), Term(column, order.descending)]
    return query, terms


# Logged models


def _logged(unit: Unit, rows: Sequence[Any]) -> list[LoggedModel]:
    points: dict[str, list[dict[str, Any]]] = {}
    for start in range(0, len(rows), 500):
        keys = [row.id for row in rows[start : start + 500]]
        for m in unit.rows(sa.select(logged_model_metrics).where(logged_model_metrics.c.model_id.in_(keys))):
            points.setdefault(m.model_id, []).append(
                {
                    "key": m.key, "value": "NaN" if m.is_nan else m.value, "timestamp": m.time_ms, "step": m.step,
                    "model_id": m.model_id, "run_id": m.run_id, "dataset": m.dataset,
                }
            )  # fmt: skip
    return [
        LoggedModel(
            r.id, str(r.experiment_id), r.name, r.run_id, r.model_type, r.status, r.status_message, r.created_ms, r.updated_ms,
            r.params, r.tags, tuple(points.get(r.id, ())), r.owner,
        )
        for r in rows
    ]  # fmt: skip


def insert_logged_model(unit: Unit, **values: Any) -> None:
    row = {
        "workspace": unit.workspace,
        "owner": unit.actor.id,
        "created_ms": unit.now,
        "updated_ms": unit.now,
        "lifecycle": "active",
        **values,
    }
    unit.insert(logged_models, row)


def logged_model_is_free(unit: Unit, id: str) -> bool:
    return unit.value(sa.select(logged_models.c.id).where(logged_models.c.id == id)) is None


def get_logged_model(unit: Unit, id: str) -> LoggedModel | None:
    where = sa.and_(logged_models.c.id == id, logged_models.c.workspace == unit.workspace, logged_models.c.lifecycle == "active")
    models = _logged(unit, unit.rows(sa.select(logged_models).where(where)))
    return models[0] if models else None


def set_logged_model(unit: Unit, id: str, **values: Any) -> None:
    unit.run(sa.update(logged_models).where(logged_models.c.id == id).values({"updated_ms": unit.now, **values}))


def put_logged_model_metrics(unit: Unit, run_id: str, points: Sequence[Metric]) -> None:
    rows = [
        {
            "model_id": p.model_id, "key": p.key, "step": p.step, "time_ms": p.time_ms, "dataset": p.dataset, "run_id": run_id,
            "value": p.value, "is_nan": p.is_nan,
        }
        for p in points
        if p.model_id
    ]  # fmt: skip
    unit.upsert(logged_model_metrics, *rows)


def _of_any_digest(column: sa.ColumnElement[str], key: str) -> sa.ColumnElement[bool]:
    """`name@` with whatever digest, and not the dataset called `name@more`: a digest is what follows the last `@`."""
    longer = sa.func.substr(column, len(key) + 1, type_=sa.Text)
    return sa.and_(column.startswith(key, autoescape=True), ~longer.contains("@"))


def search_logged_models(
    unit: Unit, experiment_ids: Sequence[int], conditions: Iterable[filters.Condition], orders: tuple[filters.Order, ...], limit: int,
    offset: int, datasets: Sequence[str] = (),
) -> list[LoggedModel]:  # fmt: skip
    t, m = logged_models.c, logged_model_metrics.c
    query = sa.select(logged_models).where(t.workspace == unit.workspace, t.experiment_id.in_(experiment_ids), t.lifecycle == "active")
    texts = {"name": t.name, "model_id": t.id, "model_type": t.model_type, "status": t.status, "source_run_id": t.run_id}
    numbers = {
        "creation_timestamp": t.created_ms, "creation_timestamp_ms": t.created_ms, "creation_time": t.created_ms,
        "last_updated_timestamp": t.updated_ms, "last_updated_timestamp_ms": t.updated_ms,
    }  # fmt: skip
    measured: sa.ColumnElement[bool] = sa.true()
    if datasets:
        measured = sa.or_(*(_of_any_digest(m.dataset, dataset) if dataset.endswith("@") else m.dataset == dataset for dataset in datasets))
    for condition in conditions:
        plain = condition.group in _ATTRIBUTE
        if condition.group in _METRIC:
            here = sa.and_(m.model_id == t.id, m.key == condition.name, m.is_nan == sa.false(), measured)
            query = query.where(sa.exists().where(here, filters.number_condition(m.value, condition)))
        elif condition.group in (*_PARAM, *_TAG):
            column = filters.json_text(unit.dialect, t.params if condition.group in _PARAM else t.tags, condition.name)
            query = query.where(filters.nullable_text_condition(column, condition))
        elif plain and condition.name in texts:
            query = query.where(filters.text_condition(texts[condition.name], condition))
        elif plain and condition.name in numbers:
            query = query.where(filters.number_condition(numbers[condition.name], condition))
        else:
            raise Invalid(f"Invalid attribute key '{condition.name}' specified for logged models", code="invalid_filter")
    if datasets:
        query = query.where(sa.exists().where(m.model_id == t.id, measured))
    columns: dict[str, Any] = {**texts, **numbers}
    for order in orders:
        if order.group in _METRIC:
            ranked = sa.select(m.value).where(m.model_id == t.id, m.key == order.name, measured).order_by(m.step.desc(), m.time_ms.desc())
            column = ranked.limit(1).scalar_subquery()
        elif order.group in _ATTRIBUTE and order.name in columns:
            column = columns[order.name]
        else:
            raise Invalid(f"Invalid order_by key '{order.name}'", code="invalid_order")
        query = query.order_by(column.is_(None), column.desc() if order.descending else column.asc())
    return _logged(unit, unit.rows(query.order_by(t.created_ms.desc(), t.id).limit(limit).offset(offset)))

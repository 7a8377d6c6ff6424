from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from ...core.errors import Invalid
from ...storage import search
from ...storage.tables import Json, Serial, metadata
from ...storage.unit import Unit
from .model import Experiment, LoggedModel, Metric, Run

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
    sa.UniqueConstraint("workspace", "name"),
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
    sa.Index("ix_runs_experiment", "experiment_id", "lifecycle", "start_ms", "id"),
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


def _experiments(unit: Unit, query: sa.Select[Any]) -> list[Experiment]:
    rows = unit.all(query)
    found: dict[int, dict[str, str]] = {}
    for start in range(0, len(rows), 500):
        keys = [row.id for row in rows[start : start + 500]]
        for tag in unit.all(sa.select(experiment_tags).where(experiment_tags.c.experiment_id.in_(keys))):
            found.setdefault(tag.experiment_id, {})[tag.key] = tag.value
    return [Experiment(str(r.id), r.name, r.artifact_location, r.lifecycle, r.created_ms, r.updated_ms, found.get(r.id, {})) for r in rows]


def get_experiment(unit: Unit, *, id: int | None = None, name: str | None = None) -> Experiment | None:
    query = sa.select(experiments).where(experiments.c.workspace == unit.workspace)
    query = query.where(experiments.c.id == id) if id is not None else query.where(experiments.c.name == name)
    found = _experiments(unit, query)
    return found[0] if found else None


def insert_experiment(unit: Unit, name: str, artifact_location: str, id: int | None = None) -> int:
    row = {
        "workspace": unit.workspace, "name": name, "artifact_location": artifact_location, "lifecycle": "active",
        "created_ms": unit.now, "updated_ms": unit.now, **({"id": id} if id is not None else {}),
    }  # fmt: skip
    made = unit.execute(sa.insert(experiments).returning(experiments.c.id), row).scalar_one()
    return int(made)


def set_experiment(unit: Unit, id: int, **values: Any) -> None:
    unit.execute(sa.update(experiments).where(experiments.c.id == id).values(updated_ms=unit.now, **values))


def put_experiment_tag(unit: Unit, id: int, key: str, value: str) -> None:
    unit.upsert(experiment_tags, [{"experiment_id": id, "key": key, "value": value}])


def delete_experiment_tag(unit: Unit, id: int, key: str) -> bool:
    where = sa.and_(experiment_tags.c.experiment_id == id, experiment_tags.c.key == key)
    return unit.execute(sa.delete(experiment_tags).where(where)).rowcount > 0


def search_experiments(
    unit: Unit, conditions: Iterable[search.Condition], orders: list[search.Order], lifecycles: Sequence[str], limit: int, offset: int
) -> list[Experiment]:
    t = experiments.c
    query = sa.select(experiments).where(t.workspace == unit.workspace, t.lifecycle.in_(lifecycles))
    numbers = {"creation_time": t.created_ms, "last_update_time": t.updated_ms}
    for condition in conditions:
        plain = condition.group in ("", "attribute", "attributes", "attr")
        if plain and condition.name == "name":
            query = query.where(search.text_condition(t.name, condition))
        elif plain and condition.name == "experiment_id":
            query = query.where(search.text_condition(sa.cast(t.id, sa.Text), condition))
        elif plain and condition.name in numbers:
            query = query.where(search.number_condition(numbers[condition.name], condition))
        elif condition.group in ("tag", "tags"):
            query = query.where(search.tag_condition(experiment_tags, experiment_tags.c.experiment_id == t.id, condition))
        else:
            raise Invalid(f"Invalid attribute key '{condition.name}' specified for experiments", code="invalid_filter")
    columns = {"name": t.name, "experiment_id": t.id, **numbers}
    for order in orders:
        if order.name not in columns:
            raise Invalid(f"Invalid order_by key '{order.name}'", code="invalid_order")
        query = query.order_by(columns[order.name].desc() if order.descending else columns[order.name].asc())
    if not orders:
        query = query.order_by(t.created_ms.desc())
    return _experiments(unit, query.order_by(t.id.desc()).limit(limit).offset(offset))


# Runs


def insert_run(unit: Unit, **values: Any) -> int:
    row = {"workspace": unit.workspace, "lifecycle": "active", **values}
    return int(unit.execute(sa.insert(runs).returning(runs.c.key), row).scalar_one())


def run_row(unit: Unit, id: str) -> Run | None:
    """The run alone, without what was logged to it: for guards on hot paths."""
    row = unit.one(sa.select(runs).where(runs.c.id == id, runs.c.workspace == unit.workspace))
    return _bare(row) if row else None


def _bare(row: sa.Row[Any]) -> Run:
    return Run(row.key, row.id, str(row.experiment_id), row.name, row.status, row.start_ms, row.end_ms, row.lifecycle, row.user, row.owner)


def get_run(unit: Unit, id: str) -> Run | None:
    found = _full(unit, unit.all(sa.select(runs).where(runs.c.id == id, runs.c.workspace == unit.workspace)))
    return found[0] if found else None


def _full(unit: Unit, rows: Sequence[sa.Row[Any]]) -> list[Run]:
    keys = [row.key for row in rows]
    found_metrics: dict[int, list[Metric]] = {}
    found_params: dict[int, dict[str, str]] = {}
    found_tags: dict[int, dict[str, str]] = {}
    found_inputs: dict[int, list[dict[str, Any]]] = {}
    for start in range(0, len(keys), 500):
        some = keys[start : start + 500]
        for m in unit.all(sa.select(latest_metrics).where(latest_metrics.c.run_key.in_(some)).order_by(latest_metrics.c.key)):
            found_metrics.setdefault(m.run_key, []).append(Metric(m.key, m.value, m.time_ms, m.step, bool(m.is_nan)))
        for p in unit.all(sa.select(params).where(params.c.run_key.in_(some)).order_by(params.c.key)):
            found_params.setdefault(p.run_key, {})[p.key] = p.value
        for t in unit.all(sa.select(tags).where(tags.c.run_key.in_(some)).order_by(tags.c.key)):
            found_tags.setdefault(t.run_key, {})[t.key] = t.value
        for i in unit.all(sa.select(run_inputs).where(run_inputs.c.run_key.in_(some))):
            found_inputs.setdefault(i.run_key, []).append({"kind": i.kind, **i.document})
    return [
        Run(
            **{
                **_bare(row).__dict__,
                "metrics": tuple(found_metrics.get(row.key, ())),
                "params": found_params.get(row.key, {}),
                "tags": found_tags.get(row.key, {}),
                "inputs": tuple(found_inputs.get(row.key, ())),
            }
        )
        for row in rows
    ]


def set_run(unit: Unit, key: int, **values: Any) -> None:
    if values:
        unit.execute(sa.update(runs).where(runs.c.key == key).values(**values))


def set_runs_lifecycle(unit: Unit, experiment_id: int, lifecycle: str) -> None:
    unit.execute(sa.update(runs).where(runs.c.experiment_id == experiment_id).values(lifecycle=lifecycle))


def put_metrics(unit: Unit, run: Run, points: Sequence[Metric]) -> None:
    """Add points (one that is there already changes nothing) and move the latest values forward."""
    unit.insert_ignore(
        metrics,
        [{"run_key": run.key, "key": p.key, "step": p.step, "time_ms": p.time_ms, "value": p.value, "is_nan": p.is_nan} for p in points],
    )
    newest: dict[str, Metric] = {}
    for point in points:
        held = newest.get(point.key)
        if held is None or (point.step, point.time_ms, point.value) > (held.step, held.time_ms, held.value):
            newest[point.key] = point

    def later(new: Any) -> Any:
        old = latest_metrics.c
        return sa.or_(
            new.step > old.step,
            sa.and_(new.step == old.step, new.time_ms > old.time_ms),
            sa.and_(new.step == old.step, new.time_ms == old.time_ms, new.value > old.value),
        )

    rows = [
        {
            "run_key": run.key, "key": p.key, "experiment_id": int(run.experiment_id), "step": p.step,
            "time_ms": p.time_ms, "value": p.value, "is_nan": p.is_nan,
        }
        for p in newest.values()
    ]  # fmt: skip
    unit.upsert(latest_metrics, rows, guard=later)


def metric_history(unit: Unit, run_key: int, key: str, limit: int, after: tuple[int, int, float] | None) -> list[Metric]:
    """By step, then time, then value; `after` is the last point of the page before."""
    t = metrics.c
    query = sa.select(metrics).where(t.run_key == run_key, t.key == key).order_by(t.step, t.time_ms, t.value).limit(limit)
    if after is not None:
        query = query.where(sa.tuple_(t.step, t.time_ms, t.value) > sa.tuple_(*(sa.literal(part) for part in after)))
    return [Metric(row.key, row.value, row.time_ms, row.step, bool(row.is_nan)) for row in unit.all(query)]


def existing_params(unit: Unit, run_key: int, keys: list[str]) -> dict[str, str]:
    rows = unit.all(sa.select(params.c.key, params.c.value).where(params.c.run_key == run_key, params.c.key.in_(keys)))
    return {row.key: row.value for row in rows}


def put_params(unit: Unit, run_key: int, values: dict[str, str]) -> None:
    unit.insert_ignore(params, [{"run_key": run_key, "key": key, "value": value} for key, value in values.items()])


def put_tags(unit: Unit, run_key: int, values: dict[str, str]) -> None:
    unit.upsert(tags, [{"run_key": run_key, "key": key, "value": value} for key, value in values.items()])


def delete_tag(unit: Unit, run_key: int, key: str) -> bool:
    return unit.execute(sa.delete(tags).where(tags.c.run_key == run_key, tags.c.key == key)).rowcount > 0


def put_inputs(unit: Unit, run_key: int, rows: list[dict[str, Any]]) -> None:
    unit.upsert(run_inputs, [{"run_key": run_key, **row} for row in rows])


_RUN_ATTRIBUTES = {
    "run_id": runs.c.id,
    "run_name": runs.c.name,
    "status": runs.c.status,
    "user_id": runs.c.user,
    "lifecycle_stage": runs.c.lifecycle,
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


def search_runs(
    unit: Unit,
    experiment_ids: Sequence[int],
    conditions: Iterable[search.Condition],
    orders: list[search.Order],
    lifecycles: Sequence[str],
    limit: int,
    offset: int,
) -> list[Run]:
    query = sa.select(runs).where(
        runs.c.workspace == unit.workspace, runs.c.experiment_id.in_(experiment_ids), runs.c.lifecycle.in_(lifecycles)
    )
    for condition in conditions:
        query = query.where(_run_condition(condition))
    query = _run_order(query, orders)
    return _full(unit, unit.all(query.limit(limit).offset(offset)))


def _run_condition(condition: search.Condition) -> sa.ColumnElement[bool]:
    group = condition.group
    name = _SPELLINGS.get(condition.name, condition.name)
    if group in ("metric", "metrics"):
        t = latest_metrics.c
        return sa.exists().where(t.run_key == runs.c.key, t.key == name, t.is_nan.is_(False), search.number_condition(t.value, condition))
    if group in ("param", "params", "parameter", "parameters"):
        return search.tag_condition(params, params.c.run_key == runs.c.key, condition)
    if group in ("tag", "tags"):
        if name == "mlflow.runName":
            return search.text_condition(runs.c.name, condition)
        return search.tag_condition(tags, tags.c.run_key == runs.c.key, condition)
    if group in ("dataset", "datasets"):
        column = {"name": run_inputs.c.name, "digest": run_inputs.c.digest, "context": run_inputs.c.context}.get(name)
        if column is not None:
            here = sa.and_(run_inputs.c.run_key == runs.c.key, run_inputs.c.kind == "dataset")
            return sa.exists().where(here, search.text_condition(column, condition))
    if group in ("", "attribute", "attributes", "attr", "run"):
        if name in _RUN_NUMBERS:
            return search.number_condition(_RUN_NUMBERS[name], condition)
        if name in _RUN_ATTRIBUTES:
            operators = ("=", "!=", "LIKE", "ILIKE", "IN", "NOT IN") if name == "run_id" else ("=", "!=", "LIKE", "ILIKE")
            return search.text_condition(_RUN_ATTRIBUTES[name], condition, operators)
    known = ", ".join((*_RUN_ATTRIBUTES, *_RUN_NUMBERS))
    raise Invalid(
        f"Invalid attribute key '{f'{group}.{name}'.lstrip('.')}' specified. Valid keys are {known}, metrics.*, params.*, tags.*, dataset.*",
        code="invalid_filter",
    )


def _run_order(query: sa.Select[Any], orders: list[search.Order]) -> sa.Select[Any]:
    """What is absent comes last, NaN before it, whatever the direction, as in MLflow."""
    for order in orders:
        name = _SPELLINGS.get(order.name, order.name)
        if order.group in ("metric", "metrics"):
            joined = sa.alias(latest_metrics)
            query = query.outerjoin(joined, sa.and_(joined.c.run_key == runs.c.key, joined.c.key == name))
            rank = sa.case((joined.c.value.is_(None), 2), (joined.c.is_nan.is_(True), 1), else_=0)
            column: Any = joined.c.value
            query = query.order_by(rank)
        elif order.group in ("param", "params", "parameter", "parameters", "tag", "tags"):
            joined = sa.alias(params if order.group.startswith("param") else tags)
            query = query.outerjoin(joined, sa.and_(joined.c.run_key == runs.c.key, joined.c.key == name))
            column = joined.c.value
            query = query.order_by(column.is_(None))
        elif order.group in ("", "attribute", "attributes", "attr", "run") and name in {**_RUN_ATTRIBUTES, **_RUN_NUMBERS}:
            column = {**_RUN_ATTRIBUTES, **_RUN_NUMBERS}[name]
            query = query.order_by(column.is_(None))
        else:
            raise Invalid(f"Invalid order_by key '{f'{order.group}.{name}'.lstrip('.')}'", code="invalid_order")
        query = query.order_by(column.desc() if order.descending else column.asc())
    return query.order_by(runs.c.start_ms.desc(), runs.c.id)


# Logged models


def _logged(unit: Unit, rows: Sequence[sa.Row[Any]]) -> list[LoggedModel]:
    found: dict[str, list[dict[str, Any]]] = {}
    for start in range(0, len(rows), 500):
        keys = [row.id for row in rows[start : start + 500]]
        for m in unit.all(sa.select(logged_model_metrics).where(logged_model_metrics.c.model_id.in_(keys))):
            found.setdefault(m.model_id, []).append(
                {
                    "key": m.key, "value": "NaN" if m.is_nan else m.value, "timestamp": m.time_ms, "step": m.step,
                    "model_id": m.model_id, "run_id": m.run_id,
                }
            )  # fmt: skip
    return [
        LoggedModel(
            r.id, str(r.experiment_id), r.name, r.run_id, r.model_type, r.status, r.status_message, r.created_ms, r.updated_ms,
            r.params, r.tags, tuple(found.get(r.id, ())), r.owner,
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
    unit.execute(sa.insert(logged_models), row)


def get_logged_model(unit: Unit, id: str) -> LoggedModel | None:
    where = sa.and_(logged_models.c.id == id, logged_models.c.workspace == unit.workspace, logged_models.c.lifecycle == "active")
    found = _logged(unit, unit.all(sa.select(logged_models).where(where)))
    return found[0] if found else None


def set_logged_model(unit: Unit, id: str, **values: Any) -> None:
    unit.execute(sa.update(logged_models).where(logged_models.c.id == id).values(updated_ms=unit.now, **values))


def put_logged_model_metrics(unit: Unit, run: Run, points: Sequence[Metric]) -> None:
    rows = [
        {
            "model_id": p.model_id, "key": p.key, "step": p.step, "time_ms": p.time_ms, "dataset": "", "run_id": run.id,
            "value": p.value, "is_nan": p.is_nan,
        }
        for p in points
        if p.model_id
    ]  # fmt: skip
    unit.upsert(logged_model_metrics, rows)


def search_logged_models(
    unit: Unit, experiment_ids: Sequence[int], conditions: Iterable[search.Condition], orders: list[search.Order], limit: int, offset: int
) -> list[LoggedModel]:
    t = logged_models.c
    query = sa.select(logged_models).where(t.workspace == unit.workspace, t.experiment_id.in_(experiment_ids), t.lifecycle == "active")
    texts = {"name": t.name, "model_id": t.id, "model_type": t.model_type, "status": t.status, "source_run_id": t.run_id}
    numbers = {"creation_timestamp": t.created_ms, "last_updated_timestamp": t.updated_ms, "creation_time": t.created_ms}
    for condition in conditions:
        if condition.group in ("metric", "metrics"):
            m = logged_model_metrics.c
            query = query.where(sa.exists().where(m.model_id == t.id, m.key == condition.name, search.number_condition(m.value, condition)))
        elif condition.group in ("", "attribute", "attributes") and condition.name in texts:
            query = query.where(search.text_condition(texts[condition.name], condition))
        elif condition.group in ("", "attribute", "attributes") and condition.name in numbers:
            query = query.where(search.number_condition(numbers[condition.name], condition))
        else:
            raise Invalid(f"Invalid attribute key '{condition.name}' specified for logged models", code="invalid_filter")
    columns = {**texts, **numbers}
    for order in orders:
        if order.name not in columns:
            raise Invalid(f"Invalid order_by key '{order.name}'", code="invalid_order")
        query = query.order_by(columns[order.name].desc() if order.descending else columns[order.name].asc())
    return _logged(unit, unit.all(query.order_by(t.created_ms.desc(), t.id).limit(limit).offset(offset)))

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from ...storage.tables import Json, metadata
from ...storage.unit import Unit
from .model import Result, StepRow

pipeline_steps = sa.Table(
    "pipeline_steps",
    metadata,
    sa.Column("pipeline", sa.Text, primary_key=True),
    sa.Column("step", sa.Text, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("job", sa.Text),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("detail", Json, nullable=False),
    sa.Column("started_ms", sa.BigInteger),
    sa.Column("ended_ms", sa.BigInteger),
)
step_results = sa.Table(
    "step_results",
    metadata,
    sa.Column("workspace", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("job", sa.Text, nullable=False),
    sa.Column("identity", sa.Text, nullable=False),
    sa.Column("parts", Json, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Index("ix_step_results_identity", "workspace", "identity", "created_ms"),
)


def steps(unit: Unit, pipeline: str) -> dict[str, StepRow]:
    t = pipeline_steps.c
    rows = unit.all(sa.select(pipeline_steps).where(t.pipeline == pipeline).order_by(t.started_ms, t.step))
    return {r.step: StepRow(r.step, r.state, r.job, r.tries, r.detail, r.started_ms, r.ended_ms) for r in rows}


def put_steps(unit: Unit, pipeline: str, rows: list[StepRow]) -> None:
    unit.upsert(pipeline_steps, [{"pipeline": pipeline, **row.__dict__} for row in rows])


def delete_steps(unit: Unit, pipeline: str) -> None:
    unit.execute(sa.delete(pipeline_steps).where(pipeline_steps.c.pipeline == pipeline))


def result(unit: Unit, key: str) -> Result | None:
    t = step_results.c
    return _result(unit.one(sa.select(step_results).where(t.workspace == unit.workspace, t.key == key)))


def last_result(unit: Unit, identity: str) -> Result | None:
    """The newest of the step, whatever its key."""
    t = step_results.c
    query = sa.select(step_results).where(t.workspace == unit.workspace, t.identity == identity)
    return _result(unit.one(query.order_by(t.created_ms.desc()).limit(1)))


def _result(row: sa.Row[Any] | None) -> Result | None:
    return Result(row.key, row.job, row.parts) if row else None


def put_result(unit: Unit, identity: str, found: Result) -> None:
    row = {
        "workspace": unit.workspace, "key": found.key, "job": found.job, "identity": identity, "parts": found.parts, "created_ms": unit.now,
    }  # fmt: skip
    unit.upsert(step_results, [row])


def forget_job(unit: Unit, job: str) -> None:
    unit.execute(sa.delete(step_results).where(step_results.c.workspace == unit.workspace, step_results.c.job == job))

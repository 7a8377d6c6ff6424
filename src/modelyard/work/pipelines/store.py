from __future__ import annotations

import sqlalchemy as sa

from ...spec.states import StepState
from ...storage.statements import Statement, param
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
step_claims = sa.Table(
    "step_claims",
    metadata,
    sa.Column("workspace", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("pipeline", sa.Text, primary_key=True),
    sa.Column("job", sa.Text, nullable=False),
    sa.Index("ix_step_claims_job", "job"),
)
"""The job that carries out a step of a content key now, and the pipelines that have such a step: the first of them made it."""


_S, _R, _C = pipeline_steps.c, step_results.c, step_claims.c
_STEPS = Statement(
    sa.select(_S.step, _S.state, _S.job, _S.tries, _S.detail, _S.started_ms, _S.ended_ms)
    .where(_S.pipeline == param("pipeline"))
    .order_by(_S.started_ms, _S.step)
)
_RESULT = Statement(sa.select(_R.key, _R.job, _R.parts).where(_R.workspace == param("workspace"), _R.key == param("key")))
_LAST_RESULT = Statement(
    sa.select(_R.key, _R.job, _R.parts)
    .where(_R.workspace == param("workspace"), _R.identity == param("identity"))
    .order_by(_R.created_ms.desc())
    .limit(1)
)
_CLAIMED = Statement(sa.select(_C.job).where(_C.workspace == param("workspace"), _C.key == param("key")).distinct())
_CLAIMANTS = Statement(sa.select(_C.pipeline).where(_C.job == param("job")).distinct())
_LET_GO = Statement(sa.delete(step_claims).where(_C.job == param("job")))


def steps(unit: Unit, pipeline: str) -> dict[str, StepRow]:
    return {row.step: StepRow(**{**row._asdict(), "state": StepState(row.state)}) for row in unit.rows(_STEPS, pipeline=pipeline)}


def put_steps(unit: Unit, pipeline: str, rows: list[StepRow]) -> None:
    unit.upsert(pipeline_steps, *({"pipeline": pipeline, **row.__dict__} for row in rows))


def delete_steps(unit: Unit, pipeline: str) -> None:
    unit.run(sa.delete(pipeline_steps).where(pipeline_steps.c.pipeline == pipeline))


def result(unit: Unit, key: str) -> Result | None:
    row = unit.row(_RESULT, workspace=unit.workspace, key=key)
    return Result(**row._asdict()) if row else None


def last_result(unit: Unit, identity: str) -> Result | None:
    """The newest of the step, whatever its key."""
    row = unit.row(_LAST_RESULT, workspace=unit.workspace, identity=identity)
    return Result(**row._asdict()) if row else None


def put_result(unit: Unit, identity: str, result: Result) -> None:
    row = {
        "workspace": unit.workspace, "key": result.key, "job": result.job, "identity": identity, "parts": result.parts,
        "created_ms": unit.now,
    }  # fmt: skip
    unit.upsert(step_results, row)


def claimed(unit: Unit, key: str) -> list[str]:
    """Jobs that carry out a step of this content key."""
    return [row.job for row in unit.rows(_CLAIMED, workspace=unit.workspace, key=key)]


def claim(unit: Unit, key: str, pipeline: str, job: str) -> None:
    """Note that a pipeline has a step of this content key, which that job carries out."""
    unit.upsert(step_claims, {"workspace": unit.workspace, "key": key, "pipeline": pipeline, "job": job})


def let_go(unit: Unit, job: str) -> list[str]:
    """The pipelines that a job carries out steps of, which are no longer noted."""
    claimants = [row.pipeline for row in unit.rows(_CLAIMANTS, job=job)]
    if claimants:
        unit.run(_LET_GO, job=job)
    return claimants


def forget_job(unit: Unit, job: str) -> None:
    unit.run(sa.delete(step_results).where(step_results.c.workspace == unit.workspace, step_results.c.job == job))

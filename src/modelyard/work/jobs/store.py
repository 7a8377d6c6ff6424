from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa

from ...core.errors import NotFound, Superseded
from ...spec.states import JOB, JobState
from ...storage import filters
from ...storage.records import columns_of, fields_in
from ...storage.statements import Statement, among, param
from ...storage.tables import Json, Serial, metadata
from ...storage.unit import Unit
from .model import ACTIVE, JobRecord, Program

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("seq", Serial, primary_key=True),
    sa.Column("workspace", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("spec", Json, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("node", sa.Text),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("started_ms", sa.BigInteger),
    sa.Column("ended_ms", sa.BigInteger),
    sa.Column("error", Json),
    sa.Column("cancel_requested", sa.Boolean, nullable=False),
    sa.Column("archived", sa.Boolean, nullable=False),
    sa.Column("experiment", sa.Text, nullable=False),
    sa.Column("compute", sa.Text, nullable=False),
    sa.Column("max_instances", sa.Integer),
    sa.Column("cpus", sa.Integer, nullable=False),
    sa.Column("memory", sa.BigInteger, nullable=False),
    sa.Column("gpus", sa.Integer, nullable=False),
    sa.Column("gpu_ids", sa.Text, nullable=False),
    sa.Column("warnings", Json, nullable=False),
    sa.Column("resolved", Json, nullable=False),
    sa.Column("type", sa.Text, nullable=False, server_default="command"),
    sa.Column("parent", sa.Text),
    sa.Column("due", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("program", sa.Text),
    sa.Index("ix_jobs_parent", "parent", "seq", sqlite_where=sa.text("parent IS NOT NULL"), postgresql_where=sa.text("parent IS NOT NULL")),
    sa.Index("ix_jobs_due", "type", "seq", sqlite_where=sa.text("due"), postgresql_where=sa.text("due")),
    sa.Index("ix_jobs_queue", "state", "workspace", "seq"),
    sa.Index("ix_jobs_workspace", "workspace", "seq"),
    sa.Index("ix_jobs_experiment", "workspace", "experiment", "seq"),
)
_T = jobs.c


_FIELDS = tuple(column.name for column in jobs.columns if column.name != "seq")
_OF_RECORD = tuple(fields_in(dict.fromkeys(_FIELDS)))
_WHOLE = sa.select(*(jobs.c[name] for name in _FIELDS))


_STATES = {state.value: state for state in JobState}


def _record(row: tuple[Any, ...]) -> JobRecord:
    values = dict(zip(_OF_RECORD, row, strict=True))
    values["state"] = _STATES[values["state"]]
    if values["program"] is not None:
        values["program"] = Program(values["program"])
    return JobRecord(**values)


def insert(unit: Unit, record: JobRecord) -> None:
    JOB.begin(record.state)
    unit.insert(jobs, columns_of(record, jobs))


_GET_ANYWHERE = Statement(_WHOLE.where(_T.name == param("name")))
_GET = Statement(_WHOLE.where(_T.name == param("name"), _T.workspace == param("workspace")))


def get(unit: Unit, name: str) -> JobRecord | None:
    row = unit.row(_GET, name=name, workspace=unit.workspace)
    return _record(row) if row else None


def existing(unit: Unit, name: str) -> JobRecord:
    """Raises NotFound."""
    record = get(unit, name)
    if record is None:
        raise NotFound(f"there is no job {name} in workspace {unit.workspace}", code="job_not_found", hint="`yard job list` shows them.")
    return record


def get_anywhere(unit: Unit, name: str) -> JobRecord | None:
    row = unit.row(_GET_ANYWHERE, name=name)
    return _record(row) if row else None


def search(
    unit: Unit, *, archived: bool | None, status: str | None, experiment: str | None, compute: str | None, user: str | None,
    tag: str | None, parent: str | None, before: int | None, limit: int,
) -> list[tuple[int, JobRecord]]:  # fmt: skip
    """Newest first; (position, job)."""
    query = (
        sa.select(_T.seq, *(jobs.c[name] for name in _FIELDS)).where(_T.workspace == unit.workspace).order_by(_T.seq.desc()).limit(limit)
    )
    if archived is not None:
        query = query.where(_T.archived.is_(archived))
    # The steps of a pipeline and the trials of a sweep are listed under it, not beside it.
    query = query.where(_T.parent.is_(None) if parent is None else _T.parent == parent)
    for column, value in ((_T.state, status), (_T.experiment, experiment), (_T.compute, compute), (_T.created_by, user)):
        if value is not None:
            query = query.where(column == value)
    if tag is not None:
        key, equals, requested = tag.partition("=")
        stored_tag = filters.json_text(unit.dialect, _T.spec, "tags", key)
        query = query.where(stored_tag == requested if equals else stored_tag.is_not(None))
    if before is not None:
        query = query.where(_T.seq < before)
    return [(row.seq, _record(row[1:])) for row in unit.rows(query)]


_ACTIVE_ON = Statement(_WHOLE.where(_T.state.in_(ACTIVE), _T.node == param("node")).order_by(_T.seq))


def active_on(unit: Unit, node: str) -> list[JobRecord]:
    return [_record(row) for row in unit.rows(_ACTIVE_ON, node=node)]


# One index step per workspace: the next workspace name in the queue, not a scan of the queue.
_NEXT_QUEUE = Statement(
    sa.select(_T.workspace).where(_T.state == JobState.QUEUED, _T.workspace > param("after")).order_by(_T.workspace).limit(1)
)
_QUEUE_HEAD = Statement(
    _WHOLE.where(_T.state == JobState.QUEUED, _T.workspace == param("workspace")).order_by(_T.seq).limit(param("each", sa.BigInteger))
)


def queued_heads(unit: Unit, each: int) -> dict[str, list[JobRecord]]:
    """The first `each` queued jobs of every workspace that has some: read along the index, however long the queue is."""
    heads: dict[str, list[JobRecord]] = {}
    after = ""
    while True:
        workspace = unit.value(_NEXT_QUEUE, after=after)
        if workspace is None:
            return heads
        after = workspace
        heads[after] = [_record(row) for row in unit.rows(_QUEUE_HEAD, workspace=after, each=each)]


def transition(unit: Unit, record: JobRecord, new: JobState, **values: Any) -> None:
    """Give a job its next state. Raises Conflict when the state does not follow; Superseded when the job has moved on since `record` was read."""
    JOB.transition(record.state, new)
    _change(unit, record, JOB.before(new), state=new, **values)


def set_active(unit: Unit, record: JobRecord, **values: Any) -> None:
    """Change a job that goes on and keeps its state. Raises Superseded when it has moved on."""
    _change(unit, record, ACTIVE, **values)


def _change(unit: Unit, record: JobRecord, old: tuple[JobState, ...], **values: Any) -> None:
    """Guarded by the states it may be in, and by the attempt, its fencing token."""
    if unit.run(_update(old, tuple(values)), job=record.name, attempt_read=record.attempt, **values) != 1:
        raise moved_on(record.name)


def moved_on(name: str) -> Superseded:
    return Superseded(f"job {name} has moved on", code="stale_attempt")


@functools.lru_cache(maxsize=256)
def _update(old: tuple[JobState, ...], fields: tuple[str, ...]) -> Statement:
    values = {field: param(field, jobs.c[field].type) for field in fields}
    where = (_T.name == param("job"), _T.attempt == param("attempt_read"), _T.state.in_(old))
    return Statement(sa.update(jobs).where(*where).values(values))


def set_fields(unit: Unit, name: str, **values: Any) -> None:
    unit.run(sa.update(jobs).where(_T.name == name, _T.workspace == unit.workspace).values(**values))


def children(unit: Unit, parent: str) -> list[JobRecord]:
    return [_record(row) for row in unit.rows(_WHOLE.where(_T.parent == parent).order_by(_T.seq))]


_STATES_OF = Statement(sa.select(_T.name, _T.state, _T.error).where(among(_T.name, "names")))
_DUE = Statement(sa.select(_T.workspace, _T.name).where(_T.type == param("type"), _T.due).order_by(_T.seq))
_RUNNING = Statement(sa.select(_T.workspace, _T.name).where(_T.state == JobState.RUNNING, _T.type == param("type")).order_by(_T.seq))


def states_of(unit: Unit, names: list[str]) -> dict[str, tuple[JobState, dict[str, Any] | None]]:
    """name → (state, error)"""
    return {name: (JobState(state), error) for name, state, error in unit.rows(_STATES_OF, names=names)}


def due(unit: Unit, type: str) -> list[tuple[str, str]]:
    """(workspace, name) of the jobs of a kind that something happened to."""
    return unit.rows(_DUE, type=type)


def running(unit: Unit, type: str) -> list[tuple[str, str]]:
    return unit.rows(_RUNNING, type=type)


def last_completed(unit: Unit, experiment: str) -> str | None:
    where = sa.and_(_T.workspace == unit.workspace, _T.experiment == experiment, _T.state == JobState.COMPLETED, _T.parent.is_(None))
    name: str | None = unit.value(sa.select(_T.name).where(where).order_by(_T.ended_ms.desc(), _T.seq.desc()).limit(1))
    return name


_ABOVE = sa.alias(jobs, "above").c
_PARENT_OF = Statement(
    sa.select(_ABOVE.name, _ABOVE.type).join_from(jobs, _ABOVE.name.table, _ABOVE.name == _T.parent).where(_T.name == param("name"))
)
_SET_DUE = Statement(sa.update(jobs).where(_T.name == param("job")).values(due=param("due", sa.Boolean())))


def make_parent_due(unit: Unit, name: str) -> str | None:
    """Mark the parent of a job; the parent's kind. None when it has none."""
    parent = unit.row(_PARENT_OF, name=name)
    if parent is None:
        return None
    set_due(unit, parent.name, True)
    return str(parent.type)


def set_due(unit: Unit, name: str, due: bool) -> None:
    unit.run(_SET_DUE, job=name, due=due)


def delete(unit: Unit, name: str) -> None:
    unit.run(sa.delete(jobs).where(_T.name == name, _T.workspace == unit.workspace))


def names(unit: Unit) -> set[str]:
    """Of every workspace."""
    return {row.name for row in unit.rows(sa.select(_T.name))}

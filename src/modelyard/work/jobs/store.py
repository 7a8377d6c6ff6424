from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa

from ...core.errors import NotFound, Superseded
from ...spec.states import JOB, JobState
from ...storage import search as search_language
from ...storage.prepared import Typed, among, place
from ...storage.records import columns_of, fields_in
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


_GET_ANYWHERE = Typed(_WHOLE.where(_T.name == place("name")))
_GET = Typed(_WHOLE.where(_T.name == place("name"), _T.workspace == place("workspace")))


def get(unit: Unit, name: str) -> JobRecord | None:
    return next((_record(row) for row in unit.found(_GET, name=name, workspace=unit.workspace)), None)


def existing(unit: Unit, name: str) -> JobRecord:
    """Raises NotFound."""
    record = get(unit, name)
    if record is None:
        raise NotFound(f"there is no job {name} in workspace {unit.workspace}", code="job_not_found", hint="`yard job list` shows them.")
    return record


def get_anywhere(unit: Unit, name: str) -> JobRecord | None:
    return next((_record(row) for row in unit.found(_GET_ANYWHERE, name=name)), None)


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
        key, equals, wanted = tag.partition("=")
        kept = search_language.json_text(unit, _T.spec, "tags", key)
        query = query.where(kept == wanted if equals else kept.is_not(None))
    if before is not None:
        query = query.where(_T.seq < before)
    return [(row.seq, _record(tuple(row)[1:])) for row in unit.all(query)]


_ACTIVE_ON = Typed(_WHOLE.where(_T.state.in_(ACTIVE), _T.node == place("node")).order_by(_T.seq))


def active_on(unit: Unit, node: str) -> list[JobRecord]:
    return [_record(row) for row in unit.found(_ACTIVE_ON, node=node)]


# One index step per workspace: the next workspace name in the queue, not a scan of the queue.
_NEXT_QUEUE = Typed(
    sa.select(_T.workspace).where(_T.state == JobState.QUEUED, _T.workspace > place("after")).order_by(_T.workspace).limit(1)
)
_QUEUE_HEAD = Typed(
    _WHOLE.where(_T.state == JobState.QUEUED, _T.workspace == place("workspace")).order_by(_T.seq).limit(place("each", sa.BigInteger))
)


def queued_heads(unit: Unit, each: int) -> dict[str, list[JobRecord]]:
    """The first `each` queued jobs of every workspace that has some: read along the index, however long the queue is."""
    heads: dict[str, list[JobRecord]] = {}
    after = ""
    while True:
        following = unit.found(_NEXT_QUEUE, after=after)
        if not following:
            return heads
        after = following[0][0]
        heads[after] = [_record(row) for row in unit.found(_QUEUE_HEAD, workspace=after, each=each)]


def transition(unit: Unit, record: JobRecord, new: JobState, **values: Any) -> None:
    """Give a job its next state. Raises Conflict when the state does not follow; Superseded when the job has moved on since `record` was read."""
    JOB.transition(record.state, new)
    _change(unit, record, JOB.before(new), state=new, **values)


def set_active(unit: Unit, record: JobRecord, **values: Any) -> None:
    """Change a job that goes on and keeps its state. Raises Superseded when it has moved on."""
    _change(unit, record, ACTIVE, **values)


def _change(unit: Unit, record: JobRecord, old: tuple[JobState, ...], **values: Any) -> None:
    """Guarded by the states it may be in, and by the attempt, its fencing token."""
    if unit.changed(_changing(old, tuple(values)), wanted=record.name, held=record.attempt, **values) != 1:
        raise moved_on(record.name)


def moved_on(name: str) -> Superseded:
    return Superseded(f"job {name} has moved on", code="stale_attempt")


@functools.lru_cache(maxsize=256)
def _changing(old: tuple[JobState, ...], fields: tuple[str, ...]) -> Typed:
    changed = {field: place(field, jobs.c[field].type) for field in fields}
    return Typed(sa.update(jobs).where(_T.name == place("wanted"), _T.attempt == place("held"), _T.state.in_(old)).values(changed))


def set_fields(unit: Unit, name: str, **values: Any) -> None:
    unit.execute(sa.update(jobs).where(_T.name == name, _T.workspace == unit.workspace).values(**values))


def children(unit: Unit, parent: str) -> list[JobRecord]:
    return [_record(tuple(row)) for row in unit.all(_WHOLE.where(_T.parent == parent).order_by(_T.seq))]


_STATES_OF = Typed(sa.select(_T.name, _T.state, _T.error).where(among(_T.name, "names", sa.Text)))
_DUE = Typed(sa.select(_T.workspace, _T.name).where(_T.type == place("kind"), _T.due).order_by(_T.seq))
_RUNNING = Typed(sa.select(_T.workspace, _T.name).where(_T.state == JobState.RUNNING, _T.type == place("kind")).order_by(_T.seq))


def states_of(unit: Unit, names: list[str]) -> dict[str, tuple[JobState, dict[str, Any] | None]]:
    """name → (state, error)"""
    return {name: (JobState(state), error) for name, state, error in unit.found(_STATES_OF, names=unit.listed(names))}


def due(unit: Unit, type: str) -> list[tuple[str, str]]:
    """(workspace, name) of the jobs of a kind that something happened to."""
    return unit.found(_DUE, kind=type)


def running(unit: Unit, type: str) -> list[tuple[str, str]]:
    return unit.found(_RUNNING, kind=type)


def last_completed(unit: Unit, experiment: str) -> str | None:
    where = sa.and_(_T.workspace == unit.workspace, _T.experiment == experiment, _T.state == JobState.COMPLETED, _T.parent.is_(None))
    found: str | None = unit.scalar(sa.select(_T.name).where(where).order_by(_T.ended_ms.desc(), _T.seq.desc()).limit(1))
    return found


_ABOVE = sa.alias(jobs, "above").c
_PARENT_OF = Typed(
    sa.select(_ABOVE.name, _ABOVE.type).join_from(jobs, _ABOVE.name.table, _ABOVE.name == _T.parent).where(_T.name == place("name"))
)
_SET_DUE = Typed(sa.update(jobs).where(_T.name == place("wanted")).values(due=place("due", sa.Boolean())))


def make_parent_due(unit: Unit, name: str) -> str | None:
    """Mark the parent of a job; the parent's kind. None when it has none."""
    for parent, kind in unit.found(_PARENT_OF, name=name):
        set_due(unit, parent, True)
        return str(kind)
    return None


def set_due(unit: Unit, name: str, due: bool) -> None:
    unit.changed(_SET_DUE, wanted=name, due=due)


def delete(unit: Unit, name: str) -> None:
    unit.execute(sa.delete(jobs).where(_T.name == name, _T.workspace == unit.workspace))


def names(unit: Unit) -> set[str]:
    """Of every workspace."""
    return {row.name for row in unit.all(sa.select(_T.name))}

"""Use cases of schedules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...assets.data import service as data
from ...assets.files import service as files
from ...assets.references import service as references
from ...core import ids, trees
from ...core.actor import internal, requires
from ...core.clock import iso
from ...core.errors import Invalid, NotFound
from ...core.names import check_name
from ...ports.executor import Share
from ...spec import expressions
from ...spec.loading import spec_class
from ...spec.properties import JobProperties, ScheduleProperties, noted
from ...spec.references import AssetRef, DatastorePath, asset_ref, parse_reference
from ...spec.schedule import ChangeTrigger, Schedule
from ...storage.unit import Unit
from ...tenancy.access import service as access
from ..jobs import service as jobs
from ..jobs.model import JobRecord
from . import store
from .store import ScheduleRecord
from .times import next_due

ANSWERED = ("id", "creation_context", "is_enabled", "next_run", "last_run", "last_job")
MISSED_AFTER_MS = 60_000
"""A firing that is later than this was missed: no server ran."""
TOO_MANY = "files: too many"
"""The mark of a folder with more files than are read."""


@requires("workspaces/schedules/write")
def put(unit: Unit, spec: Schedule, machine: Share) -> dict[str, Any]:
    """Create or replace. Its job is submitted once in a savepoint and rolled back, so that what is wrong with it is reported now."""
    name = check_name("asset", str(spec.name), "schedule")
    earlier = store.get(unit, name)
    _try(unit, spec, machine)
    body = {key: value for key, value in spec.document().items() if key not in ANSWERED}
    body["properties"] = ScheduleProperties.kept(spec.properties)
    created = earlier.created_ms if earlier else unit.now
    timed = None if isinstance(spec.trigger, ChangeTrigger) else next_due(spec.trigger, unit.now, created)
    mark = _mark_of(unit, spec.trigger) if isinstance(spec.trigger, ChangeTrigger) else ""
    if mark == TOO_MANY:
        raise Invalid(f"{name} would watch more than {trees.MAX_NAMES:,} files; watch a folder further down", code="too_many_files")
    record = ScheduleRecord(
        unit.workspace, name, body, earlier.enabled if earlier else True, timed, earlier.last_ms if earlier else None,
        earlier.last_job if earlier else None, mark, None, created, earlier.created_by if earlier else unit.actor.name,
        unit.actor.name, unit.now,
    )  # fmt: skip
    store.put(unit, record)
    unit.record("schedule.updated" if earlier else "schedule.created", name)
    return noted(record.document(), ScheduleProperties.check(spec.properties))


def _try(unit: Unit, spec: Schedule, machine: Share) -> None:
    with unit.connection.begin_nested() as trial:
        _make(unit, spec, "trial-of-schedule", machine, unit.now)
        trial.rollback()


@requires("workspaces/schedules/read")
def get(unit: Unit, name: str) -> dict[str, Any]:
    return _get(unit, name).document()


def _get(unit: Unit, name: str) -> ScheduleRecord:
    record = store.get(unit, name)
    if record is None:
        raise NotFound(f"there is no schedule {name} in workspace {unit.workspace}", hint="`yard schedule list` shows them.")
    return record


@requires("workspaces/schedules/read")
def list_(unit: Unit, enabled: bool | None) -> list[dict[str, Any]]:
    return [record.document() for record in store.list_all(unit) if enabled is None or record.enabled == enabled]


@requires("workspaces/schedules/delete")
def delete(unit: Unit, name: str) -> None:
    _get(unit, name)
    store.delete(unit, name)
    unit.record("schedule.deleted", name)


@requires("workspaces/schedules/write")
def set_enabled(unit: Unit, name: str, enabled: bool) -> dict[str, Any]:
    """A schedule that is enabled again resumes with its next due time; firings missed meanwhile are not repeated."""
    record = _get(unit, name)
    spec = record.spec
    values: dict[str, Any] = {"enabled": enabled}
    if enabled and isinstance(spec.trigger, ChangeTrigger):
        values["mark"] = _mark_of(unit, spec.trigger)
    elif enabled and not isinstance(spec.trigger, ChangeTrigger):
        values |= {"next_ms": next_due(spec.trigger, unit.now, record.created_ms), "planned_ms": unit.now}
    store.set_fields(unit, name, **values)
    unit.record("schedule.enabled" if enabled else "schedule.disabled", name)
    return _get(unit, name).document()


@requires("workspaces/schedules/write")
def trigger(unit: Unit, name: str, machine: Share) -> dict[str, Any]:
    """Submit the job now, apart from the due times."""
    job = _fire(unit, _get(unit, name), machine)
    return {"job_name": job.name}


def _fire(unit: Unit, record: ScheduleRecord, machine: Share, due_ms: int | None = None) -> JobRecord:
    # The jobs run as the last modifier of the schedule, with no more than that principal's permissions.
    access.check_still_may(unit, record.last_modified_by, "workspaces/jobs/write")
    job = _make(unit.trusted(record.last_modified_by), record.spec, None, machine, unit.now if due_ms is None else due_ms)
    store.set_fields(unit, record.name, last_ms=unit.now, last_job=job.name, error=None)
    unit.record("schedule.fired", record.name, job=job.name)
    return job


def _scheduled(value: Any, job: str, due_ms: int) -> Any:
    """An input with what a schedule knows: the name of the job, and when it was due. Raises Invalid for another expression."""
    if isinstance(value, dict):
        return {key: _scheduled(part, job, due_ms) if key in ("value", "path") else part for key, part in value.items()}
    if not isinstance(value, str):
        return value
    expressions.SCHEDULED_INPUT.check(value)
    known = {("name",): job, ("creation_context", "trigger_time"): iso(due_ms)}
    return expressions.resolve(value, known.get)


def _make(unit: Unit, spec: Schedule, name: str | None, machine: Share, due_ms: int) -> JobRecord:
    """Submit the job that a schedule names, with the schedule's overrides. `due_ms`: what `${{creation_context.trigger_time}}` stands for."""
    create_job = spec.create_job
    body = dict(create_job.job) if isinstance(create_job.job, dict) else jobs.definition(unit, create_job.job)
    changes = create_job.document()
    changes.pop("job")
    changes.pop("type", None)
    for part in ("inputs", "outputs", "settings", "tags", "properties", "environment_variables"):
        if part in changes:
            body[part] = {**(body.get(part) or {}), **changes.pop(part)}
    body |= {key: value for key, value in changes.items() if key != "name"}
    body["name"] = f"{name}-{unit.now}" if name else ids.job_name()
    body["inputs"] = {port: _scheduled(value, body["name"], due_ms) for port, value in (body.get("inputs") or {}).items()}
    body["properties"] = JobProperties(schedule=str(spec.name)).over(body.get("properties") or {})
    job: Any = spec_class("job", body).model_validate(body)
    submitted = jobs.submit_any(unit, job, machine)
    references.hold(unit, "job", submitted.name, "schedule", str(spec.name), "", strong=False)
    return submitted


# Called by the loop


@internal
def fire_due(unit: Unit, name: str, machine: Share, clock_was_set: bool = False) -> str | None:
    """Submit the job of a schedule that is due and set its next due time, in one unit. The job's name; None when there was none to submit.

    Due times that the clock has skipped, because it was set forward, were not missed by a server that did not run: one of them fires.
    """
    record = store.get(unit, name)
    if record is None or not record.enabled or record.next_ms is None or record.next_ms > unit.now:
        return None
    spec = record.spec
    assert not isinstance(spec.trigger, ChangeTrigger)
    missed = unit.now - record.next_ms > MISSED_AFTER_MS
    skip = missed and spec.trigger.missed_runs == "skip"
    each = not clock_was_set and (not missed or spec.trigger.missed_runs == "all")
    after = record.next_ms if each else unit.now
    moved = store.move_on(unit, record, next_ms=next_due(spec.trigger, after, record.created_ms), planned_ms=unit.now)
    # What fires late for many due times fires for now: if the clock was ahead, the due time itself is still to come.
    if not moved or skip or not store.note_firing(unit, name, after):
        return None
    return _fire(unit, record, machine, after).name


@internal
def plan_anew(unit: Unit, name: str) -> None:
    """Find the next due time again: it was found when the clock was ahead, and the clock was set back since."""
    record = store.get(unit, name)
    if record is None or not record.enabled or record.mark:
        return
    created = min(record.created_ms, unit.now)  # it may have been created while the clock was ahead
    try:
        trigger = record.spec.trigger
    except Invalid:
        store.set_fields(unit, name, planned_ms=unit.now)
        return
    assert not isinstance(trigger, ChangeTrigger)
    values = {"next_ms": next_due(trigger, unit.now, created), "planned_ms": unit.now, "created_ms": created}
    if store.move_on(unit, record, **values) and values["next_ms"] != record.next_ms:
        unit.record("schedule.replanned", name, next_run=iso(values["next_ms"]))


@internal
def has_changed(unit: Unit, name: str) -> bool:
    record = store.get(unit, name)
    if record is None:
        return False
    try:
        spec = record.spec
    except Invalid:
        return True  # the firing reports what is wrong
    return isinstance(spec.trigger, ChangeTrigger) and _mark_of(unit, spec.trigger) != record.mark


@internal
def fire_changed(unit: Unit, name: str, machine: Share) -> str | None:
    record = store.get(unit, name)
    if record is None or not record.enabled:
        return None
    spec = record.spec
    assert isinstance(spec.trigger, ChangeTrigger)
    mark = _mark_of(unit, spec.trigger)
    if mark == record.mark:
        return None
    return _fire(unit, record, machine).name if store.move_on(unit, record, mark=mark) else None


@internal
def keep_error(unit: Unit, name: str, error: str) -> None:
    """Record a failed firing in the schedule, which goes on with its next due time."""
    record = store.get(unit, name)
    if record is None:
        return
    timed, mark = _following(unit, record)
    store.put(unit, replace(record, next_ms=timed, mark=mark, error=error, planned_ms=unit.now))
    unit.record("schedule.failed", name, error=error[:500])


def _following(unit: Unit, record: ScheduleRecord) -> tuple[int | None, str]:
    """(next due time, mark): one of them, by the trigger; neither for a schedule that cannot be read, which then no longer fires."""
    try:
        trigger = record.spec.trigger
    except Invalid:
        return None, ""
    return (None, _mark_of(unit, trigger)) if isinstance(trigger, ChangeTrigger) else (next_due(trigger, unit.now, record.created_ms), "")


def _mark_of(unit: Unit, trigger: ChangeTrigger) -> str:
    """The current state of what a change trigger watches, as a text to compare; never empty."""
    if trigger.data is not None:
        try:
            ref = asset_ref(trigger.data, "data asset")
            return "data " + str(data.get(unit, AssetRef(ref.name, label="latest"))["version"])
        except NotFound:
            return "data none"
    if trigger.experiment is not None:
        job = jobs.last_completed(unit, trigger.experiment)
        return f"job {job}"
    location = parse_reference(str(trigger.path))
    if not isinstance(location, DatastorePath):
        raise Invalid(f"{trigger.path!r} is not a place in a datastore", hint="Write azureml://datastores/NAME/paths/PATH.")
    local = files.local_folder(unit, location)
    if local is None:
        return "files " + files.files_at(unit, location).digest
    try:
        return f"files {trees.fingerprint(local)}"
    except trees.NotPlain:
        return "files none"
    except trees.TooMany:
        return TOO_MANY

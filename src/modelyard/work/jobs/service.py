"""Use cases of jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from modelyard_runtime.protocol import ExitRecord

from ...assets.environments import service as environments
from ...assets.files import service as files
from ...assets.files.model import NamedOutput, artifact_place
from ...core import ids
from ...core.actor import internal, requires
from ...core.errors import AlreadyExists, Conflict, Forbidden, Invalid, NotFound, YardError
from ...core.paging import Page, decode_token, encode_token
from ...ports.executor import LOG, Share
from ...ports.vault import Vault
from ...spec import expressions
from ...spec.fields import with_changes
from ...spec.inputs import Input
from ...spec.job import Job
from ...spec.properties import JobProperties
from ...spec.states import JOB, JobState, RunState
from ...spec.unused import unused
from ...storage.unit import Unit
from ...tenancy.access import service as access
from ...tenancy.workspaces import service as workspaces
from ..compute import service as computes
from ..compute.model import share_of_size
from ..tracking import service as tracking
from ..tracking.model import PARENT, Metric
from . import outputs, reproduction, resolution, store
from .kinds import execution_of, job_kinds, kind_of
from .model import RUN_OF, SYSTEM_LOG, JobRecord, Program
from .outcome import AttemptResults, outcome

TOKEN_HOURS = 24 * 30
USER_IDENTITY = "user_identity"


@requires("workspaces/jobs/write")
def submit(unit: Unit, spec: Any, machine: Share, parent: JobRecord | None = None, program: Program | None = None, /) -> JobRecord:
    """Queue a job that runs a process. All its references are looked up first, so that a wrong name is refused now and not after the queue.

    `program`: the runtime program that runs the command of a pipeline's step.
    """
    name = _free_name(unit, spec, parent)
    execution = kind_of(spec.type).execution(spec)
    resolved, notes = resolution.look_up(unit, name, execution)
    compute, max_instances, size, compute_notes = computes.resolve(unit, spec.compute)
    share, share_notes = share_of_size(execution.instance_type or size, machine)
    return _insert(
        unit, spec, name, parent, state=JobState.QUEUED, compute=compute, max_instances=max_instances, cpus=share.cpus, memory=share.memory, gpus=share.gpus,
        warnings=[*execution.notes, *notes, *compute_notes, *share_notes], resolved=resolved, program=program,
    )  # fmt: skip


@requires("workspaces/jobs/write")
def submit_any(unit: Unit, spec: Any, machine: Share, parent: JobRecord | None = None) -> JobRecord:
    """Submit a job of whatever kind."""
    return kind_of(spec.type).submit(unit, spec, machine, parent)


@internal
def begin(unit: Unit, spec: Job, parent: JobRecord | None, notes: list[str]) -> JobRecord:
    """Create a job that its children carry out: it is running, and due for its loop's next turn."""
    name = _free_name(unit, spec, parent)
    unit.wake(f"{_type(spec)}.due")
    return _insert(
        unit, spec, name, parent, state=JobState.RUNNING, started_ms=unit.now, compute="", max_instances=None, cpus=0, memory=0, gpus=0, warnings=notes,
        resolved={}, due=True,
    )  # fmt: skip


def _free_name(unit: Unit, spec: Job, parent: JobRecord | None) -> str:
    if unit.actor.run:
        raise Forbidden("a job does not submit jobs with its own token")
    workspaces.check_runs(unit)
    if parent is None:
        _check_inputs(spec)
    name = spec.name or ids.job_name()
    if store.get_anywhere(unit, name) is not None:
        raise AlreadyExists(f"there is a job {name} already", hint="Leave the name out, or choose another.")
    return name


def _check_inputs(spec: Job) -> None:
    """Raises Invalid for an expression: nothing has a value yet where a job is submitted. What a step was given is text."""
    inputs: dict[str, Input] = getattr(spec, "inputs", {})
    for port, value in inputs.items():
        for text in (value.path, value.value, value.default):
            if isinstance(text, str):
                try:
                    expressions.JOB_INPUT.check(text)
                except Invalid as error:
                    raise Invalid(f"input {port}: {error.message}", code=error.code) from None


def _insert(unit: Unit, spec: Job, name: str, parent: JobRecord | None, **values: Any) -> JobRecord:
    experiment = spec.experiment_name or (parent.experiment if parent else "Default")
    type = _type(spec)
    tags = {**spec.tags, "mlflow.source.type": "JOB", "mlflow.source.name": name, **reproduction.git_tags(spec)}
    if parent is not None:
        tags[PARENT] = parent.name
    made_by = parent.created_by if parent else unit.actor.name
    identity, notes = _identity(unit, spec, parent, made_by)
    values["warnings"] = [*values["warnings"], *notes, *unused(spec), *JobProperties.check(spec.properties)]
    values["resolved"] = {**values["resolved"], **identity}
    tracking.create_job_run(unit, name, experiment, spec.display_name or name, tags, made_by)
    if values["state"] is JobState.RUNNING:
        tracking.set_job_run(unit, name, RunState.RUNNING, start_ms=unit.now)
    record = JobRecord(
        name=name, workspace=unit.workspace, stored={**spec.submitted(), "name": name, "experiment_name": experiment}, attempt=0, node=None,
        created_ms=unit.now, created_by=made_by, ended_ms=None, error=None, cancel_requested=False,
        archived=False, experiment=experiment, gpu_ids="", type=type, parent=parent.name if parent else None,
        **{"started_ms": None, **values},
    )  # fmt: skip
    store.insert(unit, record)
    unit.record("job.submitted", name, type=type, experiment=experiment, resolved=record.resolved)
    return record


def _identity(unit: Unit, spec: Job, parent: JobRecord | None, submitter: str) -> tuple[dict[str, str], list[str]]:
    """Whether the job acts as its submitter, as its own spec says it, else its parent, else its workspace; and what is noted of that."""
    if spec.identity is not None and spec.identity.type != USER_IDENTITY:
        return {}, [f"identity {spec.identity.type}: there are none here; the job acts with a token of its own"]
    inherited = parent.properties.identity if parent is not None else workspaces.properties(unit).job_identity
    if spec.identity is None and inherited != USER_IDENTITY:
        return {}, []
    return {"identity": USER_IDENTITY}, [
        f"identity {USER_IDENTITY}: it may change the runs, models and data of this workspace as {submitter} may"
    ]


def _type(spec: Any) -> str:
    return str(spec.type)


@requires("workspaces/jobs/read")
def get(unit: Unit, name: str) -> JobRecord:
    return store.existing(unit, name)


@requires("workspaces/jobs/write")
def submit_shown(unit: Unit, spec: Any, machine: Share, url: str) -> dict[str, Any]:
    """Submit a job of whatever kind; the job's document, which also answers a repeated request."""
    return submit_any(unit, spec, machine).document(url)


@requires("workspaces/jobs/read")
def show(unit: Unit, name: str, url: str) -> dict[str, Any]:
    """A job with what its kind adds: the steps of a pipeline, the trials of a sweep."""
    record = store.existing(unit, name)
    kind = job_kinds().get(record.type)
    return {**record.document(url), **(kind.details(unit, record) if kind else {})}


@requires("workspaces/jobs/read")
def search(unit: Unit, /, limit: int, token: str | None, archived: bool | None, **filters: str | None) -> Page[JobRecord]:
    limit = max(1, min(limit, 1000))
    position = decode_token(token, 1)
    before = int(position[0]) if position and isinstance(position[0], int) else None
    rows = store.search(
        unit, archived=archived, status=filters.get("status"), experiment=filters.get("experiment"), compute=filters.get("compute"),
        user=filters.get("user"), tag=filters.get("tag"), parent=filters.get("parent"), before=before, limit=limit,
    )  # fmt: skip
    return Page([record for _, record in rows], encode_token([rows[-1][0]]) if len(rows) == limit else None)


@requires("workspaces/jobs/cancel/action")
def cancel(unit: Unit, name: str) -> JobRecord:
    """Request a job's end. A queued one is canceled at once; one that has ended stays as it is."""
    record = store.existing(unit, name)
    if record.state in JOB.terminal or record.cancel_requested:
        return record
    if record.state is JobState.QUEUED:
        store.transition(unit, record, JobState.CANCELED, ended_ms=unit.now, cancel_requested=True)
        tracking.set_job_run(unit, name, RunState.KILLED, end_ms=unit.now)
        _notify_parent(unit, name)
        unit.record("job.ended", name, state=JobState.CANCELED)
    else:
        _request_end(unit, record)
    return store.existing(unit, name)


def _request_end(unit: Unit, record: JobRecord) -> None:
    """Whoever commits this (`attempt_to_end`) and the loop cancel a process at its executor; the parent's next turn cancels children."""
    store.set_active(unit, record, cancel_requested=True, due=not record.runs_process)
    unit.record("job.cancel_requested", record.name)
    if not record.runs_process:
        unit.wake(f"{record.type}.due")


@requires("workspaces/jobs/write")
def update(unit: Unit, name: str, changes: dict[str, Any]) -> JobRecord:
    record = store.existing(unit, name)
    allowed = ("display_name", "description", "tags", "properties")
    refused = [key for key, value in changes.items() if key not in allowed and record.document().get(key) != value]
    if refused:
        raise Invalid(f"{', '.join(refused)} of a submitted job cannot change; only {', '.join(allowed)} can")
    body = with_changes(type(record.spec), record.stored, {key: value for key, value in changes.items() if key in allowed})
    store.set_fields(unit, name, spec=body)
    if isinstance(changes.get("display_name"), str):
        tracking.update_run(unit, name, name=changes["display_name"])
    unit.record("job.updated", name, fields=sorted(changes))
    return store.existing(unit, name)


@requires("workspaces/jobs/write")
def set_archived(unit: Unit, name: str, archived: bool) -> JobRecord:
    record = store.existing(unit, name)
    if record.state not in JOB.terminal:
        raise Conflict(f"job {name} is {record.state}; only a job that has ended can be archived")
    store.set_fields(unit, name, archived=archived)
    unit.record("job.archived" if archived else "job.restored", name)
    return store.existing(unit, name)


@requires("workspaces/jobs/delete")
def delete(unit: Unit, name: str) -> None:
    """Delete the job and its run for good. Raises Conflict while it runs, and while a model or data asset holds it."""
    record = store.existing(unit, name)
    if record.state not in JOB.terminal:
        raise Conflict(f"job {name} is {record.state}; only a job that has ended can be deleted", hint=f"yard job cancel -n {name}")
    for child in store.children(unit, name):
        delete(unit, child.name)
    tracking.purge_run(unit, name)
    store.delete(unit, name)
    for kind in job_kinds().values():
        kind.forget(unit, name)
    unit.record("job.deleted", name)


@requires("workspaces/jobs/read")
def outputs_of(unit: Unit, name: str) -> dict[str, NamedOutput]:
    """The job's outputs by name. The default output is called `artifacts`, or `default` where an output has that name."""
    store.existing(unit, name)
    named = files.outputs_of(unit, name)
    default = next(key for key in ("artifacts", "default", "azureml.artifacts") if key not in named)
    return {default: NamedOutput("uri_folder", str(artifact_place(name)), default=True), **named}


# An attempt, from its claim to its end


@dataclass(frozen=True)
class Ticket:
    """What an attempt starts with, resolved in the unit that claimed the job."""

    environment: environments.Resolved
    token: str


@internal
def begin_attempt(unit: Unit, record: JobRecord, node: str, gpu_ids: str, vault: Vault) -> tuple[JobRecord, Ticket | None]:
    """Claim a queued job for this node. The attempt number of the returned record is its fencing token from here on.

    Without a ticket when what it starts with cannot be settled: the attempt asks again, and ends with the reason. Raises Superseded
    when another server or a cancel was first.
    """
    attempt = record.attempt + 1
    store.transition(unit, record, JobState.PREPARING, attempt=attempt, node=node, gpu_ids=gpu_ids, started_ms=None)
    tracking.place_job_run(unit, record.name, record.experiment)
    unit.record("job.started", record.name, attempt=attempt, node=node)
    claimed = store.existing(unit, record.name).with_spec_of(record)
    try:
        return claimed, ticket(unit, claimed, vault)
    except YardError:
        return claimed, None


@internal
def ticket(unit: Unit, record: JobRecord, vault: Vault) -> Ticket:
    resolved = environments.resolve(unit, execution_of(record).environment)
    return Ticket(
        resolved,
        access.create_job_token(
            unit,
            vault,
            record.name,
            record.attempt,
            TOKEN_HOURS,
            record.created_by,
            as_submitter=record.properties.identity == USER_IDENTITY,
        ),
    )


@internal
def set_running(unit: Unit, name: str, attempt: int, **resolved: Any) -> JobRecord:
    """`resolved`: properties that are known since the command was started. Returns the current record."""
    record = _held(unit, name, attempt)
    store.transition(unit, record, JobState.RUNNING, started_ms=unit.now, resolved={**record.resolved, **resolved})
    tracking.set_job_run(unit, name, RunState.RUNNING, start_ms=unit.now)
    unit.record("job.running", name, attempt=attempt)
    return record


@internal
def set_finalizing(unit: Unit, name: str, attempt: int) -> None:
    store.transition(unit, _held(unit, name, attempt), JobState.FINALIZING)


def _held(unit: Unit, name: str, attempt: int) -> JobRecord:
    """The current record. Raises Superseded when a later attempt holds the job, or it was deleted."""
    record = store.get(unit, name)
    if record is None or record.attempt != attempt:
        raise store.moved_on(name)
    return record


@internal
def finish_attempt(unit: Unit, record: JobRecord, exit: ExitRecord, results: AttemptResults) -> None:
    """Put the attempt's files under their paths and end the job. Raises Superseded when a later attempt holds it."""
    current = _held(unit, record.name, record.attempt)
    written = execution_of(record).outputs
    state, error = outcome(written, exit, current.cancel_requested, results)
    keep_system_metrics(unit, record.name, results.samples)
    if state is JobState.COMPLETED:
        try:
            outputs.check_outputs(unit, record.name, written, {port: results.written(port) for port in results.outputs})
        except Conflict as conflict:
            state, error = JobState.FAILED, {"code": conflict.code, "message": f"keeping the outputs failed: {conflict.message}"}
    logs = [file for file in results.artifacts if file.path in (LOG, SYSTEM_LOG)]
    if refusal := files.quota_refusal(unit, [file for file in results.files() if file not in logs]):
        # What does not fit is not kept; the logs are, to tell of it.
        if state is JobState.COMPLETED:
            state, error = JobState.FAILED, {"code": refusal.code, "message": f"keeping the outputs failed: {refusal.message}"}
        results = replace(results, outputs={}, artifacts=logs)
    completed = state is JobState.COMPLETED
    for port, entries in results.outputs.items():
        outputs.keep_output(unit, record.name, port, written[port], entries, completed, results.unchanged.get(port, set()))
    registered: dict[str, str] = {}
    try:
        for port in [port for port, entries in results.outputs.items() if completed and entries]:
            if name := written[port].name:
                registered[port] = outputs.promote(unit, record.name, port, name, written[port].version, results.seen.get(port))
    except YardError as refusal:  # what it wrote stays under its paths
        if refusal.transient:
            raise
        state, error = JobState.FAILED, _not_registered(refusal)
    root = artifact_place(record.name)
    for file in results.artifacts:
        try:
            files.put_file(unit, root.datastore, root.path + file.path, file.digest, file.size)
        except Conflict as conflict:  # with what the script logged itself
            state, error = JobState.FAILED, error or {
                "code": "output_not_kept",
                "message": f"not everything that the job wrote could be kept: {file.path}: {conflict.message.removeprefix(root.path)}",
            }  # fmt: skip
    installed = {"installed": results.installed} if results.installed else {}
    end(
        unit, record.name, record.attempt, state, error, exit.ended_ms, registered=registered, usage=dict(exit.usage), start=exit.start, **installed,
    )  # fmt: skip


def _not_registered(refusal: YardError) -> dict[str, Any]:
    hint = {"hint": refusal.hint} if refusal.hint else {}
    return {"code": refusal.code, "message": f"the outputs are kept, but one could not be registered: {refusal.message}", **hint}


@internal
def keep_system_metrics(unit: Unit, name: str, samples: list[dict[str, Any]]) -> None:
    """What the runner measured, as metrics of the run; a sample that is stored already changes nothing."""
    record = store.get_anywhere(unit, name)
    if record is None or not samples:
        return
    began = record.started_ms or samples[0]["time_ms"]
    points = [
        Metric(key, float(value), sample["time_ms"], max(0, sample["time_ms"] - began) // 1000)
        for sample in samples
        for key, value in sample["values"].items()
    ]
    tracking.put_job_metrics(unit, name, points)


@internal
def end(
    unit: Unit, name: str, attempt: int, state: JobState, error: dict[str, Any] | None, ended_ms: int | None = None, *,
    registered: Mapping[str, str] | None = None, **resolved: Any,
) -> None:  # fmt: skip
    """The last transition. The job's token ends here; a later write with it is refused. `registered`: output → `NAME:VERSION`."""
    record = _held(unit, name, attempt)
    if registered:
        resolved["registered"] = dict(registered)
    changes = {"resolved": {**record.resolved, **resolved}} if resolved else {}
    store.transition(unit, record, state, error=error, ended_ms=ended_ms or unit.now, **changes)
    tracking.set_job_run(unit, name, RUN_OF[state], end_ms=ended_ms or unit.now)
    access.end_job_token(unit, name)
    _notify_parent(unit, name)
    unit.record("job.ended", name, state=state, attempt=attempt, **({"error": error["code"]} if error else {}))


def _notify_parent(unit: Unit, name: str) -> None:
    parent_kind = store.make_parent_due(unit, name)
    if parent_kind is not None:
        unit.wake(f"{parent_kind}.due")
    for kind in job_kinds().values():
        kind.ended(unit, name)


# Jobs that their children carry out, and their parents


@internal
def names(unit: Unit) -> set[str]:
    """Names of the jobs of every workspace."""
    return store.names(unit)


@internal
def record_of(unit: Unit, name: str) -> JobRecord | None:
    return store.get(unit, name)


@internal
def states_of(unit: Unit, names: list[str]) -> dict[str, tuple[JobState, dict[str, Any] | None]]:
    return store.states_of(unit, names)


@internal
def due(unit: Unit, type: str) -> list[tuple[str, str]]:
    """(workspace, name) of the jobs of a kind that are due for their loop's next turn."""
    return store.due(unit, type)


@internal
def running(unit: Unit, type: str) -> list[tuple[str, str]]:
    return store.running(unit, type)


@internal
def last_completed(unit: Unit, experiment: str) -> str | None:
    """The job of an experiment that completed last."""
    return store.last_completed(unit, experiment)


@internal
def definition(unit: Unit, text: str) -> dict[str, Any]:
    """The spec of the job that `text` (`azureml:NAME`) names, so that it can be submitted under another name."""
    name = text.removeprefix("azureml:").removeprefix("yard:")
    record = store.get(unit, name)
    if record is None:
        raise NotFound(
            f"there is no job {name} to make again", code="job_not_found", hint="Name a job that was submitted, or write it out."
        )
    return {key: value for key, value in record.stored.items() if key not in ("name", "parent_job_name")}


@internal
def give_up(unit: Unit, name: str, reason: str) -> None:
    """Fail a job that cannot be advanced, and cancel its children."""
    store.set_due(unit, name, False)
    record = store.get(unit, name)
    if record is None or record.state in JOB.terminal:
        return
    for child in store.children(unit, name):
        cancel(unit, child.name)
    end(unit, name, record.attempt, JobState.FAILED, {"code": "internal", "message": reason})


@internal
def installed_by(unit: Unit, name: str) -> list[str]:
    """What the command of a job installed beside its environment, as `name==version`; nothing of a job that is gone."""
    record = store.get(unit, name)
    return [] if record is None else record.properties.installed or []


@internal
def make_due(unit: Unit, name: str, type: str) -> None:
    """Have a job that its children carry out looked at in its loop's next turn."""
    store.set_due(unit, name, True)
    unit.wake(f"{type}.due")


@internal
def clear_due(unit: Unit, name: str) -> None:
    store.set_due(unit, name, False)

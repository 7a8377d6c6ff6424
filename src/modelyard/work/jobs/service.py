"""Use cases of jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from ...assets.data import service as data
from ...assets.environments import service as environments
from ...assets.files import service as files
from ...assets.files.model import BUILT_IN as OWN_STORES
from ...assets.files.model import NamedOutput, artifact_place, is_kept, output_folder
from ...assets.models import service as models
from ...assets.references import service as references
from ...core import ids
from ...core.actor import internal, requires
from ...core.errors import AlreadyExists, Conflict, Forbidden, Invalid, NotFound
from ...core.paging import Page, decode_token, encode_token
from ...ports.executor import Share
from ...ports.objects import File, Tree
from ...spec.fields import with_changes
from ...spec.inputs import Input, Output
from ...spec.job import CommandJob, Job
from ...spec.model import Model
from ...spec.properties import JobProperties
from ...spec.references import AssetRef, DatastorePath, JobOutput, WebAddress, parse_reference
from ...spec.states import JOB, JobState
from ...storage.unit import Unit
from ...tenancy.access import service as access
from ...tenancy.workspaces import service as workspaces
from ..compute import service as computes
from ..compute.model import asked_by
from ..tracking import service as tracking
from ..tracking.model import Metric
from . import reproduction, store
from .kinds import job_kinds
from .model import RUN_STATUS, InputSource, JobRecord, Program, digest_in, output_uri, stored_only


@requires("workspaces/jobs/write")
def submit(unit: Unit, spec: CommandJob, machine: Share, parent: JobRecord | None = None, program: Program | None = None) -> JobRecord:
    """Queue a job. Everything it names is found first, all of it, so that a wrong name never waits in a queue."""
    name = _free_name(unit, spec)
    spec.check_complete()
    problems: list[str] = []
    resolved: dict[str, Any] = {}
    notes = stored_only(spec)
    try:
        environment = environments.resolve(unit, spec.environment)
        resolved["environment"] = str(environment)
        notes += environment.wanted.notes
        references.hold(unit, "job", name, "environment", environment.name, environment.version, strong=False)
    except (NotFound, Invalid) as error:
        problems.append(error.message)
    for port, value in spec.inputs.items():
        if value.is_literal or value.path is None:
            continue
        try:
            resolved[f"input.{port}"] = _check_input(unit, name, value)
        except (NotFound, Invalid) as error:
            problems.append(f"input {port}: {error.message}")
    for port, output in spec.outputs.items():
        try:
            _check_output(unit, output_uri(name, port, output), name)
        except (NotFound, Invalid) as error:
            problems.append(f"output {port}: {error.message}")
    if spec.code is not None:
        try:
            resolved["code"] = check_code(unit, spec.code)
        except (NotFound, Invalid) as error:
            problems.append(f"code: {error.message}")
    compute, most, size, compute_notes = computes.resolve(unit, spec.compute)
    share, share_notes = asked_by(spec.resources.instance_type if spec.resources and spec.resources.instance_type else size, machine)
    if problems:
        raise Invalid(f"job {name} cannot be submitted: " + "; ".join(problems), code="unresolved_reference")
    return _insert(
        unit, spec, name, parent, state=JobState.QUEUED, compute=compute, max_instances=most, cpus=share.cpus, memory=share.memory, gpus=share.gpus,
        warnings=[*notes, *compute_notes, *share_notes], resolved=resolved, program=program,
    )  # fmt: skip


@requires("workspaces/jobs/write")
def submit_any(unit: Unit, spec: Any, machine: Share) -> JobRecord:
    """Submit a job of whatever kind."""
    return submit(unit, spec, machine) if spec.type == "command" else job_kinds()[spec.type].submit(unit, spec, machine)


@internal
def begin(unit: Unit, spec: Job, parent: JobRecord | None, notes: list[str]) -> JobRecord:
    """Make a job of a kind that other jobs carry out. It is running, and due to be looked at."""
    name = _free_name(unit, spec)
    unit.wake(f"{spec.type}.due")  # type: ignore[attr-defined]
    return _insert(
        unit, spec, name, parent, state=JobState.RUNNING, started_ms=unit.now, compute="", max_instances=None, cpus=0, memory=0, gpus=0, warnings=notes,
        resolved={}, due=True,
    )  # fmt: skip


def _free_name(unit: Unit, spec: Job) -> str:
    if unit.actor.run:
        raise Forbidden("a job does not submit jobs with its own token")
    workspaces.check_runs(unit)
    name = spec.name or ids.job_name()
    if store.get_anywhere(unit, name) is not None:
        raise AlreadyExists(f"there is a job {name} already", hint="Leave the name out, or choose another.")
    return name


def _insert(unit: Unit, spec: Job, name: str, parent: JobRecord | None, **values: Any) -> JobRecord:
    experiment = spec.experiment_name or (parent.experiment if parent else "Default")
    type = str(getattr(spec, "type", "command"))
    tags = {**spec.tags, "mlflow.source.type": "JOB", "mlflow.source.name": name, **reproduction.git_tags(spec)}
    if parent is not None:
        tags["mlflow.parentRunId"] = parent.name
    values["warnings"] = [*values["warnings"], *JobProperties.check(spec.properties)]
    tracking.create_job_run(unit, name, experiment, spec.display_name or name, tags)
    if values["state"] is JobState.RUNNING:
        tracking.set_job_run(unit, name, "RUNNING", start_ms=unit.now)
    record = JobRecord(
        name=name, workspace=unit.workspace, stored={**spec.submitted(), "name": name, "experiment_name": experiment}, attempt=0, node=None,
        created_ms=unit.now, created_by=parent.created_by if parent else unit.actor.name, ended_ms=None, error=None, cancel_requested=False,
        archived=False, experiment=experiment, gpu_ids="", type=type, parent=parent.name if parent else None,
        **{"started_ms": None, **values},
    )  # fmt: skip
    store.insert(unit, record)
    unit.record("job.submitted", name, type=type, experiment=experiment, resolved=record.resolved)
    return record


@internal
def check_input(unit: Unit, value: Input) -> str:
    """What an input stands for, as a line for the record and for content keys. Raises NotFound or Invalid."""
    return _look_at(unit, value, _source_of(unit, value))[0]


def _check_input(unit: Unit, job: str, value: Input) -> str:
    """As `check_input`; what lies there now is what the job will read, whatever is written there meanwhile."""
    source = _source_of(unit, value)
    line, tree = _look_at(unit, value, source)
    if isinstance(source.place, DatastorePath) and tree is not None and tree.files and not is_kept(source.place):
        files.pin(unit, source.place, tree)
    if source.asset is not None:
        kind, name, version = source.asset
        references.hold(unit, "job", job, kind, name, version, strong=False)
    return line


class _Source(NamedTuple):
    """Where an input's bytes are; the (kind, name, version) of the asset it named; `seen` as in `InputSource`."""

    place: DatastorePath | WebAddress
    asset: tuple[str, str, str] | None
    seen: str | None = None


def _look_at(unit: Unit, value: Input, source: _Source) -> tuple[str, Tree | None]:
    """The line of an input, with its files when the yard keeps them."""
    assert value.path is not None
    place, named = source.place, f"{':'.join(source.asset[1:])} " if source.asset else ""
    if isinstance(place, DatastorePath):
        store_type = files.datastore_spec(unit, place.datastore).type
        if place.datastore in OWN_STORES:
            tree = files.files_at(unit, place)
            if not tree.files and not isinstance(parse_reference(value.path), JobOutput):  # a job may write nothing
                raise NotFound(f"there is nothing at {place}", code="path_not_found")
            return f"{named}sha256:{tree.digest}", tree
        if store_type != "local":
            raise Invalid(f"datastore {place.datastore} of type {store_type} is stored here but not read by this version of modelyard")
    return f"{named}{place.url if isinstance(place, WebAddress) else place}", None


def _source_of(unit: Unit, value: Input) -> _Source:
    assert value.path is not None
    reference = parse_reference(value.path)
    if isinstance(reference, AssetRef) and (value.type.endswith("_model") or reference.kind == "models"):
        found = models.resolve(unit, reference)
        place = parse_reference(found.path)
        assert isinstance(place, DatastorePath)
        return _Source(place, ("model", found.name, found.version))
    place_, asset = data.resolve(unit, value.path)
    if isinstance(place_, (DatastorePath, WebAddress)):
        return _Source(place_, ("data", asset.name, asset.version), asset.seen) if asset else _Source(place_, None)
    raise Invalid(f"{value.path!r} is not a place that data can be read from")


def _check_output(unit: Unit, place: DatastorePath, job: str) -> None:
    files.check_target(unit, place, job)
    kind = files.datastore_spec(unit, place.datastore).type
    if place.datastore not in OWN_STORES and kind != "local":
        raise Invalid(f"datastore {place.datastore} of type {kind} is stored here but not written by this version of modelyard")


@internal
def check_code(unit: Unit, code: str) -> str:
    place = parse_reference(code)
    if not isinstance(place, DatastorePath):
        raise Invalid(f"{code!r} is not an uploaded folder", hint="`yard job create` and MLClient upload local code by themselves.")
    tree = files.files_at(unit, place)
    if not is_kept(place):
        files.pin(unit, place, tree)
    elif not tree.files:
        raise NotFound(f"there is nothing at {place}", code="path_not_found")
    return f"sha256:{tree.digest}"


@requires("workspaces/jobs/read")
def get(unit: Unit, name: str) -> JobRecord:
    return _get(unit, name)


@requires("workspaces/jobs/write")
def submit_shown(unit: Unit, spec: Any, machine: Share, url: str) -> dict[str, Any]:
    """Submit a job of whatever kind; the job as it is shown, which is what a repeated request is answered with too."""
    return submit_any(unit, spec, machine).document(url)


@requires("workspaces/jobs/read")
def show(unit: Unit, name: str, url: str) -> dict[str, Any]:
    """A job with what its kind adds: the steps of a pipeline, the trials of a sweep."""
    record = _get(unit, name)
    kind = job_kinds().get(record.type)
    return {**record.document(url), **(kind.details(unit, record) if kind else {})}


def _get(unit: Unit, name: str) -> JobRecord:
    found = store.get(unit, name)
    if found is None:
        raise NotFound(f"there is no job {name} in workspace {unit.workspace}", code="job_not_found", hint="`yard job list` shows them.")
    return found


@requires("workspaces/jobs/read")
def search(unit: Unit, /, limit: int, token: str | None, archived: bool | None, **filters: str | None) -> Page[JobRecord]:
    limit = max(1, min(limit, 1000))
    position = decode_token(token, 1)
    before = int(position[0]) if position and isinstance(position[0], int) else None
    found = store.search(
        unit, archived=archived, status=filters.get("status"), experiment=filters.get("experiment"), compute=filters.get("compute"),
        user=filters.get("user"), tag=filters.get("tag"), parent=filters.get("parent"), before=before, limit=limit,
    )  # fmt: skip
    return Page([record for _, record in found], encode_token([found[-1][0]]) if len(found) == limit else None)


@requires("workspaces/jobs/cancel/action")
def cancel(unit: Unit, name: str) -> JobRecord:
    """Ask a job to end. One still queued is canceled at once; one that has ended stays as it is."""
    record = _get(unit, name)
    if record.state in JOB.terminal or record.cancel_requested:
        return record
    if record.state is JobState.QUEUED:
        store.transition(unit, record, JobState.CANCELED, ended_ms=unit.now, cancel_requested=True)
        tracking.set_job_run(unit, name, "KILLED", end_ms=unit.now)
        _tell_parent(unit, name)
        unit.record("job.ended", name, state=JobState.CANCELED)
    else:
        store.set_active(unit, record, cancel_requested=True, due=record.type != "command")
        unit.record("job.cancel_requested", name)
        unit.wake(f"{record.type}.due")
    return _get(unit, name)


@requires("workspaces/jobs/write")
def update(unit: Unit, name: str, changes: dict[str, Any]) -> JobRecord:
    record = _get(unit, name)
    allowed = ("display_name", "description", "tags", "properties")
    refused = [key for key, value in changes.items() if key not in allowed and record.document().get(key) != value]
    if refused:
        raise Invalid(f"{', '.join(refused)} of a submitted job cannot change; only {', '.join(allowed)} can")
    body = with_changes(type(record.spec), record.stored, {key: value for key, value in changes.items() if key in allowed})
    store.set_fields(unit, name, spec=body)
    if isinstance(changes.get("display_name"), str):
        tracking.update_run(unit, name, name=changes["display_name"])
    unit.record("job.updated", name, fields=sorted(changes))
    return _get(unit, name)


@requires("workspaces/jobs/write")
def set_archived(unit: Unit, name: str, archived: bool) -> JobRecord:
    record = _get(unit, name)
    if record.state not in JOB.terminal:
        raise Conflict(f"job {name} is {record.state}; only a job that has ended can be archived")
    store.set_fields(unit, name, archived=archived)
    unit.record("job.archived" if archived else "job.restored", name)
    return _get(unit, name)


@requires("workspaces/jobs/write")
def rerun(unit: Unit, name: str, machine: Share, from_failed: bool = False) -> JobRecord:
    """Submit a job again as it was: the same code, the versions of environment and inputs that its references stood for.

    `from_failed`: a pipeline takes over the steps that completed and runs the others.
    """
    record = _get(unit, name)
    if record.type != "command":
        kind = job_kinds()[record.type]
        if from_failed and (kind.resume is None or record.state not in JOB.terminal):
            raise Conflict(
                f"job {name} is a {record.type} that is {record.state}; only a pipeline that has ended goes on from where it failed"
            )
        made = kind.submit(unit, reproduction.again(record), machine)
        if from_failed and kind.resume is not None:
            kind.resume(unit, made, record)
        return made
    if from_failed:
        raise Conflict(f"job {name} is a command; only a pipeline goes on from where it failed", hint=f"yard job rerun -n {name}")
    spec = reproduction.pinned(record)
    for port, source in inputs_of(unit, record, spec).items():
        place, digest = source.place, source.digest
        if isinstance(place, DatastorePath) and digest is not None and not is_kept(place) and place.datastore in OWN_STORES:
            spec.inputs[port].path = str(files.place_of_content(unit, place, digest))
    return submit(unit, spec, machine, program=record.program)


@requires("workspaces/jobs/read")
def verify(unit: Unit, first: str, second: str) -> dict[str, Any]:
    """Whether two jobs came to the same: metrics bit by bit, params, digests of outputs and artifacts; else what differs
    and what was never pinned."""
    records = [_get(unit, name) for name in (first, second)]
    unended = [record.name for record in records if record.state not in JOB.terminal]
    if unended:
        raise Conflict(f"job {', '.join(unended)} has not ended yet", code="job_not_ended")
    return reproduction.compare(*(_evidence(unit, record) for record in records))


def _evidence(unit: Unit, record: JobRecord) -> reproduction.Evidence:
    artifacts = {file.path: file.digest for file in files.files_at(unit, artifact_place(record.name)).files}
    outputs = {}
    for port, output in files.outputs_of(unit, record.name).items():
        place = parse_reference(output.stays_at)
        if isinstance(place, DatastorePath) and place.datastore in OWN_STORES:
            outputs[port] = files.files_at(unit, place).digest
    points, params = tracking.everything_measured(unit, record.name)
    return reproduction.Evidence(record, points, params, outputs, artifacts)


@requires("workspaces/jobs/delete")
def delete(unit: Unit, name: str) -> None:
    """For good: the job and its run. Refused while it goes on, and while a model or data asset was made of it."""
    record = _get(unit, name)
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
def outputs(unit: Unit, name: str) -> dict[str, NamedOutput]:
    """What the job has written by name, `artifacts` for the default output included."""
    _get(unit, name)
    return {"artifacts": NamedOutput("uri_folder", str(artifact_place(name))), **files.outputs_of(unit, name)}


# Called by the loop, with what it learned


@internal
def claim(unit: Unit, record: JobRecord, node: str, gpu_ids: str) -> JobRecord:
    """Take a queued job for this node. The attempt of the answer is its fencing token from here on."""
    attempt = record.attempt + 1
    store.transition(unit, record, JobState.PREPARING, attempt=attempt, node=node, gpu_ids=gpu_ids, started_ms=None)
    unit.record("job.started", record.name, attempt=attempt, node=node)
    return _get(unit, record.name)


@internal
def set_running(unit: Unit, name: str, attempt: int, **resolved: Any) -> JobRecord:
    """`resolved`: what else was settled meanwhile. The record as it is now."""
    record = _held(unit, name, attempt)
    store.transition(unit, record, JobState.RUNNING, started_ms=unit.now, resolved={**record.resolved, **resolved})
    tracking.set_job_run(unit, name, "RUNNING", start_ms=unit.now)
    unit.record("job.running", name, attempt=attempt)
    return record


@internal
def set_finalizing(unit: Unit, name: str, attempt: int) -> None:
    store.transition(unit, _held(unit, name, attempt), JobState.FINALIZING)


def _held(unit: Unit, name: str, attempt: int) -> JobRecord:
    """The job as it is now. Raises Superseded when a later attempt holds it."""
    record = _get(unit, name)
    if record.attempt != attempt:
        raise store.moved_on(name)
    return record


@internal
def keep_system_metrics(unit: Unit, name: str, samples: list[dict[str, Any]]) -> None:
    """What the runner measured, as metrics of the run; a sample that is there already changes nothing."""
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
    unit: Unit, name: str, attempt: int, state: JobState, error: dict[str, Any] | None, ended_ms: int | None = None, **resolved: Any
) -> None:
    """The last transition. The job's token ends here; a later write with it is refused."""
    record = _held(unit, name, attempt)
    more = {"resolved": {**record.resolved, **resolved}} if resolved else {}
    store.transition(unit, record, state, error=error, ended_ms=ended_ms or unit.now, **more)
    tracking.set_job_run(unit, name, RUN_STATUS[state], end_ms=ended_ms or unit.now)
    access.end_job_token(unit, name)
    _tell_parent(unit, name)
    unit.record("job.ended", name, state=state, attempt=attempt, **({"error": error["code"]} if error else {}))


def _tell_parent(unit: Unit, name: str) -> None:
    kind = store.make_parent_due(unit, name)
    if kind is not None:
        unit.wake(f"{kind}.due")


# Of kinds that other jobs carry out


@internal
def names(unit: Unit) -> set[str]:
    """Of the jobs of every workspace."""
    return store.names(unit)


@internal
def record_of(unit: Unit, name: str) -> JobRecord | None:
    return store.get(unit, name)


@internal
def states_of(unit: Unit, names: list[str]) -> dict[str, tuple[JobState, dict[str, Any] | None]]:
    return store.states_of(unit, names)


@internal
def due(unit: Unit, type: str) -> list[tuple[str, str]]:
    """(workspace, name) of the jobs of a kind that something happened to."""
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
    """The spec of the job that `text` (`azureml:NAME`) names, so that it can be made again under another name."""
    name = text.removeprefix("azureml:").removeprefix("yard:")
    record = store.get(unit, name)
    if record is None:
        raise NotFound(
            f"there is no job {name} to make again", code="job_not_found", hint="Name a job that was submitted, or write it out."
        )
    return {key: value for key, value in record.stored.items() if key not in ("name", "parent_job_name")}


@internal
def give_up(unit: Unit, name: str, reason: str) -> None:
    """End a job that cannot be taken further, and the children that carry it out."""
    store.set_due(unit, name, False)
    record = store.get(unit, name)
    if record is None or record.state in JOB.terminal:
        return
    for child in store.children(unit, name):
        cancel(unit, child.name)
    end(unit, name, record.attempt, JobState.FAILED, {"code": "internal", "message": reason})


@internal
def looked_at(unit: Unit, name: str) -> None:
    store.set_due(unit, name, False)


@internal
def check_outputs(unit: Unit, record: JobRecord, spec: CommandJob, found: Mapping[str, list[File]]) -> None:
    """Raise Conflict when an output cannot be merged with what lies at its path."""
    for port, entries in found.items():
        place = output_uri(record.name, port, spec.outputs[port])
        if place.datastore in OWN_STORES and not is_kept(place):
            folder, names = _target(spec.outputs[port].type, place, entries)
            files.check_merge(unit, folder, names)


@internal
def keep_output(
    unit: Unit, job: str, port: str, output: Output, entries: list[File], completed: bool, seen: str | None = None
) -> None:  # fmt: skip
    """Give an output its path, and its asset when it is to become one.

    An output with a path of its own is kept in the job's folder besides, where nothing is written over; its files then go to that path
    name by name. Those of a job that did not complete write nothing over there. `seen` tells the files of a local datastore, where the attempt has put them, from later ones.
    """
    place = output_uri(job, port, output)
    own, content = output_folder(job, port), None
    if place.datastore not in OWN_STORES and completed:
        target = place  # a folder of this machine: the attempt has written there
    elif place.datastore not in OWN_STORES:
        files.put_tree(unit, own, entries)
        target = _shown(output.type, own, entries)
    elif is_kept(place):
        folder, entries = _target(output.type, place, entries)
        files.put_tree(unit, folder, entries)
        target = _shown(output.type, folder, entries)
    else:
        shared, entries = _target(output.type, place, entries)
        name = shared.path.rstrip("/").rsplit("/", 1)[-1]
        kept = DatastorePath(own.datastore, own.path if output.type == "uri_file" else f"{own.path}{name}/")
        files.put_tree(unit, kept, entries)
        content = _shown(output.type, kept, entries)
        (files.put_tree if completed else files.put_new)(unit, shared, entries)
        target = _shown(output.type, shared, entries) if completed and entries else content
    files.name_output(unit, job, port, output.type, target, content if content != target else None)
    if output.name and completed and entries:
        promote(unit, job, port, output.name, output.version, seen)


def _target(type: str, place: DatastorePath, entries: list[File]) -> tuple[DatastorePath, list[File]]:
    """The folder that an output's files go into, with their names in it: the last name of a `uri_file`'s path is the file's."""
    if type == "uri_file" and len(entries) == 1 and not place.path.endswith("/"):
        folder, _, name = place.path.rpartition("/")
        return DatastorePath(place.datastore, folder + "/" if folder else ""), [replace(entries[0], path=name)]
    return DatastorePath(place.datastore, place.path.rstrip("/") + "/"), entries


def _shown(type: str, folder: DatastorePath, entries: list[File]) -> DatastorePath:
    """Where an output is said to lie: a `uri_file` at its file, anything else at its folder."""
    return DatastorePath(folder.datastore, folder.path + entries[0].path) if type == "uri_file" and len(entries) == 1 else folder


@internal
def promote(unit: Unit, job: str, port: str, name: str, version: str | None, seen: str | None = None) -> None:
    """Make an asset of an output."""
    output = files.outputs_of(unit, job)[port]
    if output.type.endswith("_model"):
        kind: Any = output.type
        models.create(unit, Model(name=name, version=version, type=kind, path=f"azureml://jobs/{job}/outputs/{port}"))
    else:
        data.promote(unit, name, version, output, job, seen)


@internal
def inputs_of(unit: Unit, record: JobRecord, spec: CommandJob) -> dict[str, InputSource]:
    """Where each input's data is."""
    named = {port: value for port, value in spec.inputs.items() if not value.is_literal and value.path is not None}
    sources = {port: _source_of(unit, value) for port, value in named.items()}
    return {port: InputSource(at.place, digest_in(record.properties.inputs.get(port)), at.seen) for port, at in sources.items()}

"""Running jobs again as they were, and comparing their results."""

from __future__ import annotations

from typing import Any

from ...assets.files import service as files
from ...assets.files.model import BUILT_IN as OWN_STORES
from ...assets.files.model import artifact_place, is_kept
from ...core.actor import requires
from ...core.errors import Conflict
from ...ports.executor import Share
from ...spec.references import DatastorePath, parse_reference
from ...spec.states import JOB
from ...storage.unit import Unit
from ..tracking import service as tracking
from . import reproduction, resolution, service, store
from .kinds import JobKind, kind_of
from .model import JobRecord


@requires("workspaces/jobs/write")
def rerun(unit: Unit, name: str, machine: Share, from_failed: bool = False) -> JobRecord:
    """Submit a job again as it was: the same code, the versions of environment and inputs that its references stood for.

    `from_failed`: a pipeline takes over the steps that completed and runs the others.
    """
    record = store.existing(unit, name)
    kind = kind_of(record.type)
    if from_failed:
        _check_resumable(record, kind)
    if kind.run is not None:
        return service.submit(unit, _pinned(unit, record), machine, None, record.program)
    repeated = kind.submit(unit, reproduction.again(record), machine)
    if from_failed and kind.resume is not None:
        kind.resume(unit, repeated, record)
    return repeated


def _check_resumable(record: JobRecord, kind: JobKind) -> None:
    if kind.resume is None:
        raise Conflict(
            f"job {record.name} is a {record.type}; only a pipeline goes on from where it failed", hint=f"yard job rerun -n {record.name}"
        )
    if record.state not in JOB.terminal:
        raise Conflict(
            f"job {record.name} is a {record.type} that is {record.state}; only a pipeline that has ended goes on from where it failed"
        )


def _pinned(unit: Unit, record: JobRecord) -> Any:
    """The job's spec with what its references stood for; an input that others may have written over is read where its content stays."""
    spec = reproduction.pinned(record)
    for port, source in resolution.inputs_of(unit, record, spec.inputs).items():
        location, digest = source.location, source.digest
        if isinstance(location, DatastorePath) and digest is not None and not is_kept(location) and location.datastore in OWN_STORES:
            spec.inputs[port].path = str(files.place_of_content(unit, location, digest))
    return spec


@requires("workspaces/jobs/read")
def verify(unit: Unit, first: str, second: str) -> dict[str, Any]:
    """Whether two jobs had equal results: metrics bit by bit, params, digests of outputs and artifacts; else what differs
    and what was never pinned."""
    records = [store.existing(unit, name) for name in (first, second)]
    unended = [record.name for record in records if record.state not in JOB.terminal]
    if unended:
        raise Conflict(f"job {', '.join(unended)} has not ended yet", code="job_not_ended")
    return reproduction.compare(*(_evidence(unit, record) for record in records))


def _evidence(unit: Unit, record: JobRecord) -> reproduction.Evidence:
    artifacts = {file.path: file.digest for file in files.files_at(unit, artifact_place(record.name)).files}
    outputs = {}
    for port, output in files.outputs_of(unit, record.name).items():
        location = parse_reference(output.stays_at)
        if isinstance(location, DatastorePath) and location.datastore in OWN_STORES:
            outputs[port] = files.files_at(unit, location).digest
    points, params = tracking.logged_values(unit, record.name)
    return reproduction.Evidence(record, points, params, outputs, artifacts)

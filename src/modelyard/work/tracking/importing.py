"""Taking over runs from an MLflow store: ids and times stay, every step may be repeated, the end is checked by count.

A run arrives as its record, then its points, then its artifacts, then `finish`, which compares what arrived with what the
sender counted and marks the run. A run without the mark is begun anew; one whose mark differs has changed at its source.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Annotated, Any, Literal

import msgspec

from ...assets.files import service as files
from ...assets.files.model import artifact_place, logged_model_place
from ...core.actor import refuse_jobs, requires
from ...core.errors import AlreadyExists, Conflict, Invalid, NotFound
from ...ports.objects import Tree
from ...spec.states import RunState
from ...storage.unit import Unit
from . import service, store
from .model import Run, check_experiment_name, check_key, check_new_run_id, dataset_key, read_metric

MARK = "modelyard.import"
"""The tag an imported run carries: empty until the import is complete, then the mark of its source."""
IMPORT = "import from elsewhere"
Millis = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class ImportedExperiment(msgspec.Struct):
    name: str
    lifecycle: Literal["active", "deleted"]
    created_ms: Millis
    updated_ms: Millis
    tags: dict[str, str] = {}


class ImportedPoint(msgspec.Struct, array_like=True):
    """A NaN or an infinity is sent as text."""

    key: str
    value: float | str
    time_ms: int
    step: int


class Finish(msgspec.Struct):
    """What the sender counted; `mark` says what the source looked like."""

    mark: str
    lifecycle: Literal["active", "deleted"]
    points: int
    params: int
    tags: int
    files: int


class ImportedRun(msgspec.Struct):
    """`inputs` are MLflow's dataset inputs `{dataset, tags}`, `model_outputs` pairs of (id, step)."""

    id: str
    experiment_id: str
    """In this yard."""
    name: str
    status: str
    start_ms: Millis | None
    end_ms: Millis | None
    user: str = ""
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    inputs: list[dict[str, Any]] = []
    model_inputs: list[str] = []
    model_outputs: list[tuple[str, int]] = []
    points: list[ImportedPoint] = []
    finish: Finish | None = None
    """A run that is sent in one request."""


class ModelMetric(msgspec.Struct):
    key: str
    value: float | str
    time_ms: int
    step: int
    run_id: str
    dataset_name: str = ""
    dataset_digest: str = ""


class ImportedLoggedModel(msgspec.Struct):
    id: str
    experiment_id: str
    name: str
    run_id: str | None
    model_type: str
    status: str
    status_message: str
    created_ms: Millis
    updated_ms: Millis
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    metrics: list[ModelMetric] = []


@requires("workspaces/experiments/write")
def import_experiment(unit: Unit, sent: ImportedExperiment) -> dict[str, str]:
    """The experiment of this name, created with its own times when it is new. A deleted one is identified by the time of its deletion."""
    refuse_jobs(unit, IMPORT)
    name = check_experiment_name(sent.name)
    deleted_ms = max(1, sent.updated_ms) if sent.lifecycle == "deleted" else 0
    id = store.experiment_id(unit, name, deleted_ms)
    if id is None:
        id = store.insert_experiment(unit, name, "", deleted_ms=deleted_ms, lifecycle=sent.lifecycle)
        location = service.default_location(id)
        store.set_experiment(unit, id, artifact_location=location, created_ms=sent.created_ms, updated_ms=sent.updated_ms)
        unit.record("experiment.imported", name, id=str(id))
    for key, value in sent.tags.items():
        store.put_experiment_tag(unit, id, check_key("tag", key), value)
    return {"id": str(id)}


@requires("workspaces/experiments/runs/read")
def marks(unit: Unit, ids: Sequence[str]) -> dict[str, str]:
    """run id → mark of the source at its import, of those runs that are imported completely."""
    return {id: mark for id, mark in store.tag_of_runs(unit, MARK, ids).items() if mark}


@requires("workspaces/experiments/runs/write")
def import_runs(unit: Unit, sent: Sequence[ImportedRun]) -> None:
    """Create each run; one whose import was not finished or whose source has changed starts again."""
    refuse_jobs(unit, IMPORT)
    for run in sent:
        _import_run(unit, run)
        if run.points:
            import_points(unit, run.id, run.points)
        if run.finish is not None:
            finish_run(unit, run.id, run.finish)


def _import_run(unit: Unit, sent: ImportedRun) -> None:
    check_new_run_id(sent.id)
    RunState.of(sent.status)
    experiment = service.any_experiment(unit, sent.experiment_id)
    run = store.run_row(unit, sent.id)
    if run is None:
        service.check_id_free(unit, sent.id)
        key = store.insert_run(
            unit, id=sent.id, experiment_id=int(experiment.id), name=sent.name, status=sent.status, start_ms=sent.start_ms,
            end_ms=sent.end_ms, user=sent.user, owner=unit.actor.id,
        )  # fmt: skip
    else:
        if store.tag(unit, run.key, MARK) is None:
            raise AlreadyExists(f"run {sent.id} is in this workspace and was not imported", code="run_exists")
        key = run.key
        store.clear_texts(unit, key)
        values = {"experiment_id": int(experiment.id), "lifecycle": "active", "deleted_ms": None, "name": sent.name, "user": sent.user}
        store.set_run(unit, key, status=sent.status, start_ms=sent.start_ms, end_ms=sent.end_ms, **values)
    store.put_params(unit, key, {check_key("param", name): value for name, value in sent.params.items()})
    store.put_tags(unit, key, {**{check_key("tag", name): value for name, value in sent.tags.items()}, MARK: ""})
    rows = service.input_rows(sent.inputs, sent.model_inputs)
    for id, step in sent.model_outputs:
        document = {"model_id": id, "step": step}
        rows.append({"kind": "model_output", "name": id, "digest": "", "context": str(step), "document": document})
    store.put_inputs(unit, key, rows)


@requires("workspaces/experiments/runs/write")
def import_points(unit: Unit, id: str, points: Sequence[ImportedPoint]) -> None:
    store.put_metrics(unit, _begun(unit, id), [read_metric(p.key, p.value, p.time_ms, p.step) for p in points])


def _begun(unit: Unit, id: str) -> Run:
    refuse_jobs(unit, IMPORT)
    run = store.run_row(unit, id)
    if run is None:
        raise NotFound(f"Run with id={id[:80]} not found")
    if store.tag(unit, run.key, MARK) != "":
        raise Conflict(f"no import of run {id} has begun", code="import_not_begun")
    return run


@requires("workspaces/experiments/runs/write")
def finish_run(unit: Unit, id: str, sent: Finish) -> None:
    """Compare and mark. Raises Conflict with both counts when something is missing."""
    run = _begun(unit, id)
    imported = store.count_of_run(unit, run.key)
    arrived = {**imported, "tags": imported["tags"] - 1, "files": len(files.files_at(unit, artifact_place(id)).files)}
    wrong = [f"{what}: {count} here, {getattr(sent, what)} at the source" for what, count in arrived.items() if count < getattr(sent, what)]
    if wrong:
        raise Conflict(f"run {id} did not arrive whole ({'; '.join(wrong)})", code="import_incomplete", hint="Import again.")
    store.put_tags(unit, run.key, {MARK: sent.mark or "whole"})
    if sent.lifecycle == "deleted":
        store.set_run(unit, run.key, lifecycle="deleted", deleted_ms=unit.now)


@requires("workspaces/experiments/runs/write")
def import_logged_model(unit: Unit, sent: ImportedLoggedModel) -> None:
    refuse_jobs(unit, IMPORT)
    if not sent.id.startswith("m-") or not sent.id[2:].isalnum() or len(sent.id) > 64:
        raise Invalid(f"{sent.id[:80]!r} is not the id of a logged model", code="invalid_model_id")
    experiment = service.any_experiment(unit, sent.experiment_id)
    values = {
        "experiment_id": int(experiment.id), "run_id": sent.run_id, "name": sent.name, "model_type": sent.model_type,
        "status": sent.status, "status_message": sent.status_message, "params": sent.params, "tags": sent.tags,
    }  # fmt: skip
    if not store.logged_model_is_free(unit, sent.id):
        service.get_logged_model(unit, sent.id)
    else:
        store.insert_logged_model(unit, id=sent.id, **values)
    store.set_logged_model(unit, sent.id, **{**values, "created_ms": sent.created_ms, "updated_ms": sent.updated_ms})
    by_run: dict[str, list[Any]] = {}
    for m in sent.metrics:
        point = read_metric(m.key, m.value, m.time_ms, m.step, sent.id, dataset_key(m.dataset_name, m.dataset_digest))
        by_run.setdefault(m.run_id, []).append(point)
    for run_id, points in by_run.items():
        store.put_logged_model_metrics(unit, run_id, points)
    if sent.run_id and sent.name:
        files.name_output(unit, sent.run_id, sent.name, "mlflow_model", logged_model_place(sent.id))


@requires("workspaces/experiments/runs/write")
def put_run_artifacts(unit: Unit, run: str, tree: Tree, lost: Set[str] = frozenset()) -> dict[str, Any]:
    """Give the run these artifacts beside those it has, all at once, when their content is here; else what of it is missing."""
    service.check_artifact_writable(unit, run)
    return files.put_artifacts(unit, artifact_place(run), tree, lost)


@requires("workspaces/experiments/runs/write")
def put_model_artifacts(unit: Unit, model: str, tree: Tree, lost: Set[str] = frozenset()) -> dict[str, Any]:
    service.check_model_writable(unit, model)
    return files.put_artifacts(unit, logged_model_place(model), tree, lost)

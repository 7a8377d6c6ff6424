"""Use cases of tracking."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import orjson

from ...assets.files import service as files
from ...assets.files.model import logged_model_place
from ...assets.references import service as references
from ...core import ids
from ...core.actor import AS_SUBMITTER_HINT, Actor, check_made_by, internal, requires
from ...core.errors import AlreadyExists, Forbidden, Invalid, LimitExceeded, NotFound
from ...core.paging import Page, check_limit, decode_token, encode_token, offset_page
from ...spec.references import ARTIFACTSTORE
from ...spec.states import RunState
from ...storage import filters
from ...storage.unit import Unit
from ...tenancy.access.model import job_principal
from . import store
from .model import (
    MAX_BATCH,
    MAX_BELOW,
    MAX_EXPERIMENT_TAG,
    MAX_GROUPED,
    MAX_HISTORY,
    MAX_PARAM,
    MAX_TAG,
    NOTE,
    OUTSIDE_A_RUN,
    PARENT,
    SYSTEM_METRIC,
    Experiment,
    Group,
    LoggedModel,
    Metric,
    Point,
    Run,
    check_experiment_name,
    check_key,
    check_new_run_id,
    check_run_id,
    check_text,
    column_parts,
    downsample,
    sampled_steps,
)

DEFAULT_EXPERIMENT = "Default"
MODEL_HISTORY = "mlflow.log-model.history"
VIEWS = {"ACTIVE_ONLY": ("active",), "DELETED_ONLY": ("deleted",), "ALL": ("active", "deleted")}


# Experiments


@internal
def ensure_default_experiment(unit: Unit) -> None:
    """Every workspace has an experiment `Default`, at first with the id 0 in the workspace `default`; it can be renamed and deleted."""
    if store.experiment_by_name(unit, DEFAULT_EXPERIMENT) is None:
        is_first = unit.workspace == "default" and store.get_experiment(unit, 0, bare=True) is None
        id = store.insert_experiment(unit, DEFAULT_EXPERIMENT, "", 0 if is_first else None)
        store.set_experiment(unit, id, artifact_location=default_location(id))


@internal
def default_location(id: int) -> str:
    return f"mlflow-artifacts:/{id}"


@requires("workspaces/experiments/write")
def create_experiment(unit: Unit, name: object, artifact_location: str = "", tags: dict[str, str] | None = None) -> str:
    name = check_experiment_name(name)
    if artifact_location and not artifact_location.startswith("mlflow-artifacts:"):
        raise Invalid(
            f"artifact_location {artifact_location[:80]!r} is outside this yard; leave it out",
            code="invalid_artifact_location",
        )
    if artifact_location and ("#" in artifact_location or "?" in artifact_location or ".." in artifact_location):
        raise Invalid("an artifact location carries no `#`, `?` or `..`", code="invalid_artifact_location")
    if store.experiment_by_name(unit, name) is not None:
        raise AlreadyExists(f"Experiment(name={name}) already exists.")
    id = store.insert_experiment(unit, name, "")
    store.set_experiment(unit, id, artifact_location=artifact_location or default_location(id))
    for key, value in (tags or {}).items():
        store.put_experiment_tag(unit, id, check_key("tag", key), check_text("Tag value", value, MAX_EXPERIMENT_TAG))
    unit.record("experiment.created", name, id=str(id))
    return str(id)


@internal
def ensure_experiment(unit: Unit, name: str) -> Experiment:
    """The experiment of this name, created when there is none: what a job's `experiment_name` means."""
    check_experiment_name(name)
    experiment = store.experiment_by_name(unit, name)
    if experiment is None:
        id = store.insert_experiment(unit, name, "")
        store.set_experiment(unit, id, artifact_location=default_location(id))
        unit.record("experiment.created", name, id=str(id))
        experiment = store.experiment_by_name(unit, name)
        assert experiment is not None
    return experiment


@requires("workspaces/experiments/read")
def get_experiment(unit: Unit, id: str) -> Experiment:
    return _experiment(unit, id)


def _experiment(unit: Unit, id: object, *, bare: bool = False) -> Experiment:
    if not str(id).isdigit() or len(str(id)) > 18:
        raise Invalid(f"Invalid experiment ID '{str(id)[:80]}'. Experiment ID must be a valid integer.", code="invalid_experiment_id")
    experiment = store.get_experiment(unit, int(str(id)), bare=bare)
    if experiment is None:
        raise NotFound(f"No Experiment with id={str(id)[:80]} exists")
    return experiment


@requires("workspaces/experiments/read")
def get_experiment_by_name(unit: Unit, name: str) -> Experiment:
    experiment = store.experiment_by_name(unit, name)
    if experiment is None:
        raise NotFound(f"Could not find experiment with name '{name}'")
    return experiment


@requires("workspaces/experiments/write")
def update_experiment(unit: Unit, id: str, name: object) -> None:
    experiment = _active_experiment(unit, id)
    check_made_by(unit, experiment, "rename an experiment")
    name = check_experiment_name(name)
    if name != experiment.name and store.experiment_by_name(unit, name):
        raise AlreadyExists(f"Experiment(name={name}) already exists.")
    store.set_experiment(unit, int(experiment.id), name=name)


@internal
def any_experiment(unit: Unit, id: object) -> Experiment:
    """An experiment that is active or deleted. Raises NotFound."""
    return _experiment(unit, id, bare=True)


def _active_experiment(unit: Unit, id: object) -> Experiment:
    experiment = _experiment(unit, id, bare=True)
    if experiment.lifecycle != "active":
        raise Invalid(
            f"The experiment {experiment.id} must be in the 'active' state. Current state is {experiment.lifecycle}.",
            code="experiment_deleted",
        )
    return experiment


@requires("workspaces/experiments/delete")
def delete_experiment(unit: Unit, id: str) -> None:
    experiment = _experiment(unit, id, bare=True)
    if experiment.lifecycle != "active":
        raise NotFound(f"No Experiment with id={experiment.id} exists: it is deleted already", code="experiment_deleted")
    store.set_experiment(unit, int(experiment.id), lifecycle="deleted", deleted_ms=unit.now)
    store.set_runs_lifecycle(unit, int(experiment.id), "deleted")
    unit.record("experiment.deleted", experiment.name, id=experiment.id)


@requires("workspaces/experiments/write")
def restore_experiment(unit: Unit, id: str) -> None:
    experiment = _experiment(unit, id)
    check_made_by(unit, experiment, "restore an experiment")
    if experiment.lifecycle == "active":
        raise NotFound(f"No deleted Experiment with id={experiment.id} exists: it is active", code="experiment_active")
    if store.experiment_by_name(unit, experiment.name):
        raise AlreadyExists(
            f"Experiment(name={experiment.name}) was made again since this one was deleted.", hint="Rename that one, then restore this one."
        )
    store.set_experiment(unit, int(experiment.id), lifecycle="active", deleted_ms=0)
    store.set_runs_lifecycle(unit, int(experiment.id), "active")
    unit.record("experiment.restored", experiment.name, id=experiment.id)


@requires("workspaces/experiments/write")
def set_experiment_tag(unit: Unit, id: str, key: object, value: object) -> None:
    experiment = _active_experiment(unit, id)
    check_made_by(unit, experiment, "tag an experiment")
    store.put_experiment_tag(unit, int(experiment.id), check_key("tag", key), check_text("Tag value", value, MAX_EXPERIMENT_TAG))


@requires("workspaces/experiments/write")
def delete_experiment_tag(unit: Unit, id: str, key: str) -> None:
    experiment = _active_experiment(unit, id)
    check_made_by(unit, experiment, "tag an experiment")
    if not store.delete_experiment_tag(unit, int(experiment.id), key):
        raise NotFound(f"No tag with name: {key} in experiment with id {experiment.id}")


@requires("workspaces/experiments/read")
def search_experiments(
    unit: Unit, filter: str | None, order: list[str] | None, view: str, limit: int, token: str | None
) -> Page[Experiment]:
    conditions, orders = filters.parse_filter(filter), filters.parse_order(order)
    return store.search_experiments(unit, conditions, orders, _view(view), check_limit(limit, 50_000), token)


def _view(view: str) -> tuple[str, ...]:
    if view not in VIEWS:
        raise Invalid(f"Invalid view type {view[:40]!r}; it must be one of {', '.join(VIEWS)}", code="invalid_view")
    return VIEWS[view]


# Runs


@requires("workspaces/experiments/runs/write")
def create_run(
    unit: Unit, experiment_id: object, *, user: str = "", name: str = "", start_ms: int | None = None, tags: dict[str, str] | None = None
) -> Run:
    """A run as an MLflow client creates it; its id is 32 hexadecimal digits.

    What a job creates is a child of its own run. What it logs outside any run belongs into its own run: no other is created for that.
    """
    experiment = _active_experiment(unit, experiment_id)
    checked = {check_key("tag", key): check_text("Tag value", value, MAX_TAG) for key, value in (tags or {}).items()}
    tag_name = checked.get("mlflow.runName", "")
    if name and tag_name and name != tag_name:
        raise Invalid(
            f"Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different values ('{name}' and '{tag_name}')."
        )
    own = store.run_row(unit, unit.actor.run) if unit.actor.run is not None else None
    outside_a_run = checked.pop(OUTSIDE_A_RUN, "") != ""
    if own is not None and own.lifecycle == "active":
        if outside_a_run and own.experiment_id == experiment.id:
            store.fill(unit, [own])
            return own
        checked = {**_of_job(unit, own, experiment), **checked}
    name = check_text("Run name", name or tag_name or ids.run_name(), MAX_TAG)
    _check_parent(unit, checked)
    # The client of a job sends the user that the command runs as; the run is the submitter's.
    user = unit.actor.submitter or user or unit.actor.name
    return _insert_run(unit, ids.hex32(), experiment, name, user, RunState.RUNNING, start_ms, checked)


def _of_job(unit: Unit, own: Run, experiment: Experiment) -> dict[str, str]:
    """Tags of a run that a job creates, where the job does not say otherwise: whose child it is, and a note when it stands elsewhere."""
    tags = {PARENT: own.id}
    if own.experiment_id != experiment.id:
        home = _experiment(unit, own.experiment_id, bare=True)
        tags[NOTE] = f"Made by job {own.id} of experiment {home.name}, whose child it is."
    return tags


def _insert_run(
    unit: Unit, id: str, experiment: Experiment, name: str, user: str, status: str, start_ms: int | None, tags: dict[str, str]
) -> Run:
    start_ms = unit.now if start_ms is None else _millis("start_time", start_ms)
    key = store.insert_run(
        unit, id=id, experiment_id=int(experiment.id), name=name, status=status, start_ms=start_ms, user=user, owner=unit.actor.id
    )
    all_tags = {**tags, "mlflow.runName": name, "mlflow.user": user}
    store.put_tags(unit, key, all_tags)
    return Run(key, id, experiment.id, name, status, start_ms, None, "active", user, unit.actor.id, tags=all_tags)


@internal
def create_job_run(unit: Unit, id: str, experiment_name: str, display_name: str, tags: dict[str, str], user: str) -> Run:
    """The run of a job, under the job's name. Raises AlreadyExists when a run or job has that name."""
    check_new_run_id(id)
    check_id_free(unit, id)
    experiment = ensure_experiment(unit, experiment_name)
    return _insert_run(unit, id, experiment, display_name, user, RunState.SCHEDULED, None, tags)


@internal
def place_job_run(unit: Unit, id: str, experiment_name: str) -> None:
    """A job that starts finds its run in an experiment that is there: in the one that it was submitted to, whatever that is called now, or
    when that was deleted meanwhile, in the one of that name, created anew."""
    run = store.run_row(unit, id)
    if run is None or _experiment(unit, run.experiment_id, bare=True).lifecycle == "active":
        return
    store.move_run(unit, run.key, int(ensure_experiment(unit, experiment_name).id))
    unit.record("run.moved", id, experiment=experiment_name)


@internal
def experiment_of(unit: Unit, id: str) -> Experiment:
    """The experiment of a run. Raises NotFound."""
    run = store.run_row(unit, id)
    if run is None:
        raise _no_run(id)
    return _experiment(unit, run.experiment_id, bare=True)


@internal
def check_id_free(unit: Unit, id: str) -> None:
    """Ids of runs are unique in the whole yard. Raises AlreadyExists."""
    if not store.run_id_is_free(unit, id):
        raise AlreadyExists(f"there is a job or run {id} already, in this workspace or another")


@internal
def set_job_run(unit: Unit, id: str, status: str, start_ms: int | None = None, end_ms: int | None = None) -> None:
    """Set the run to the job's state. With the job end the runs that it has made and left unfinished."""
    run = store.run_row(unit, id)
    if run is None:
        return
    values: dict[str, Any] = {"status": status, "end_ms": end_ms}
    if start_ms is not None:
        values["start_ms"] = start_ms
    store.set_run(unit, run.key, **values)
    if end_ms is not None:
        for child in _below(unit, id):
            if child.status == RunState.RUNNING and child.owner == job_principal(id):
                store.set_run(unit, child.key, status=status, end_ms=end_ms)


@internal
def children_of(unit: Unit, id: str) -> list[str]:
    """The runs that hang under a run, oldest first."""
    return [child.id for child in store.children(unit, id)]


def _below(unit: Unit, id: str) -> list[Run]:
    """Children of a run, their children and so on, each once, MAX_BELOW at most; those of one run in the order in which they were made."""
    found: dict[str, Run] = {}
    parents = [id]
    while parents and len(found) < MAX_BELOW:
        below = [child for parent in parents for child in store.children(unit, parent) if child.id not in found and child.id != id]
        found.update((child.id, child) for child in below)
        parents = [child.id for child in below]
    return list(found.values())[:MAX_BELOW]


@internal
def logged_values(unit: Unit, id: str) -> tuple[dict[str, list[tuple[int, float, bool]]], dict[str, str]]:
    """Every point of every metric of a job's run, (step, value, is NaN) in the order of steps, and its params.

    Those of the runs that the job has made follow as `run 1: loss`, numbered by what they logged: their names and times are of no meaning.
    """
    run = store.run_row(unit, id)
    if run is None:
        return {}, {}
    made = [child for child in _below(unit, id) if child.owner == job_principal(id)]
    store.fill(unit, [run, *made])
    made.sort(key=lambda child: (sorted(child.params.items()), [(point.key, point.step, point.value) for point in child.metrics]))
    points: dict[str, list[tuple[int, float, bool]]] = {}
    params: dict[str, str] = {}
    for number, item in enumerate([run, *made]):
        label = f"run {number}: " if number else ""
        params |= {f"{label}{key}": value for key, value in item.params.items()}
        for point in item.metrics:
            if number and point.key.startswith(SYSTEM_METRIC):
                continue
            history = store.metric_history(unit, item.key, point.key, MAX_HISTORY)
            points[f"{label}{point.key}"] = [(step, value, bool(nan)) for step, _, value, nan in history]
    return points, params


@internal
def metric_points(unit: Unit, id: str, key: str) -> list[float]:
    """The values of a metric in the order of steps, NaN included: of the run, or when it has none, of the runs below it, one after another."""
    run = store.run_row(unit, id)
    if run is None:
        return []
    own = store.metric_history(unit, run.key, key, MAX_HISTORY)
    points = own or [point for child in _below(unit, id) for point in store.metric_history(unit, child.key, key, MAX_HISTORY)]
    return [math.nan if nan else value for _, _, value, nan in points]


@internal
def logged_names(unit: Unit, id: str) -> list[str]:
    """Names of the metrics that a run and those below it have; what the yard itself measures is left out."""
    run = store.run_row(unit, id)
    runs = [run, *_below(unit, id)] if run is not None else []
    store.fill(unit, runs)
    return sorted({point.key for item in runs for point in item.metrics if not point.key.startswith(SYSTEM_METRIC)})


@internal
def put_job_metrics(unit: Unit, id: str, points: Sequence[Metric]) -> None:
    """Store metrics that the yard itself measured of a job."""
    run = store.run_row(unit, id)
    if run is not None:
        store.put_metrics(unit, run, points)


@internal
def find_run(unit: Unit, id: str) -> Run | None:
    return store.get_run(unit, id)


@requires("workspaces/experiments/runs/read")
def get_run(unit: Unit, id: object) -> Run:
    run = store.get_run(unit, check_run_id(id))
    if run is None:
        raise _no_run(id)
    return run


def _no_run(id: object) -> NotFound:
    return NotFound(f"Run with id={str(id)[:80]} not found")


def _writable(unit: Unit, id: object) -> Run:
    """The run, when it is active and the actor may write it. Every write to a run goes through here."""
    run = store.run_row(unit, check_run_id(id))
    if run is None:
        raise _no_run(id)
    check_run_owner(unit.actor, run)
    if run.lifecycle != "active":
        raise Invalid(f"The run {run.id} must be in the 'active' state. Current state is {run.lifecycle}.", code="run_deleted")
    return run


def check_run_owner(actor: Actor, run: Run) -> None:
    """A job's token writes its own run and the runs it made (children), and no other run."""
    if actor.bound_to is not None and run.id != actor.bound_to and run.owner != actor.id:
        raise Forbidden(f"job {actor.bound_to} may write its own run and its children, not {run.id}", hint=AS_SUBMITTER_HINT)


@requires("workspaces/experiments/runs/write")
def update_run(unit: Unit, id: object, *, status: str | int | None = None, end_ms: int | None = None, name: str | None = None) -> Run:
    """The status of a job's run is the job's, whatever the job's scripts say of it: it runs until the job has ended."""
    run = _writable(unit, id)
    values: dict[str, Any] = {}
    if status is not None:
        values["status"] = RunState.of(status)
    if end_ms is not None:
        values["end_ms"] = _millis("end_time", end_ms)
    if run.id == unit.actor.run:
        values = {}
    if name:
        values["name"] = check_text("Run name", name, MAX_TAG)
        store.put_tags(unit, run.key, {"mlflow.runName": name})
    store.set_run(unit, run.key, **values)
    updated = store.run_row(unit, run.id)
    assert updated is not None
    return updated


def _millis(what: str, value: int) -> int:
    if not 0 <= value < 2**63:
        raise Invalid(f"{what} is milliseconds since 1970, not {value}", code="invalid_time")
    return value


@requires("workspaces/experiments/runs/write")
def delete_run(unit: Unit, id: object) -> None:
    """Idempotent: deleting a deleted run changes nothing."""
    run = store.run_row(unit, check_run_id(id))
    if run is None:
        raise _no_run(id)
    check_run_owner(unit.actor, run)
    if run.lifecycle == "deleted":
        return
    store.set_run(unit, run.key, lifecycle="deleted", deleted_ms=unit.now)
    unit.record("run.deleted", run.id)


@requires("workspaces/experiments/runs/write")
def restore_run(unit: Unit, id: object) -> None:
    run = store.run_row(unit, check_run_id(id))
    if run is None:
        raise _no_run(id)
    check_run_owner(unit.actor, run)
    if run.lifecycle == "active":
        return
    store.set_run(unit, run.key, lifecycle="active", deleted_ms=None)
    unit.record("run.restored", run.id)


@requires("workspaces/experiments/runs/write")
def log_batch(unit: Unit, id: object, points: Sequence[Metric], params: Sequence[tuple[str, str]], tags: Sequence[tuple[str, str]]) -> None:
    """All or nothing, as MLflow: params are written once, tags overwrite, points that are stored already change nothing."""
    run = _writable(unit, id)
    for what, sent in (("metrics", points), ("params", params), ("tags", tags)):
        if len(sent) > MAX_BATCH[what]:
            raise Invalid(
                f"A batch logging request can contain at most {MAX_BATCH[what]} {what}. Got {len(sent)} {what}.", code="batch_too_large"
            )
    if len(points) + len(params) + len(tags) > MAX_BATCH["entities"]:
        raise Invalid(
            f"A batch logging request can contain at most {MAX_BATCH['entities']} metrics, params, and tags in total.",
            code="batch_too_large",
        )
    if params:
        _put_params(unit, run, params)
    if points:
        _put_metrics(unit, run, points)
    if tags:
        _put_tags(unit, run, dict(tags))


def _put_params(unit: Unit, run: Run, params: Sequence[tuple[str, str]]) -> None:
    # MLflow cuts long values of params and tags instead of refusing them: autologging sends whole documents.
    values = {check_key("param", key): check_text("Param value", str(value)[:MAX_PARAM], MAX_PARAM) for key, value in params}
    if len(values) != len(params):
        raise Invalid(f"Duplicate parameter keys have been submitted: {sorted(key for key, _ in params)[:10]}", code="duplicate_param")
    for key, value in store.existing_params(unit, run.key, list(values)).items():
        if values[key] != value:
            raise Invalid(
                f"Changing param values is not allowed. Param with key='{key}' was already logged with value='{value[:200]}' for run ID='{run.id}'. "
                f"Attempted logging new value '{values[key][:200]}'.",
                code="param_changed",
            )
    store.put_params(unit, run.key, values)


def _check_parent(unit: Unit, tags: dict[str, str]) -> None:
    """Raises Forbidden for a job's own token that would hang a run under one that is not the job's."""
    parent = store.run_row(unit, tags[PARENT]) if unit.actor.bound_to is not None and tags.get(PARENT) else None
    if parent is not None:
        check_run_owner(unit.actor, parent)


def _put_tags(unit: Unit, run: Run, tags: dict[str, str]) -> None:
    values = {check_key("tag", key): check_text("Tag value", str(value)[:MAX_TAG], MAX_TAG) for key, value in tags.items()}
    _check_parent(unit, values)
    store.put_tags(unit, run.key, values)
    if values.get("mlflow.runName"):
        store.set_run(unit, run.key, name=values["mlflow.runName"])


@requires("workspaces/experiments/runs/write")
def log_metric(unit: Unit, id: object, point: Metric) -> None:
    _put_metrics(unit, _writable(unit, id), [point])


def _put_metrics(unit: Unit, run: Run, points: Sequence[Metric]) -> None:
    store.put_metrics(unit, run, points)
    models = {point.model_id for point in points if point.model_id}
    if models:
        for id in sorted(models):
            _logged_model(unit, id)
        store.put_logged_model_metrics(unit, run.id, points)


@requires("workspaces/experiments/runs/write")
def log_param(unit: Unit, id: object, key: str, value: str) -> None:
    _put_params(unit, _writable(unit, id), [(key, value)])


@requires("workspaces/experiments/runs/write")
def set_tag(unit: Unit, id: object, key: str, value: str) -> None:
    _put_tags(unit, _writable(unit, id), {key: value})


@requires("workspaces/experiments/runs/write")
def log_model_record(unit: Unit, id: object, text: str) -> None:
    """Add a model's description (the JSON of its MLmodel file) to the run's history of logged models."""
    run = _writable(unit, id)
    try:
        record = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise Invalid(f"Malformed model info. \n {text[:200]} \n is not valid JSON.", code="invalid_model_json") from None
    missing = {"artifact_path", "flavors", "utc_time_created", "run_id"} - set(record if isinstance(record, dict) else ())
    if missing:
        raise Invalid(f"Model json is missing mandatory fields: {sorted(missing)}", code="invalid_model_json")
    earlier = store.tag(unit, run.key, MODEL_HISTORY)
    history = [*(orjson.loads(earlier) if earlier else []), record]
    store.put_tags(unit, run.key, {MODEL_HISTORY: check_text("model history", orjson.dumps(history).decode(), 10 * MAX_TAG)})


@requires("workspaces/experiments/runs/write")
def delete_tag(unit: Unit, id: object, key: str) -> None:
    run = _writable(unit, id)
    if not store.delete_tag(unit, run.key, key):
        raise NotFound(f"No tag with name: {key} in run with id {run.id}")


@requires("workspaces/experiments/runs/write")
def log_inputs(unit: Unit, id: object, datasets: Sequence[dict[str, Any]], models: Sequence[str]) -> None:
    """Datasets `{dataset: {name, digest, source_type, source, schema?, profile?}, tags: [...]}` and ids of input models."""
    run = _writable(unit, id)
    if len(datasets) + len(models) > 1000:
        raise Invalid("log-inputs takes 1000 datasets and models at most", code="batch_too_large")
    store.put_inputs(unit, run.key, input_rows(datasets, models))


@internal
def input_rows(datasets: Sequence[dict[str, Any]], models: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for item in datasets:
        dataset = item.get("dataset")
        if not isinstance(dataset, dict):
            raise Invalid("a dataset input needs a dataset", code="invalid_dataset")
        name = check_text("Dataset name", dataset.get("name"), 500)
        digest = check_text("Dataset digest", dataset.get("digest"), 36)
        source = check_text("Dataset source", dataset.get("source"), 2**16 - 1)
        if not (name and digest and source and dataset.get("source_type")):
            raise Invalid("a dataset needs name, digest, source_type and source", code="invalid_dataset")
        check_text("Dataset schema", dataset.get("schema"), 2**20 - 1)
        check_text("Dataset profile", dataset.get("profile"), 2**24 - 1)
        tags = [tag for tag in item.get("tags") or [] if isinstance(tag, dict)]
        context = next((str(tag.get("value")) for tag in tags if tag.get("key") == "mlflow.data.context"), "")
        document = {"dataset": dataset, "tags": tags}
        rows.append({"kind": "dataset", "name": name, "digest": digest, "context": context, "document": document})
    rows += [{"kind": "model_input", "name": id, "digest": "", "context": "", "document": {"model_id": id}} for id in models]
    return rows


@requires("workspaces/experiments/runs/write")
def log_outputs(unit: Unit, id: object, models: list[tuple[str, int]]) -> None:
    """Link logged models (id, step) to the run that made them."""
    run = _writable(unit, id)
    rows = []
    for model_id, step in models:
        logged = _logged_model(unit, model_id)
        document = {"model_id": logged.id, "step": step}
        rows.append({"kind": "model_output", "name": logged.id, "digest": "", "context": str(step), "document": document})
    store.put_inputs(unit, run.key, rows)


@requires("workspaces/experiments/runs/read")
def metric_history(unit: Unit, id: object, key: str, limit: int | None, token: str | None) -> Page[Point]:
    run = store.run_row(unit, check_run_id(id))
    if run is None:
        return Page([])  # as MLflow answers
    position = decode_token(token, 3)
    after = None
    if position:
        if not all(isinstance(part, (int, float)) for part in position):
            raise Invalid("the page token is not one this server issued; start again without it", code="invalid_page_token")
        after = (int(position[0]), int(position[1]), float(position[2]))
    if limit is None:
        return Page(store.metric_history(unit, run.key, key, MAX_HISTORY, after))
    history = store.metric_history(unit, run.key, key, check_limit(limit, MAX_HISTORY) + 1, after)
    return Page(history[:limit], encode_token(list(history[limit - 1][:3])) if len(history) > limit else None)


@requires("workspaces/experiments/runs/read")
def charted_history(unit: Unit, id: object, key: str, max_points: int) -> list[Point]:
    """The history of a metric in at most `max_points` points that keep its peaks, for charts of a million points."""
    run = store.run_row(unit, check_run_id(id))
    if run is None:
        raise _no_run(id)
    if not 4 <= max_points <= 100_000:
        raise Invalid(f"points is a number from 4 to 100000, not {max_points}", code="invalid_points")
    return downsample(store.metric_history(unit, run.key, check_key("metric", key), MAX_HISTORY), max_points)


@requires("workspaces/experiments/runs/read")
def histories(unit: Unit, ids: Sequence[object], key: str) -> dict[str, list[Point]]:
    """run id → history of the metric, ordered by time. Runs that do not exist are left out, as in MLflow."""
    runs = (store.run_row(unit, check_run_id(id)) for id in ids)
    return {run.id: sorted(store.metric_history(unit, run.key, key, 25_000), key=itemgetter(1, 0, 2)) for run in runs if run}


@requires("workspaces/experiments/runs/read")
def sampled_histories(unit: Unit, ids: Sequence[object], key: str, max_steps: int, first: int, last: int) -> dict[str, list[Point]]:
    """Points of several runs at the same steps: `max_steps` steps spread evenly over all that occur, and each run's first and last."""
    by_run = {}
    for id in ids:
        run = store.run_row(unit, check_run_id(id))
        if run is not None:
            by_run[run.id] = store.metric_history(unit, run.key, key, MAX_HISTORY, first=first, last=last)
    steps = sampled_steps([[point[0] for point in points] for points in by_run.values()], max_steps)
    return {id: [point for point in points if point[0] in steps] for id, points in by_run.items()}


@requires("workspaces/experiments/runs/read")
def dataset_summaries(unit: Unit, experiment_ids: Sequence[object]) -> list[dict[str, str]]:
    """The datasets that the experiments' runs used: `{experiment_id, name, digest, context}`."""
    return store.dataset_summaries(unit, experiment_numbers(experiment_ids))


@requires("workspaces/experiments/runs/read")
def search_runs(
    unit: Unit, experiment_ids: Sequence[object], filter: str | None, order: list[str] | None, view: str, limit: int, token: str | None
) -> Page[Run]:
    conditions, orders, lifecycles = filters.parse_filter(filter), filters.parse_order(order), _view(view)
    page = store.search_runs(unit, experiment_numbers(experiment_ids), conditions, orders, lifecycles, check_limit(limit, 50_000), token)
    store.fill(unit, page.items)
    return page


@requires("workspaces/experiments/runs/read")
def select_runs(
    unit: Unit, experiments: Sequence[str] | None, filter: str | None, order: list[str] | None, view: str, limit: int, token: str | None,
    columns: Sequence[str] | None,
) -> Page[Run]:  # fmt: skip
    """Runs of the named experiments, or of all in the workspace, with the requested columns, or with all that was logged."""
    conditions, orders, lifecycles = filters.parse_filter(filter), filters.parse_order(order), _view(view)
    parts = [column_parts(name) for name in columns or ()]
    page = store.search_runs(unit, _named_experiments(unit, experiments), conditions, orders, lifecycles, check_limit(limit, 50_000), token)
    if columns:
        store.keep_columns(unit, page.items, parts)
    else:
        store.fill(unit, page.items)
    return page


def _named_experiments(unit: Unit, names: Sequence[str] | None) -> list[int]:
    numbers = store.all_experiments(unit, names)
    missing = [name for name in names or () if name not in numbers]
    if missing:
        raise NotFound(f"there is no experiment {', '.join(missing)[:200]}", hint="`yard experiment list` shows them.")
    return list(numbers.values())


@requires("workspaces/experiments/runs/read")
def count_runs(unit: Unit, experiments: Sequence[str] | None, filter: str | None, view: str) -> int:
    return store.count_runs(unit, _named_experiments(unit, experiments), filters.parse_filter(filter), _view(view))


@requires("workspaces/experiments/runs/read")
def group_runs(
    unit: Unit, experiments: Sequence[str] | None, filter: str | None, over: Sequence[str], by: Sequence[str], ignore: Sequence[str]
) -> list[dict[str, Any]]:
    """Metrics `over` runs that agree in `by` (params.x, tags.y), or in all their params but `ignore`: mean and spread over seeds."""
    measured = [name.removeprefix("metrics.") for name in over]
    keys = [column_parts(name) for name in by]
    ignored = {name.removeprefix("params.") for name in ignore}
    if not measured or bool(by) == bool(ignore):
        raise Invalid("name the metrics (over), and either what the runs agree in (by) or what they may differ in (ignore)")
    ids = _named_experiments(unit, experiments)
    page = store.search_runs(unit, ids, filters.parse_filter(filter), (), ("active",), MAX_GROUPED, None)
    if page.next_token:
        raise LimitExceeded(f"{MAX_GROUPED} runs at most are grouped; narrow the filter", code="too_many_runs")
    if by:
        store.keep_columns(unit, page.items, [*keys, *(("metrics", name) for name in measured)])
    else:
        store.fill(unit, page.items)
    groups: dict[tuple[Any, ...], Group] = {}
    for run in page.items:
        if by:
            values = {name: (run.params if part == "params" else run.tags).get(key) for name, (part, key) in zip(by, keys, strict=True)}
        else:
            values = {f"params.{key}": value for key, value in sorted(run.params.items()) if key not in ignored}
        group = groups.setdefault(tuple(values.items()), Group(values))
        group.runs.append(run.id)
        for point in run.metrics:
            if point.key in measured and not point.is_nan:
                group.metrics.setdefault(point.key, []).append(point.value)
    return [group.document() for group in groups.values()]


@requires("workspaces/experiments/delete")
def purge_run(unit: Unit, id: object) -> None:
    """Remove a run for good: its rows, its artifacts, the models it logged. Raises Conflict while a resource holds it."""
    run = store.run_row(unit, check_run_id(id))
    if run is None:
        raise _no_run(id)
    references.check_free(unit, "job", run.id)
    for model in store.purge_run(unit, run):
        files.delete_files(unit, ARTIFACTSTORE, logged_model_place(model).path)
    files.forget_run(unit, run.id)
    references.release(unit, "job", run.id)
    unit.record("run.purged", run.id)


@internal
def purge_deleted(unit: Unit, before_ms: int, limit: int) -> list[tuple[str, str]]:
    """Deleted runs whose retention is over: (workspace, run id), oldest first."""
    return store.deleted_before(unit, before_ms, limit)


@internal
def purge_experiments(unit: Unit, before_ms: int) -> int:
    return store.purge_experiments(unit, before_ms)


def experiment_numbers(experiment_ids: Sequence[object]) -> list[int]:
    for id in experiment_ids:
        if not str(id).isdigit() or len(str(id)) > 18:
            raise Invalid(f"Invalid experiment ID '{str(id)[:80]}'. Experiment ID must be a valid integer.", code="invalid_experiment_id")
    return [int(str(id)) for id in experiment_ids]


# Logged models (MLflow 3)


@requires("workspaces/experiments/runs/write")
def create_logged_model(
    unit: Unit, experiment_id: object, *, name: str, model_type: str, run_id: str | None, params: dict[str, str], tags: dict[str, str]
) -> LoggedModel:
    experiment = _active_experiment(unit, experiment_id)
    run_id = run_id or unit.actor.run  # a job logs to its own run, even outside `start_run`
    if name and (len(name) > 250 or any(char in name for char in "/:.%\"'")):
        raise Invalid(f"Invalid model name {name[:80]!r}: it must not contain / : . % \" '", code="invalid_name")
    if run_id:
        _writable(unit, run_id)
    id = f"m-{ids.hex32()}"
    store.insert_logged_model(
        unit, id=id, experiment_id=int(experiment.id), run_id=run_id or None, name=name or ids.run_name(),
        model_type=model_type, status="LOGGED_MODEL_PENDING", status_message="", params=params, tags=tags,
    )  # fmt: skip
    if run_id and name:
        files.name_output(unit, run_id, name, "mlflow_model", logged_model_place(id))
    return _logged_model(unit, id)


@requires("workspaces/experiments/runs/read")
def get_logged_model(unit: Unit, id: str) -> LoggedModel:
    return _logged_model(unit, id)


def _logged_model(unit: Unit, id: str) -> LoggedModel:
    model = store.get_logged_model(unit, id)
    if model is None:
        raise NotFound(f"Logged model with ID '{id[:80]}' not found.")
    return model


def _writable_model(unit: Unit, id: str) -> LoggedModel:
    model = _logged_model(unit, id)
    if unit.actor.bound_to is not None and model.owner != unit.actor.id:
        run = store.run_row(unit, model.run_id) if model.run_id else None
        if run is None:
            raise Forbidden(f"job {unit.actor.run} may not change the logged model {id}")
        check_run_owner(unit.actor, run)
    return model


@requires("workspaces/experiments/runs/write")
def check_model_writable(unit: Unit, id: str) -> LoggedModel:
    """Raises Forbidden when the actor may not write the logged model's files."""
    return _writable_model(unit, id)


@requires("workspaces/experiments/runs/write")
def finalize_logged_model(unit: Unit, id: str, status: str, message: str = "") -> LoggedModel:
    _writable_model(unit, id)
    if status not in ("LOGGED_MODEL_READY", "LOGGED_MODEL_UPLOAD_FAILED", "LOGGED_MODEL_PENDING", "READY", "FAILED"):
        raise Invalid(f"Invalid model status {status[:40]!r}", code="invalid_status")
    store.set_logged_model(unit, id, status=status, status_message=message)
    return _logged_model(unit, id)


@requires("workspaces/experiments/runs/write")
def set_logged_model_tags(unit: Unit, id: str, tags: dict[str, str]) -> LoggedModel:
    model = _writable_model(unit, id)
    checked = {check_key("tag", key): check_text("Tag value", value, MAX_TAG) for key, value in tags.items()}
    store.set_logged_model(unit, id, tags={**model.tags, **checked})
    return _logged_model(unit, id)


@requires("workspaces/experiments/runs/write")
def delete_logged_model_tag(unit: Unit, id: str, key: str) -> None:
    model = _writable_model(unit, id)
    if key not in model.tags:
        raise NotFound(f"No tag with key {key!r} found for model with ID {id!r}.")
    store.set_logged_model(unit, id, tags={k: v for k, v in model.tags.items() if k != key})


@requires("workspaces/experiments/runs/write")
def log_logged_model_params(unit: Unit, id: str, params: dict[str, str]) -> None:
    model = _writable_model(unit, id)
    for key, value in params.items():
        if model.params.get(key, value) != value:
            raise Invalid(
                f"Changing param values is not allowed. Param {key!r} of model {id} is {model.params[key]!r}.", code="param_changed"
            )
    store.set_logged_model(unit, id, params={**model.params, **params})


@requires("workspaces/experiments/runs/write")
def delete_logged_model(unit: Unit, id: str) -> None:
    _writable_model(unit, id)
    store.set_logged_model(unit, id, lifecycle="deleted")


@requires("workspaces/experiments/runs/read")
def search_logged_models(
    unit: Unit, experiment_ids: Sequence[object], filter: str | None, order: list[str], limit: int, token: str | None,
    datasets: Sequence[str] = (),
) -> Page[LoggedModel]:  # fmt: skip
    """`datasets` (as `dataset_key` writes them) narrow which metrics the filter and the order look at."""
    conditions, orders = filters.parse_filter(filter), filters.parse_order(order)
    return offset_page(
        lambda size, offset: store.search_logged_models(
            unit, experiment_numbers(experiment_ids), conditions, orders, size, offset, datasets
        ),
        limit,
        100_000,
        token,
    )


@requires("workspaces/experiments/runs/write")
def check_artifact_writable(unit: Unit, run: str) -> Run:
    """Checked before an upload is read. Raises NotFound, Forbidden, Invalid."""
    return _writable(unit, run)

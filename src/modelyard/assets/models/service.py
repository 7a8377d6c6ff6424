"""Use cases of the registry."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...core.actor import check_made_by, internal, refuse_bound, requires
from ...core.errors import AlreadyExists, Invalid, NotFound
from ...core.names import check_name
from ...core.paging import Page, offset_page
from ...spec.fields import with_changes
from ...spec.model import Model
from ...spec.properties import ModelProperties, noted
from ...spec.references import AssetRef, DatastorePath, JobOutput, LocalPath, RunArtifact, parse_reference
from ...storage import filters
from ...storage.unit import Unit
from ...tenancy.workspaces import service as workspaces
from ..files import service as files
from ..files.model import Origin
from ..references import service as references
from . import store
from .model import STAGES, ModelVersion, RegisteredModel, check_alias, check_model_name, check_stage, check_tag

ANSWERED = ("id", "creation_context", "name", "version", "tags", "stage", "job_name", "content", "utc_time_created", "latest_version")


# Azure's view: versions of a name.


@requires("workspaces/models/write")
def create(unit: Unit, spec: Model) -> dict[str, Any]:
    """Register files as a version of a model; the model itself is created when it is new."""
    if not spec.name:
        raise Invalid("a model needs a name", code="invalid_name")
    check_name("asset", spec.name, "model")
    if spec.stage:
        refuse_bound(unit, "set the stage of a model")
    if not spec.path:
        raise Invalid("a model needs a path", hint="Paths: azureml://jobs/…, runs:/…, azureml://datastores/…, or a local one.")
    location, origin = _location_and_origin(unit, spec.path)
    if spec.version is not None:
        check_name("version", spec.version, "model version")
        earlier = store.get_version(unit, spec.name, spec.version)
        if earlier is not None:
            same = earlier.spec.path == str(location) and earlier.content in (None, _content(unit, str(location)))
            if same and earlier.spec.type == spec.type:
                return earlier.document()
            raise AlreadyExists(
                f"model {spec.name}:{spec.version} exists with other files",
                code="version_exists",
                hint="Leave the version out to make the next one.",
            )
    body = {key: value for key, value in spec.document().items() if key not in ANSWERED}
    body["path"], body["properties"] = str(location), ModelProperties.kept(spec.properties)
    model_version = _insert(
        unit, spec.name, spec.version, body, source=spec.path, origin=origin, model_id=None, stage=spec.stage, tags=spec.tags
    )
    return noted(model_version.document(), ModelProperties.check(spec.properties))


def _location_and_origin(unit: Unit, path: str) -> tuple[DatastorePath, Origin | None]:
    """Where the files of a path lie, and what they came from."""
    reference = parse_reference(path)
    origin = files.origin_of(unit, reference)
    if isinstance(reference, (JobOutput, RunArtifact)):
        reference = files.output_place(unit, reference)
    if isinstance(reference, AssetRef):
        version = resolve(unit, reference)
        origin = Origin(version.run_id) if version.run_id and not reference.registry else None
        return _location_and_origin(unit, version.path)[0], origin
    if isinstance(reference, LocalPath):
        raise Invalid(f"path {path!r} is local; upload it first", hint="`yard model create` and MLClient do that by themselves.")
    if not isinstance(reference, DatastorePath):
        raise Invalid(f"a model cannot be registered from {path!r}; upload its files first")
    if not files.files_at(unit, reference).files:
        raise NotFound(f"there is nothing at {reference}", code="path_not_found")
    return reference, origin


def _insert(
    unit: Unit, name: str, version: str | None, body: dict[str, Any], *, source: str, origin: Origin | None, model_id: str | None,
    stage: str | None = None, tags: dict[str, str] | None = None,
) -> ModelVersion:  # fmt: skip
    if not store.has_model(unit, name):
        store.insert_model(unit, name, "")
        unit.record("model.created", name)
    row = {
        "spec": body, "source": source, "run_id": origin.run if origin else None, "model_id": model_id, "status": "READY",
        "stage": check_stage(stage) if stage else "None", "content": _content(unit, body["path"]),
    }  # fmt: skip
    number = store.insert_version(unit, name, version, row)
    for key, value in (tags or {}).items():
        store.put_version_tag(unit, name, number, *check_tag(key, value))
    store.set_model(unit, name)
    if origin is not None:
        references.hold_makers(unit, "model", f"{name}:{number}", origin.run, origin.writer)
    unit.record("model.created", f"{name}:{number}", source=source, run=row["run_id"])
    return _version(unit, name, number)


def _content(unit: Unit, path: str) -> str | None:
    """Where a version's files stay as they are, whatever is written to its path later; None when that is the path itself.

    A run's artifacts can be written again, and so can a folder that jobs share.
    """
    location = parse_reference(path) if path else None
    if not isinstance(location, DatastorePath):
        return None
    try:
        pinned = files.pin(unit, location)
    except NotFound:
        return None
    return None if pinned == location else str(pinned)


@requires("workspaces/models/read")
def get(unit: Unit, ref: AssetRef) -> dict[str, Any]:
    return resolve(unit, ref).document()


@requires("workspaces/models/read")
def list_(unit: Unit, name: str | None, archived: bool | None) -> list[dict[str, Any]]:
    if name is None:
        return [version.document() for version in store.newest_of_each(unit, archived)]
    return [version.document() for version in store.versions_of(unit, name, archived)]


@requires("workspaces/models/write")
def update(unit: Unit, ref: AssetRef, changes: dict[str, Any]) -> dict[str, Any]:
    earlier = resolve(unit, ref)
    check_made_by(unit, earlier, "change a model version")
    if changes.get("stage") not in (None, earlier.stage):
        refuse_bound(unit, "set the stage of a model")
    before = earlier.document()
    allowed = ("description", "tags", "properties", "flavors", "stage")
    refused = [key for key, value in changes.items() if key not in allowed and before.get(key) != value]
    if refused:
        raise Invalid(f"{', '.join(refused)} of a model version cannot change; only {', '.join(allowed)} can")
    spec_changes = {key: value for key, value in changes.items() if key in ("description", "properties", "flavors")}
    spec = with_changes(Model, earlier.stored, spec_changes, name=earlier.name)
    store.set_version(unit, earlier.name, earlier.version, spec=spec)
    if isinstance(changes.get("tags"), dict):
        for key in set(earlier.tags) - set(changes["tags"]):
            store.delete_version_tag(unit, earlier.name, earlier.version, key)
        for key, value in changes["tags"].items():
            store.put_version_tag(unit, earlier.name, earlier.version, *check_tag(key, value))
    if changes.get("stage"):
        store.set_version(unit, earlier.name, earlier.version, stage=check_stage(changes["stage"]))
    unit.record("model.updated", f"{earlier.name}:{earlier.version}", fields=sorted(set(changes) & set(allowed)))
    return get(unit, AssetRef(earlier.name, earlier.version))


@requires("workspaces/models/write")
def set_archived(unit: Unit, name: str, version: str | None, archived: bool) -> None:
    if version is None:
        refuse_bound(unit, "archive all versions of a model")
    else:
        check_made_by(unit, _version(unit, name, version), "archive a model version")
    if not store.set_version(unit, name, version, archived=archived):
        raise _no_version(name, version)
    unit.record(f"model.{'archived' if archived else 'restored'}", name + (f":{version}" if version else ""))


@internal
def resolve(unit: Unit, ref: AssetRef) -> ModelVersion:
    """The version that `name:version`, `name@latest`, `name@alias` or a plain name (the newest) stands for."""
    if ref.registry:
        shared = workspaces.registry(unit, ref.registry)
        theirs = resolve(shared, replace(ref, registry=None))
        return replace(theirs, content=str(files.bring(shared, _own_location(theirs), unit)))
    if ref.version is not None:
        version = store.get_version(unit, ref.name, ref.version)
        if version is None and ref.version in ("None", "Staging", "Production", "Archived"):
            version = store.newest(unit, ref.name, stage=ref.version)
        if version is None:
            raise _no_version(ref.name, ref.version)
        return version
    if ref.label not in (None, "latest"):
        return version_by_alias(unit, ref.name, str(ref.label))
    version = store.newest(unit, ref.name)
    if version is None:
        raise _no_version(ref.name, None)
    return version


def _own_location(version: ModelVersion) -> DatastorePath:
    location = parse_reference(version.path)
    if not isinstance(location, DatastorePath):
        raise Invalid(f"the files of model {version.name}:{version.version} lie at {version.path}, not in this yard", code="not_shareable")
    return location


@requires("workspaces/models/read")
def share(unit: Unit, ref: AssetRef, registry: str, name: str | None, version: str | None) -> dict[str, Any]:
    """Make the same version in a registry, with the same files; where it came from stands in its properties."""
    original = resolve(unit, ref)
    shared = workspaces.registry(unit, registry)
    origin = f"azureml://workspaces/{unit.workspace}/models/{original.name}/versions/{original.version}"
    body = {
        **original.stored, "name": name or original.name, "version": version or original.version, "tags": original.tags,
        "path": str(files.bring(unit, _own_location(original), shared)),
        "properties": ModelProperties(shared_from=origin).over(original.spec.properties),
    }  # fmt: skip
    return create(shared, Model.model_validate(body))


def _no_version(name: str, version: str | None) -> NotFound:
    if version is None:
        return NotFound(f"Registered Model with name={name} not found", code="model_not_found", hint="`yard model list` shows them.")
    return NotFound(
        f"Model Version (name={name}, version={version}) not found", code="model_not_found", hint="`yard model list` shows them."
    )


# MLflow's view: registered models and their versions.


@requires("workspaces/models/write")
def create_registered(unit: Unit, name: object, description: str, tags: dict[str, str]) -> RegisteredModel:
    name = check_model_name(name)
    if store.has_model(unit, name):
        raise AlreadyExists(f"Registered Model (name={name}) already exists.")
    store.insert_model(unit, name, description)
    for key, value in tags.items():
        store.put_model_tag(unit, name, *check_tag(key, value))
    unit.record("model.created", name)
    return _registered(unit, name)


@requires("workspaces/models/read")
def get_registered(unit: Unit, name: str) -> RegisteredModel:
    return _registered(unit, name)


def _registered(unit: Unit, name: str) -> RegisteredModel:
    model = store.get_model(unit, name)
    if model is None:
        raise NotFound(f"Registered Model with name={name} not found", code="model_not_found")
    return _with_latest(unit, model)


def _with_latest(unit: Unit, model: RegisteredModel) -> RegisteredModel:
    newest = (store.newest(unit, model.name, stage=stage, archived=True) for stage in STAGES)
    return replace(model, latest=tuple(version for version in newest if version is not None))


@requires("workspaces/models/write")
def update_registered(unit: Unit, name: str, description: str) -> RegisteredModel:
    check_made_by(unit, _registered(unit, name), "describe a model")
    store.set_model(unit, name, description=description)
    unit.record("model.updated", name)
    return _registered(unit, name)


@requires("workspaces/models/write")
def rename_registered(unit: Unit, name: str, new: object) -> RegisteredModel:
    new = check_model_name(new)
    refuse_bound(unit, "rename a model")
    _registered(unit, name)
    references.check_free(unit, "model", name)
    if new != name and store.has_model(unit, new):
        raise AlreadyExists(f"Registered Model (name={new}) already exists.")
    store.rename(unit, name, new)
    references.renamed(unit, "model", name, new)
    unit.record("model.renamed", name, to=new)
    return _registered(unit, new)


@requires("workspaces/models/delete")
def delete_registered(unit: Unit, name: str) -> None:
    _registered(unit, name)
    references.check_free(unit, "model", name)
    for version in store.versions_of(unit, name, None):
        references.release(unit, "model", f"{name}:{version.version}")
    store.delete_model(unit, name)
    unit.record("model.deleted", name)


@requires("workspaces/models/read")
def search_registered(unit: Unit, filter: str | None, order: list[str] | None, limit: int, token: str | None) -> Page[RegisteredModel]:
    conditions, orders = filters.parse_filter(filter), filters.parse_order(order)
    page = offset_page(lambda size, offset: store.search_models(unit, conditions, orders, size, offset), limit, 1000, token)
    return replace(page, items=[_with_latest(unit, model) for model in page.items])


@requires("workspaces/models/write")
def create_version(
    unit: Unit,
    name: str,
    path: str,
    source: str,
    *,
    run_id: str | None,
    model_id: str | None,
    description: str,
    tags: dict[str, str],
) -> ModelVersion:
    """A version from MLflow: `source` as the client wrote it, `path` where its files lie; empty for a prompt."""
    _registered(unit, name)
    body: dict[str, Any] = {"type": "mlflow_model", "path": path}
    if description:
        body["description"] = description
    return _insert(unit, name, None, body, source=source, origin=Origin(run_id) if run_id else None, model_id=model_id, tags=tags)


@requires("workspaces/models/read")
def get_version(unit: Unit, name: str, version: str) -> ModelVersion:
    return _version(unit, name, version)


def _version(unit: Unit, name: str, version: str) -> ModelVersion:
    record = store.get_version(unit, name, str(version))
    if record is None:
        raise _no_version(name, str(version))
    return record


@requires("workspaces/models/write")
def update_version(unit: Unit, name: str, version: str, description: str) -> ModelVersion:
    earlier = _version(unit, name, version)
    check_made_by(unit, earlier, "describe a model version")
    store.set_version(unit, name, version, spec={**earlier.stored, "description": description})
    unit.record("model.updated", f"{name}:{version}")
    return _version(unit, name, version)


@requires("workspaces/models/delete")
def delete_version(unit: Unit, name: str, version: str) -> None:
    """Refused with the holder's name while a deployment uses the version."""
    _version(unit, name, version)
    references.check_free(unit, "model", name, version)
    references.release(unit, "model", f"{name}:{version}")
    store.delete_version(unit, name, version)
    store.set_model(unit, name)
    unit.record("model.deleted", f"{name}:{version}")


@requires("workspaces/models/write")
def transition_stage(unit: Unit, name: str, version: str, stage: object, archive_others: bool) -> ModelVersion:
    target = check_stage(stage)
    refuse_bound(unit, "set the stage of a model")
    _version(unit, name, version)
    if archive_others:
        if target not in ("Staging", "Production"):
            raise Invalid("Model version transition cannot archive existing model versions because the stage is not active")
        store.archive_stage(unit, name, target)
    store.set_version(unit, name, version, stage=target)
    store.set_model(unit, name)
    unit.record("model.staged", f"{name}:{version}", stage=target)
    return _version(unit, name, version)


@requires("workspaces/models/read")
def latest_versions(unit: Unit, name: str, stages: list[str]) -> list[ModelVersion]:
    _registered(unit, name)
    requested = [check_stage(stage) for stage in stages] or STAGES
    newest = (store.newest(unit, name, stage=stage, archived=True) for stage in requested)
    return [version for version in newest if version is not None]


@requires("workspaces/models/read")
def search_versions(unit: Unit, filter: str | None, order: list[str] | None, limit: int, token: str | None) -> Page[ModelVersion]:
    conditions, orders = filters.parse_filter(filter), filters.parse_order(order)
    return offset_page(lambda size, offset: store.search_versions(unit, conditions, orders, size, offset), limit, 200_000, token)


@requires("workspaces/models/write")
def set_alias(unit: Unit, name: str, alias: object, version: str) -> None:
    alias = check_alias(alias)
    _registered(unit, name)
    check_made_by(unit, _version(unit, name, version), "give an alias to a model version")
    _check_alias_free(unit, name, alias)
    store.put_alias(unit, name, alias, version)
    store.set_model(unit, name)
    unit.record("model.aliased", f"{name}:{version}", alias=alias)


@requires("workspaces/models/write")
def delete_alias(unit: Unit, name: str, alias: str) -> None:
    _registered(unit, name)
    _check_alias_free(unit, name, alias)
    store.delete_alias(unit, name, alias)
    unit.record("model.updated", name, alias_removed=alias)


def _check_alias_free(unit: Unit, name: str, alias: str) -> None:
    """Raises Forbidden when a job would take the alias from a version that it did not make: others find models by it."""
    holder = store.version_of_alias(unit, name, alias)
    if holder is not None:
        check_made_by(unit, _version(unit, name, holder), f"take the alias {alias} from a version")


@requires("workspaces/models/read")
def get_by_alias(unit: Unit, name: str, alias: str) -> ModelVersion:
    return version_by_alias(unit, name, alias)


@internal
def version_by_alias(unit: Unit, name: str, alias: str) -> ModelVersion:
    _registered(unit, name)
    version = store.version_of_alias(unit, name, alias)
    if version is None:
        raise Invalid(f"Registered model alias {alias} not found.", code="alias_not_found")
    return _version(unit, name, version)


@requires("workspaces/models/write")
def set_registered_tag(unit: Unit, name: str, key: object, value: object) -> None:
    check_made_by(unit, _registered(unit, name), "tag a model")
    store.put_model_tag(unit, name, *check_tag(key, value))


@requires("workspaces/models/write")
def delete_registered_tag(unit: Unit, name: str, key: str) -> None:
    check_made_by(unit, _registered(unit, name), "tag a model")
    store.delete_model_tag(unit, name, key)


@requires("workspaces/models/write")
def set_version_tag(unit: Unit, name: str, version: str, key: object, value: object) -> None:
    check_made_by(unit, _version(unit, name, version), "tag a model version")
    store.put_version_tag(unit, name, version, *check_tag(key, value))


@requires("workspaces/models/write")
def delete_version_tag(unit: Unit, name: str, version: str, key: str) -> None:
    check_made_by(unit, _version(unit, name, version), "tag a model version")
    store.delete_version_tag(unit, name, version, key)

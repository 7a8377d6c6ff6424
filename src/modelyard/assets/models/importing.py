"""Taking over registered models from an MLflow registry: names, numbers, times, aliases and stages stay."""

from __future__ import annotations

from typing import Annotated

import msgspec

from ...core.actor import refuse_jobs, requires
from ...core.errors import AlreadyExists
from ...storage.unit import Unit
from ..files.model import artifact_place, logged_model_place
from ..references import service as references
from . import store
from .model import check_alias, check_model_name, check_stage, check_tag

Millis = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class ImportedVersion(msgspec.Struct):
    """Its files lie in a run (`run_id`, `path` below its artifacts), in a logged model, at `uri`, or nowhere (a prompt)."""

    version: str
    source: str
    created_ms: Millis
    updated_ms: Millis
    user: str = ""
    description: str = ""
    stage: str = "None"
    status: str = "READY"
    run_id: str | None = None
    model_id: str | None = None
    path: str | None = None
    uri: str | None = None
    tags: dict[str, str] = {}


class ImportedModel(msgspec.Struct):
    name: str
    created_ms: Millis
    updated_ms: Millis
    description: str = ""
    tags: dict[str, str] = {}
    aliases: dict[str, str] = {}
    versions: list[ImportedVersion] = []


@requires("workspaces/models/write")
def import_model(unit: Unit, sent: ImportedModel) -> dict[str, int]:
    """The model and all its versions at once. A version that is here already with other content is refused."""
    refuse_jobs(unit, "import from elsewhere")
    name = check_model_name(sent.name)
    if not store.has_model(unit, name):
        store.insert_model(unit, name, sent.description)
        unit.record("model.imported", name, versions=len(sent.versions))
    for key, value in sent.tags.items():
        store.put_model_tag(unit, name, *check_tag(key, value))
    for version in sorted(sent.versions, key=lambda version: (len(version.version), version.version)):
        _import_version(unit, name, version)
    for alias, number in sent.aliases.items():
        store.put_alias(unit, name, check_alias(alias), number)
    store.set_model(unit, name, description=sent.description, created_ms=sent.created_ms, updated_ms=sent.updated_ms)
    return {"versions": len(store.versions_of(unit, name, None))}


def _import_version(unit: Unit, name: str, sent: ImportedVersion) -> None:
    earlier = store.get_version(unit, name, sent.version)
    path = _path(sent)
    if earlier is not None and (earlier.source, earlier.spec.path or "") != (sent.source, path):
        raise AlreadyExists(
            f"model {name}:{sent.version} is in this workspace, made of {earlier.source or 'something else'}",
            code="version_exists",
            hint="Import into a workspace of its own: -w NAME.",
        )
    body = {"type": "mlflow_model", "path": path, **({"description": sent.description} if sent.description else {})}
    values = {
        "spec": body, "source": sent.source, "run_id": sent.run_id, "model_id": sent.model_id, "status": sent.status,
        "stage": check_stage(sent.stage or "None"), "created_ms": sent.created_ms,
    }  # fmt: skip
    if earlier is None:
        store.insert_version(unit, name, sent.version, {**values, "created_by": sent.user or unit.actor.name})
    store.set_version(unit, name, sent.version, **values, updated_ms=sent.updated_ms)
    for key, value in sent.tags.items():
        store.put_version_tag(unit, name, sent.version, *check_tag(key, value))
    if sent.run_id:
        references.hold_makers(unit, "model", f"{name}:{sent.version}", sent.run_id, None)


def _path(sent: ImportedVersion) -> str:
    if sent.model_id:
        return str(logged_model_place(sent.model_id))
    if sent.run_id and sent.path is not None:
        return str(artifact_place(sent.run_id, sent.path))
    return sent.uri or ""

"""Use cases of data assets, and what any data reference stands for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ...core.actor import internal, requires
from ...core.errors import Invalid
from ...spec.data import Data
from ...spec.datastore import LocalDatastore
from ...spec.properties import DataProperties, noted
from ...spec.references import (
    AssetRef,
    DatastorePath,
    JobOutput,
    LocalPath,
    Reference,
    RunArtifact,
    WebAddress,
    asset_ref,
    parse_reference,
)
from ...spec.unused import unused
from ...storage.unit import Unit
from ...tenancy.workspaces import service as workspaces
from ..files import service as files
from ..files.model import NamedOutput, check_no_root
from ..references import service as references
from ..versions import service as versions
from ..versions.model import AssetVersion


@requires("workspaces/data/versions/write")
def create(unit: Unit, spec: Data, seen: str | None = None) -> dict[str, Any]:
    """Create a version of a data asset. What its path points to must be of its type. `seen`: the fingerprint of the files that `outside` names, if any."""
    reference = parse_reference(spec.path)
    if isinstance(reference, LocalPath):
        raise Invalid(f"path {spec.path!r} is local; upload it first", hint="`yard data create` and MLClient do that by themselves.")
    if isinstance(reference, AssetRef):
        raise Invalid(f"path {spec.path!r} names an asset; a data asset points to storage")
    body = {**spec.document(), "properties": DataProperties.kept(spec.properties)}
    origin = files.origin_of(unit, reference)
    if isinstance(reference, (JobOutput, RunArtifact)):
        reference = files.output_place(unit, reference)
        body["path"] = str(reference)
    content, notes = None, [*unused(spec), *DataProperties.check(spec.properties)]
    if isinstance(reference, DatastorePath) and not isinstance(files.datastore_spec(unit, reference.datastore), LocalDatastore):
        properties = _stored_properties(unit, spec, reference)
        body["properties"] = properties.over(body["properties"])
        content = _content_of(unit, reference) if properties.digest is not None else None
    elif seen is None:
        notes.append(f"nothing could be told of what lies at {spec.path}: a later change will not be noticed")
    asset = versions.create(unit, "data", body, content, seen)
    if origin is not None:
        references.hold_makers(unit, "data", f"{asset.name}:{asset.version}", origin.run, origin.writer, strong=False)
    return noted(asset.document(), notes)


@requires("workspaces/data/versions/write")
def outside(unit: Unit, path: str) -> Path | WebAddress | None:
    """What a path means outside the yard's own stores: a file or folder of this machine, or an address. None for what the yard keeps."""
    reference = parse_reference(path)
    if isinstance(reference, JobOutput):
        reference = files.output_place(unit, reference)
    return (
        files.local_folder(unit, reference)
        if isinstance(reference, DatastorePath)
        else reference
        if isinstance(reference, WebAddress)
        else None
    )


def _content_of(unit: Unit, location: DatastorePath) -> str | None:
    """Where the files stay as they are; None when that is the location itself."""
    pinned = files.pin(unit, location)
    return None if pinned == location else str(pinned)


def _content_of_output(unit: Unit, output: NamedOutput) -> str | None:
    location = parse_reference(output.stays_at)
    if not isinstance(location, DatastorePath) or not files.files_at(unit, location).files:
        return output.content
    return _content_of(unit, location) or output.content


def _stored_properties(unit: Unit, spec: Data, location: DatastorePath) -> DataProperties:
    """The digest of the files at a location, checked against the type. As in Azure a path may be filled later; a note says so."""
    check_no_root(location)
    tree = files.files_at(unit, location)
    if not tree.files:
        return DataProperties(notes=[f"there is nothing at {location} yet"])
    if spec.type == "uri_file" and files.file_at(unit, location) is None:
        raise Invalid(f"{location} is a folder; its type is uri_folder", code="wrong_type")
    if spec.type == "mltable" and not any(file.path == "MLTable" for file in tree.files):
        raise Invalid(f"{location} holds no MLTable file, which a data asset of type mltable needs", code="wrong_type")
    return DataProperties(digest=tree.digest)


@requires("workspaces/data/versions/read")
def get(unit: Unit, ref: AssetRef) -> dict[str, Any]:
    return versions.get(unit, "data", ref).document()


@requires("workspaces/data/versions/read")
def list_(unit: Unit, name: str | None, archived: bool | None) -> list[dict[str, Any]]:
    return [item.document() for item in versions.list_(unit, "data", name, archived)]


@requires("workspaces/data/versions/write")
def update(unit: Unit, ref: AssetRef, changes: dict[str, Any]) -> dict[str, Any]:
    return versions.update(unit, "data", ref, changes).document()


@requires("workspaces/data/versions/write")
def set_archived(unit: Unit, name: str, version: str | None, archived: bool) -> None:
    versions.set_archived(unit, "data", name, version, archived)


@requires("workspaces/data/versions/read")
def share(unit: Unit, ref: AssetRef, registry: str, name: str | None, version: str | None) -> dict[str, Any]:
    """Make the same version in a registry, with the same files."""
    asset = versions.get(unit, "data", ref)
    shared = workspaces.registry(unit, registry)
    origin = f"azureml://workspaces/{unit.workspace}/data/{asset.name}/versions/{asset.version}"
    body = {
        **asset.stored, "name": name or asset.name, "version": version or asset.version, "path": _brought(unit, asset, shared),
        "properties": DataProperties(shared_from=origin).over(asset.spec.properties),
    }  # fmt: skip
    return create(shared, Data.model_validate(body), asset.seen)


def _brought(unit: Unit, asset: AssetVersion, other: Unit) -> str:
    """The location of the content in the other workspace; an address that anyone can read stays as it is."""
    reference = parse_reference(asset.content or asset.spec.path)
    return str(files.bring(unit, reference, other)) if isinstance(reference, DatastorePath) else str(asset.spec.path)


@internal
def promote(unit: Unit, name: str, version: str | None, output: NamedOutput, job: str, seen: str | None = None) -> AssetVersion:
    """Create a data asset from a job's output."""
    body = {"name": name, "type": output.type, "path": output.uri, "tags": {}, "properties": DataProperties(job_name=job).over({})}
    asset = versions.create(unit, "data", {**body, **({"version": version} if version else {})}, _content_of_output(unit, output), seen)
    references.hold_makers(unit, "data", f"{asset.name}:{asset.version}", job, output.source)
    return asset


@internal
def resolve(unit: Unit, text: str) -> tuple[Reference, AssetVersion | None]:
    """What a data path stands for: a named asset becomes the location it points to, with the asset itself."""
    reference = parse_reference(text)
    if isinstance(reference, LocalPath):
        raise Invalid(f"path {text!r} is local; upload it first", hint="`yard job create` and MLClient do that by themselves.")
    if isinstance(reference, (JobOutput, RunArtifact)):
        return files.output_place(unit, reference), None
    if not isinstance(reference, AssetRef) or reference.kind == "models":
        return reference, None
    if reference.registry:
        shared = workspaces.registry(unit, reference.registry)
        asset = versions.get(shared, "data", replace(reference, registry=None))
        return parse_reference(_brought(shared, asset, unit)), asset
    asset = versions.get(unit, "data", asset_ref(text, "data asset"))
    return parse_reference(asset.content or asset.spec.path), asset

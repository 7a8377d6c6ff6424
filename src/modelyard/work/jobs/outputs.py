"""Paths of what a job wrote, and assets made of its outputs."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace
from typing import Any

from ...assets.data import service as data
from ...assets.files import service as files
from ...assets.files.model import BUILT_IN as OWN_STORES
from ...assets.files.model import is_kept, output_folder
from ...assets.models import service as models
from ...core.actor import internal
from ...core.errors import NotFound
from ...ports.objects import File
from ...spec.inputs import Output
from ...spec.model import Model
from ...spec.references import AssetRef, DatastorePath
from ...storage.unit import Unit
from . import store
from .model import output_uri


@internal
def check_outputs(unit: Unit, job: str, outputs: Mapping[str, Output], entries_of: Mapping[str, list[File]]) -> None:
    """Raise Conflict when an output cannot be merged with what lies at its path."""
    for port, entries in entries_of.items():
        location = output_uri(job, port, outputs[port])
        if location.datastore in OWN_STORES and not is_kept(location):
            folder, names = _target(outputs[port].type, location, entries)
            files.check_merge(unit, folder, names)


@internal
def keep_output(
    unit: Unit, job: str, port: str, output: Output, entries: list[File], completed: bool, unchanged: Set[str] = frozenset()
) -> None:  # fmt: skip
    """Give an output its path.

    An output with a path of its own is kept in the job's folder besides, where nothing is written over; its files then go to that path
    name by name. Those of a job that did not complete write nothing over there, and those that are `unchanged` since it began are not
    written again.
    """
    location = output_uri(job, port, output)
    job_folder, content = output_folder(job, port), None
    if location.datastore not in OWN_STORES and completed:
        target = location  # a folder of this machine: the attempt has written there
    elif location.datastore not in OWN_STORES:
        files.put_tree(unit, job_folder, entries)
        target = _shown(output.type, job_folder, entries)
    elif is_kept(location):
        folder, entries = _target(output.type, location, entries)
        files.put_tree(unit, folder, entries)
        target = _shown(output.type, folder, entries)
    else:
        changed = [entry for entry in entries if entry.path not in unchanged]
        _, changed = _target(output.type, location, changed)
        shared, entries = _target(output.type, location, entries)
        name = shared.path.rstrip("/").rsplit("/", 1)[-1]
        private = DatastorePath(job_folder.datastore, job_folder.path if output.type == "uri_file" else f"{job_folder.path}{name}/")
        files.put_tree(unit, private, entries)
        content = _shown(output.type, private, entries)
        (files.put_tree if completed else files.put_new)(unit, shared, changed)
        target = _shown(output.type, shared, entries) if completed and entries else content
    files.name_output(unit, job, port, output.type, target, content if content != target else None)


def _target(type: str, location: DatastorePath, entries: list[File]) -> tuple[DatastorePath, list[File]]:
    """The folder that an output's files go into, with their names in it: the last name of a `uri_file`'s path is the file's."""
    if type == "uri_file" and len(entries) == 1 and not location.path.endswith("/"):
        folder, _, name = location.path.rpartition("/")
        return DatastorePath(location.datastore, folder + "/" if folder else ""), [replace(entries[0], path=name)]
    return DatastorePath(location.datastore, location.path.rstrip("/") + "/"), entries


def _shown(type: str, folder: DatastorePath, entries: list[File]) -> DatastorePath:
    """The path that is shown for an output: of a `uri_file` its file, otherwise its folder."""
    return DatastorePath(folder.datastore, folder.path + entries[0].path) if type == "uri_file" and len(entries) == 1 else folder


@internal
def promote(unit: Unit, job: str, port: str, name: str, version: str | None, seen: str | None = None) -> str:
    """Create an asset from an output, which is the submitter's; `NAME:VERSION` of it. `seen` tells the files of a local datastore, where the
    attempt has put them, from later ones. Raises AlreadyExists for a version with other content."""
    unit = unit.trusted(store.existing(unit, job).created_by)
    output = files.outputs_of(unit, job)[port]
    if output.type.endswith("_model"):
        kind: Any = output.type
        made = models.create(unit, Model(name=name, version=version, type=kind, path=f"azureml://jobs/{job}/outputs/{port}"))
        return f"{made['name']}:{made['version']}"
    asset = data.promote(unit, name, version, output, job, seen)
    return f"{asset.name}:{asset.version}"


@internal
def latest_of(unit: Unit, job: str, port: str, name: str) -> str | None:
    """`NAME:VERSION` of the newest asset of a name when it is this very output; None when it is another, or there is none."""
    output = files.outputs_of(unit, job)[port]
    get = models.get if output.type.endswith("_model") else data.get
    try:
        newest = get(unit, AssetRef(name))
    except NotFound:
        return None
    return f"{name}:{newest['version']}" if newest.get("path") in (output.uri, output.stays_at) else None

"""What the references of a job stand for: looked up when it is submitted, and resolved to content when it starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ...assets.data import service as data
from ...assets.environments import service as environments
from ...assets.files import service as files
from ...assets.files.model import BUILT_IN as OWN_STORES
from ...assets.files.model import check_no_root, is_kept
from ...assets.models import service as models
from ...assets.references import service as references
from ...core.actor import internal
from ...core.errors import Invalid, NotFound
from ...ports.executor import MachinePath
from ...ports.objects import Tree
from ...spec.inputs import Input, Output
from ...spec.references import AssetRef, DatastorePath, JobOutput, Reference, WebAddress, parse_reference
from ...storage.unit import Unit
from ...tenancy.workspaces import service as workspaces
from ..tracking import service as tracking
from ..tracking.model import Experiment
from . import store
from .kinds import Execution
from .model import InputSource, JobRecord, digest_in, output_uri

PLACEHOLDER = "job"
"""Stands for the names of jobs that are not submitted yet, in the paths of their outputs."""


@internal
def look_up(unit: Unit, job: str, execution: Execution) -> tuple[dict[str, Any], list[str]]:
    """What each reference stands for, by its name in a job's properties, and notes; what the job will read is held from now on.

    Raises Invalid with everything that is wrong.
    """
    resolved: dict[str, Any] = {}
    notes: list[str] = []
    problems: list[str] = []

    def attempt(where: str, look: Callable[[], None]) -> None:
        try:
            look()
        except (NotFound, Invalid) as error:
            problems.append(f"{where}{error.message}")

    def environment() -> None:
        resolved_environment = environments.resolve(unit, execution.environment)
        resolved["environment"] = str(resolved_environment)
        notes.extend(resolved_environment.wanted.notes)
        references.hold(unit, "job", job, "environment", resolved_environment.name, resolved_environment.version, strong=False)

    def source(port: str, value: Input) -> None:
        resolved[f"input.{port}"] = _hold_input(unit, job, value)

    def code() -> None:
        if execution.code is not None:
            resolved["code"] = check_code(unit, execution.code)

    attempt("", environment)
    for port, value in _data_of(execution.inputs).items():
        attempt(f"input {port}: ", lambda port=port, value=value: source(port, value))  # type: ignore[misc]
    for port, output in execution.outputs.items():
        attempt(f"output {port}: ", lambda port=port, output=output: check_output(unit, job, port, output))  # type: ignore[misc]
    attempt("code: ", code)
    if problems:
        raise Invalid(f"job {job} cannot be submitted: " + "; ".join(problems), code="unresolved_reference")
    return resolved, notes


def _data_of(inputs: Mapping[str, Input]) -> dict[str, Input]:
    """Those that name data."""
    return {port: value for port, value in inputs.items() if not value.is_literal and value.path is not None}


@internal
def check_input(unit: Unit, value: Input) -> str:
    """What an input stands for, as a line for the record and for content keys. Raises NotFound or Invalid."""
    return _look_at(unit, value, _source_of(unit, value))[0]


def _hold_input(unit: Unit, job: str, value: Input) -> str:
    """As `check_input`; what lies there now is what the job will read, whatever is written there meanwhile."""
    source = _source_of(unit, value)
    line, tree = _look_at(unit, value, source)
    if isinstance(source.location, DatastorePath) and tree is not None and tree.files and not is_kept(source.location):
        files.pin(unit, source.location, tree)
    if source.asset is not None:
        kind, name, version = source.asset
        references.hold(unit, "job", job, kind, name, version, strong=False)
    if source.job is not None:
        references.hold(unit, "job", job, "job", source.job, "", strong=False)
    return line


class _Source(NamedTuple):
    """Where an input's bytes are; the (kind, name, version) of the asset or the job that it named; `seen` as in `InputSource`."""

    location: DatastorePath | WebAddress
    asset: tuple[str, str, str] | None
    seen: str | None = None
    job: str | None = None


def _look_at(unit: Unit, value: Input, source: _Source) -> tuple[str, Tree | None]:
    """The line of an input, with its files when the yard keeps them."""
    assert value.path is not None
    location, named = source.location, f"{':'.join(source.asset[1:])} " if source.asset else ""
    if isinstance(location, WebAddress):
        check_fetched(value, location)
        return f"{named}{location.url}", None
    store_type = files.datastore_spec(unit, location.datastore).type
    if location.datastore in OWN_STORES:
        check_no_root(location)
        tree = files.files_at(unit, location)
        if not tree.files and not isinstance(parse_reference(value.path), JobOutput):  # a job may write nothing
            raise NotFound(f"there is nothing at {location}", code="path_not_found")
        if value.type == "uri_file" and len(tree.files) > 1:
            raise no_file(location, tree)
        return f"{named}sha256:{tree.digest}", tree
    if store_type != "local":
        raise Invalid(f"datastore {location.datastore} of type {store_type} is stored here but not read by this version of modelyard")
    return f"{named}{location}", None


@internal
def check_fetched(value: Input, address: WebAddress) -> None:
    """Raise Invalid for an address whose files would have to be read and cannot be; `direct` passes any on as it is."""
    scheme = address.url.partition(":")[0]
    if scheme not in ("http", "https") and value.mode != "direct":
        raise Invalid(
            f"{address.url} is not read by this version of modelyard, which fetches http and https addresses",
            code="unreadable_address", hint="Copy the files into a datastore of the yard, or pass the address on with `mode: direct`.",
        )  # fmt: skip


@internal
def check_mode(unit: Unit, value: Input) -> None:
    """Raise Invalid for data that is not read in the mode of this input; what lies there is not looked at."""
    location = _source_of(unit, value).location
    if isinstance(location, WebAddress):
        check_fetched(value, location)


def no_file(location: DatastorePath, tree: Tree) -> Invalid:
    return Invalid(f"this is a uri_file, but {location} is a folder of {len(tree.files)} files", code="wrong_type")


def _source_of(unit: Unit, value: Input) -> _Source:
    assert value.path is not None
    reference = parse_reference(value.path)
    if isinstance(reference, AssetRef) and (value.type.endswith("_model") or reference.kind == "models"):
        model = models.resolve(unit, reference)
        location = parse_reference(model.path)
        assert isinstance(location, DatastorePath)
        return _Source(location, ("model", _name_here(reference, model.name), model.version))
    address, asset = data.resolve(unit, value.path)
    if not isinstance(address, (DatastorePath, WebAddress)):
        raise Invalid(f"{value.path!r} is not a place that data can be read from")
    if asset is not None:
        return _Source(address, ("data", _name_here(reference, asset.name), asset.version), asset.seen)
    origin = files.origin_of(unit, reference)
    return _Source(address, None, job=origin.run if origin else None)


def _name_here(reference: Reference, name: str) -> str:
    """The name of an asset, which in a registry is another than the workspace's own of that name."""
    registry = reference.registry if isinstance(reference, AssetRef) else None
    return f"{registry}/{name}" if registry else name


@internal
def check_output(unit: Unit, job: str, port: str, output: Output) -> None:
    """Raise Invalid or NotFound when an output of `job` cannot be written to its path."""
    location = output_uri(job, port, output)
    files.check_target(unit, location, job)
    kind = files.datastore_spec(unit, location.datastore).type
    if location.datastore not in OWN_STORES and kind != "local":
        raise Invalid(f"datastore {location.datastore} of type {kind} is stored here but not written by this version of modelyard")


@internal
def check_code(unit: Unit, code: str) -> str:
    location = parse_reference(code)
    if not isinstance(location, DatastorePath):
        raise Invalid(f"{code!r} is not an uploaded folder", hint="`yard job create` and MLClient upload local code by themselves.")
    tree = files.files_at(unit, location)
    if not is_kept(location):
        files.pin(unit, location, tree)
    elif not tree.files:
        raise NotFound(f"there is nothing at {location}", code="path_not_found")
    return f"sha256:{tree.digest}"


@internal
def inputs_of(unit: Unit, record: JobRecord, inputs: Mapping[str, Input]) -> dict[str, InputSource]:
    """Where each input's data is."""
    sources = {port: _source_of(unit, value) for port, value in _data_of(inputs).items()}
    return {
        port: InputSource(source.location, digest_in(record.properties.inputs.get(port)), source.seen) for port, source in sources.items()
    }


@dataclass(frozen=True)
class Source:
    """Where an input's data is, and its files: a tree of blobs, or a path of this machine. `seen`: as in `InputSource`."""

    location: DatastorePath | WebAddress
    files: Tree | MachinePath | None
    seen: str | None
    digest: str | None = None
    """Of the files when the job was submitted, as far as it is known."""
    single: bool = False
    """`location` names one file, and no folder."""


@dataclass(frozen=True)
class Material:
    """What a job reads and where it is tracked, as the database knows it."""

    experiment: Experiment
    code: Tree | None
    inputs: Mapping[str, Source]
    present: Mapping[str, Tree | MachinePath]
    """What lies at the paths of outputs that are mounted."""
    only_workspace: bool
    installed: tuple[str, ...] = ()
    """What the command of the job that this one repeats installed by itself."""


@internal
def material(unit: Unit, record: JobRecord, execution: Execution) -> Material:
    sources = inputs_of(unit, record, execution.inputs)
    inputs = {port: _with_files(unit, source, execution.inputs[port]) for port, source in sources.items()}
    experiment = tracking.experiment_of(unit, record.name)
    repeated = store.get(unit, record.properties.rerun_of) if record.properties.rerun_of else None
    installed = tuple(repeated.properties.installed or ()) if repeated is not None else ()
    present = {
        port: there for port, output in execution.outputs.items() if (there := _present(unit, record.name, port, output)) is not None
    }  # fmt: skip
    return Material(experiment, _code(unit, record, execution), inputs, present, workspaces.is_only(unit), installed)


def _present(unit: Unit, job: str, port: str, output: Output) -> Tree | MachinePath | None:
    """What a mounted output shows: all that lies at its path. None for one that begins empty."""
    if output.path is None or output.mode not in ("mount", "rw_mount"):
        return None
    location = output_uri(job, port, output)
    local = files.local_folder(unit, location)
    if local is not None:
        return MachinePath(str(local))
    tree = files.files_at(unit, location)
    if output.type == "uri_file" and files.file_at(unit, location) is None:
        return None
    return tree if tree.files else None


def _with_files(unit: Unit, source: InputSource, value: Input) -> Source:
    location = source.location
    content: Tree | MachinePath | None = None
    single = False
    if isinstance(location, DatastorePath) and value.mode != "direct":
        local = files.local_folder(unit, location)
        content = MachinePath(str(local)) if local is not None else files.content_at(unit, location, source.digest)
        single = isinstance(content, Tree) and len(content.files) == 1 and files.is_file(unit, location, source.digest)
    return Source(location, content, source.seen, source.digest, single)


def _code(unit: Unit, record: JobRecord, execution: Execution) -> Tree | None:
    if execution.code is None:
        return None
    snapshot = parse_reference(execution.code)
    assert isinstance(snapshot, DatastorePath)
    return files.content_at(unit, snapshot, digest_in(record.properties.code))

"""Use cases of datastores and files."""

from __future__ import annotations

from collections.abc import Iterable, Set
from pathlib import Path
from typing import Any

from ...core.actor import ANY_WORKSPACE, internal, requires
from ...core.errors import AlreadyExists, Conflict, Forbidden, Invalid, LimitExceeded, NotFound
from ...core.names import check_name, safe_path
from ...core.paging import Page, decode_token, encode_token
from ...ports.objects import File, Tree
from ...ports.vault import Vault
from ...spec.datastore import AnyDatastore, AzureBlobDatastore, Datastore, LocalDatastore
from ...spec.references import ARTIFACTSTORE, BLOBSTORE, DatastorePath, JobOutput, Reference, RunArtifact, parse_reference
from ...storage.unit import Unit
from ...tenancy.secrets import service as secrets
from ...tenancy.workspaces import service as workspaces
from ...tenancy.workspaces.model import StorageUse, quota_exceeded
from . import store
from .model import (
    BUILT_IN,
    KEPT,
    STAGING,
    NamedOutput,
    Origin,
    artifact_place,
    check_no_root,
    is_for_good,
    is_kept,
    pinned_location,
    run_behind,
)


def _built_in(name: str) -> dict[str, Any]:
    use = "uploads and outputs" if name == BLOBSTORE else "artifacts of runs"
    return {
        "name": name,
        "type": "azure_blob",
        "description": f"The yard's own storage for {use}.",
        "account_name": "yard",
        "container_name": name,
        "protocol": "https",
        "is_default": name == BLOBSTORE,
        "id": f"azureml://datastores/{name}",
        "tags": {},
        "properties": {},
    }


@requires("workspaces/datastores/read")
def get_datastore(unit: Unit, name: str) -> dict[str, Any]:
    if name in BUILT_IN:
        return _built_in(name)
    record = store.get_datastore(unit, name)
    if record is None:
        raise _no_datastore(unit, name)
    return record.document()


@requires("workspaces/datastores/read")
def list_datastores(unit: Unit) -> list[dict[str, Any]]:
    return [*map(_built_in, BUILT_IN), *(record.document() for record in store.list_datastores(unit))]


@requires("workspaces/datastores/read")
def datastore_spec(unit: Unit, name: str) -> AnyDatastore:
    """What a datastore is. Raises NotFound."""
    if name in BUILT_IN:
        return AzureBlobDatastore(name=name, account_name="yard", container_name=name)
    record = store.get_datastore(unit, name)
    if record is None:
        raise _no_datastore(unit, name)
    return record.spec


def _no_datastore(unit: Unit, name: str) -> NotFound:
    return NotFound(f"there is no datastore {name} in workspace {unit.workspace}", hint="`yard datastore list` shows them.")


@requires("workspaces/datastores/write")
def put_datastore(unit: Unit, spec: Datastore, vault: Vault, home: Path) -> dict[str, Any]:
    """Create or replace. Credentials go to the vault; what is stored and answered carries none."""
    check_name("datastore", spec.name)
    if spec.name in BUILT_IN:
        raise AlreadyExists(f"{spec.name} is a datastore of the yard itself")
    if isinstance(spec, LocalDatastore):
        _check_local(unit, home, spec)
    document = {k: v for k, v in spec.document().items() if k not in ("credentials", "creation_context", "id", "is_default")}
    known = store.get_datastore(unit, spec.name) is not None
    store.put_datastore(unit, spec.name, document)
    if spec.credentials is not None and (values := spec.credentials.document()):
        import orjson

        secrets.put(unit, vault, f"datastore/{spec.name}", orjson.dumps(values).decode())
    unit.record("datastore.updated" if known else "datastore.created", spec.name, type=document["type"])
    return get_datastore(unit, spec.name)


def _check_local(unit: Unit, home: Path, spec: LocalDatastore) -> None:
    if not unit.actor.may("Microsoft.Authorization/localDatastores/write", ANY_WORKSPACE):
        raise Forbidden("only an owner of the yard opens folders of this machine as a datastore")
    path = Path(spec.path)
    if not path.is_absolute() or ".." in path.parts:
        raise Invalid(f"the path of a local datastore is absolute; {spec.path!r} is not", code="invalid_path")
    real = path.resolve()
    if real == home or home in real.parents or real in home.parents:
        raise Invalid(f"{spec.path} overlaps the yard's own folder {home}", code="invalid_path")


@requires("workspaces/datastores/delete")
def delete_datastore(unit: Unit, name: str) -> None:
    if name in BUILT_IN:
        raise Conflict(f"{name} belongs to the yard and stays")
    get_datastore(unit, name)
    store.delete_datastore(unit, name)
    secrets.delete(unit, f"datastore/{name}")
    unit.record("datastore.deleted", name)


@requires("workspaces/datastores/files/write")
def check_upload(unit: Unit) -> None:
    """Before a byte is taken: the caller may upload."""


@requires("workspaces/datastores/files/write")
def announce_upload(unit: Unit, datastore: str, tree: Tree, name: str, lost: Set[str] = frozenset()) -> dict[str, Any]:
    """What of `tree` is missing; when nothing is, the upload is complete and its uri can be used. `lost`: digests whose bytes are gone."""
    _check_own(unit, datastore)
    missing = _missing(unit, tree, lost)
    if missing:
        return {"digest": tree.digest, "missing": missing}
    return _finish_upload(unit, datastore, tree, name)


def _missing(unit: Unit, tree: Tree, lost: Set[str]) -> list[str]:
    """The digests of which this workspace has no bytes, or not as many as the tree says: knowing a digest gives nobody its content."""
    sizes = store.sizes_of(unit, list({file.digest for file in tree.files}))
    return sorted({file.digest for file in tree.files if sizes.get(file.digest) != file.size or file.digest in lost})


def _finish_upload(unit: Unit, datastore: str, tree: Tree, name: str) -> dict[str, Any]:
    folder = f"LocalUpload/{tree.digest}/"
    single = len(tree.files) == 1 and tree.files[0].path == name
    prefix = folder if single else f"{folder}{safe_path(name)}/" if name else folder
    if not store.get_file(unit, datastore, prefix + tree.files[0].path):
        store.put_files(unit, datastore, prefix, tree.files)
        unit.record("files.uploaded", str(DatastorePath(datastore, prefix)), digest=tree.digest, files=len(tree.files), size=tree.size)
    store.delete_staged(unit, STAGING, [file.digest for file in tree.files])
    path = prefix + name if single else prefix
    return {"digest": tree.digest, "missing": [], "uri": str(DatastorePath(datastore, path)), "size": tree.size}


@internal
def put_artifacts(unit: Unit, location: DatastorePath, tree: Tree, lost: Set[str] = frozenset()) -> dict[str, Any]:
    """Add the files below `location`, all at once, when their content is here; else answer the digests that are missing.

    `lost`: digests whose bytes are gone.
    """
    missing = _missing(unit, tree, lost)
    if not missing:
        workspaces.add_storage_use(unit, 0, replaces=True)
        store.put_files(unit, location.datastore, location.path.rstrip("/") + "/", tree.files)
        store.delete_staged(unit, STAGING, [file.digest for file in tree.files])
    return {"missing": missing}


# What a workspace has


def _take(unit: Unit, files: Iterable[File], *, bounded: bool, replaces: bool) -> None:
    """Note that the unit's workspace has these blobs, whose bytes were seen, or granted by one that has them.

    `bounded`: raises LimitExceeded (`quota_exceeded`) when it would store more than it may.
    """
    sizes = {file.digest: file.size for file in files}
    known = store.sizes_of(unit, list(sizes))
    new = {digest: size for digest, size in sizes.items() if known.get(digest) != size}
    added = sum(size - known.get(digest, 0) for digest, size in new.items())
    if bounded and added > 0:
        _check_room(unit, added)
    store.put_contents(unit, new)
    workspaces.add_storage_use(unit, added, replaces=replaces)


def _check_room(unit: Unit, bytes: int) -> None:
    use = workspaces.storage_use(unit)
    if use.quota is None:
        return
    if use.used + bytes > use.quota and use.stale:
        use = recount(unit)
    if use.used + bytes > (quota := use.quota or 0):
        raise quota_exceeded(unit.workspace, quota, use.used + bytes)


@internal
def recount(unit: Unit) -> StorageUse:
    """Count anew what the unit's workspace stores; blobs that none of its paths holds are forgotten, and must be sent again."""
    store.forget_unused_contents(unit, unit.workspace)
    workspaces.set_own_storage_use(unit, store.stored_bytes_of(unit, unit.workspace))
    return workspaces.storage_use(unit)


@internal
def quota_refusal(unit: Unit, entries: Iterable[File]) -> LimitExceeded | None:
    """Why the unit's workspace cannot take these files as well; None when it can."""
    sizes = {file.digest: file.size for file in entries}
    known = store.sizes_of(unit, list(sizes))
    added = sum(size for digest, size in sizes.items() if digest not in known)
    try:
        if added:
            _check_room(unit, added)
    except LimitExceeded as refusal:
        return refusal
    return None


@internal
def paths_of(unit: Unit, digest: str) -> list[tuple[str, str, str]]:
    """(workspace, datastore, path) of some paths that hold a blob, in every workspace."""
    return store.paths_of(unit, digest, 100)


@internal
def sizes_noted(unit: Unit) -> list[tuple[str, int]]:
    """(digest, size) as the paths of all workspaces have them."""
    return store.sizes_noted(unit)


@internal
def correct_size(unit: Unit, digest: str, size: int) -> int:
    """Write down the true size of a blob; how many rows had another."""
    return store.correct_size(unit, digest, size)


@requires("workspaces/datastores/files/write")
def held_size(unit: Unit, digest: str) -> int | None:
    """The size of a blob that the workspace has; None for any other."""
    return store.sizes_of(unit, [digest]).get(digest)


@internal
def bring(unit: Unit, location: DatastorePath, other: Unit) -> DatastorePath:
    """The same files in another workspace, whose rows point to the same content; created when they do not exist yet."""
    if location.datastore not in BUILT_IN:
        raise Invalid(
            f"files in the datastore {location.datastore} of {unit.workspace} cannot be shared; upload them", code="not_shareable"
        )
    tree = files_at(unit, location)
    if not tree.files:
        raise NotFound(f"there is nothing at {location}", code="path_not_found")
    _take(other, tree.files, bounded=True, replaces=False)  # a grant: the bytes are not sent again
    return _pin(other, location, tree, single=file_at(unit, location) is not None)


@internal
def pin(unit: Unit, location: DatastorePath, tree: Tree | None = None) -> DatastorePath:
    """The location at which what lies at `location` now stays readable, whatever is written or deleted there later. Raises NotFound when it is empty.

    Content is addressed by its digest, so pinning writes rows, no bytes, and the same rows for the same content.
    `tree`: what lies there, when it was read in this unit.
    """
    if is_for_good(location) or location.datastore not in BUILT_IN:
        return location
    tree = files_at(unit, location) if tree is None else tree
    if not tree.files:
        raise NotFound(f"there is nothing at {location}", code="path_not_found")
    return _pin(unit, location, tree, single=file_at(unit, location) is not None)


def _pin(unit: Unit, location: DatastorePath, tree: Tree, *, single: bool) -> DatastorePath:
    """`single`: `location` is the path of the only file of `tree`."""
    target = pinned_location(location, tree.digest)
    folder = target.path.rpartition("/")[0] + "/" if single else target.path.rstrip("/") + "/"
    if not store.get_file(unit, target.datastore, folder + tree.files[0].path):  # all were written in one transaction
        store.put_files(unit, target.datastore, folder, tree.files)
    return target


@internal
def content_at(unit: Unit, location: DatastorePath, digest: str | None) -> Tree:
    """The files at a location as they were when they had `digest`; as they are now when those were not pinned."""
    then = files_at(unit, pinned_location(location, digest)) if digest is not None and not is_kept(location) else None
    return then if then is not None and then.files else files_at(unit, location)


@internal
def is_file(unit: Unit, location: DatastorePath, digest: str | None) -> bool:
    """Whether what `content_at` reads is the one file that the location names, and no folder."""
    if digest is not None and not is_kept(location):
        then = pinned_location(location, digest)
        if file_at(unit, then) is not None:
            return True
        if files_at(unit, then).files:
            return False
    return file_at(unit, location) is not None


@internal
def place_of_content(unit: Unit, location: DatastorePath, digest: str) -> DatastorePath:
    """The pinned location of what lay at `location` with `digest`; `location` itself when it was not pinned."""
    pinned = pinned_location(location, digest)
    return location if is_kept(location) or not files_at(unit, pinned).files else pinned


@requires("workspaces/datastores/files/write")
def stage(unit: Unit, file: File) -> None:
    """Note that this workspace sent the blob, ahead of the upload that will name it."""
    _take(unit, [file], bounded=True, replaces=False)
    store.put_files(unit, STAGING, "", [file])


@requires("workspaces/datastores/files/write")
def stage_part(unit: Unit, upload: str, number: int, digest: str, size: int) -> None:
    """Keep one part of a multi-part upload until the upload is completed, dropped, or a day old."""
    part = File(f"{_parts_of(unit, upload)}{number:06d}", digest, size)
    _take(unit, [part], bounded=True, replaces=True)
    store.put_files(unit, STAGING, "", [part])


@requires("workspaces/datastores/files/write")
def staged_parts(unit: Unit, upload: str) -> dict[int, File]:
    """The parts that came, by number."""
    prefix = _parts_of(unit, upload)
    return {int(file.path.removeprefix(prefix)): file for file in store.files_under(unit, STAGING, prefix)}


@requires("workspaces/datastores/files/write")
def drop_parts(unit: Unit, upload: str) -> None:
    delete_files(unit, STAGING, _parts_of(unit, upload))


def _parts_of(unit: Unit, upload: str) -> str:
    """Below the uploader's id, so that only the one who began an upload can complete it."""
    if not upload or not upload.isalnum() or len(upload) > 64:
        raise Invalid(f"there is no upload {upload[:80]!r}", code="invalid_upload")
    return f"parts/{unit.actor.id}/{upload}/"


@requires("workspaces/datastores/read")
def list_files(unit: Unit, datastore: str, prefix: str, limit: int, token: str | None) -> Page[File]:
    _check_own(unit, datastore)
    limit = max(1, min(limit, 10_000))
    position = decode_token(token, 1)
    after = str(position[0]) if position else ""
    entries = store.files_under(unit, datastore, prefix, after=after, limit=limit)
    return Page(entries, encode_token([entries[-1].path]) if len(entries) == limit else None)


@requires("workspaces/datastores/read")
def get_file(unit: Unit, datastore: str, path: str) -> File:
    file = store.get_file(unit, datastore, path)
    if file is None:
        raise NotFound(f"there is no file {path} in datastore {datastore}", code="file_not_found")
    return file


@internal
def put_file(unit: Unit, datastore: str, path: str, digest: str, size: int, *, bounded: bool = False) -> None:
    """Point a path at a stored blob. A path that is a folder already, or lies under a file, raises Conflict.

    `bounded`: raises LimitExceeded beyond the quota of the workspace.
    """
    if store.files_under(unit, datastore, path + "/", limit=1):
        raise Conflict(f"{path} is a folder", code="path_is_folder")
    for parent in _parents(path):
        if store.get_file(unit, datastore, parent):
            raise Conflict(f"{parent} is a file, not a folder", code="path_is_file")
    file = File(path, digest, size)
    _take(unit, [file], bounded=bounded, replaces=True)
    store.put_files(unit, datastore, "", [file])


@internal
def put_tree(unit: Unit, location: DatastorePath, entries: list[File]) -> None:
    """Put files into the folder at `location`, name by name: what lies there under other names stays."""
    _take(unit, entries, bounded=False, replaces=True)
    store.put_files(unit, location.datastore, _prefix(location), entries)


def _prefix(location: DatastorePath) -> str:
    path = location.path.strip("/")
    return path + "/" if path else ""


@internal
def check_target(unit: Unit, location: DatastorePath, job: str) -> None:
    """Raise Invalid when an output of `job` must not be written at `location`: the root of a store, and what the yard itself fills."""
    path = location.path.strip("/") + "/"
    check_no_root(location)
    filled = KEPT if location.datastore == BLOBSTORE else ("azureml/",)
    if location.datastore == ARTIFACTSTORE or (path.startswith(filled) and not path.startswith(f"azureml/{job}/")):
        raise Invalid(
            f"{location} is filled by the yard itself, and nothing there is written over", code="invalid_output",
            hint="Choose another path, or leave it out: outputs then lie under azureml/<job>/<output>/.",
        )  # fmt: skip


@internal
def put_new(unit: Unit, location: DatastorePath, entries: list[File]) -> None:
    """Put those files into the folder at `location` whose names are free; what lies there stays as it is."""
    there = _Names(unit, location)
    put_tree(unit, location, [entry for entry in entries if not there.has(entry.path) and there.clash(entry.path) is None])


@internal
def check_merge(unit: Unit, location: DatastorePath, entries: list[File]) -> None:
    """Raise Conflict when files at `location` would turn a file that lies there into a folder, or a folder into a file."""
    there = _Names(unit, location)
    for entry in entries:
        if (clash := there.clash(entry.path)) is not None:
            raise clash


class _Names:
    """What lies in a folder of a datastore, and whether further names go with it."""

    def __init__(self, unit: Unit, location: DatastorePath) -> None:
        self.location = location
        self.prefix = _prefix(location)
        self.files = {file.path for file in store.files_under(unit, location.datastore, self.prefix)}
        self.folders = {parent for path in self.files for parent in _parents(path)}
        above = self.prefix.rstrip("/")
        self.files.update(path for path in (*_parents(above), above) if above and store.get_file(unit, location.datastore, path))

    def has(self, name: str) -> bool:
        return self.prefix + name in self.files

    def clash(self, name: str) -> Conflict | None:
        """Why a file of this name cannot lie there: it is a folder, or a folder on its way is a file."""
        path = self.prefix + name
        if path in self.folders:
            return Conflict(f"{path} is a folder in {self.location.datastore}, and a file of this output", code="path_is_folder")
        file = next((parent for parent in _parents(path) if parent in self.files), None)
        if file is not None:
            return Conflict(f"{file} is a file in {self.location.datastore}, and a folder of this output", code="path_is_file")
        return None


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


@internal
def delete_files(unit: Unit, datastore: str, path: str) -> int:
    workspaces.add_storage_use(unit, 0, replaces=True)
    return store.delete_files(unit, datastore, path)


@internal
def files_at(unit: Unit, location: DatastorePath) -> Tree:
    """The file at a path, or everything under it as a folder, paths relative to it. Empty when nothing is there."""
    file = file_at(unit, location)
    if file is not None:
        return Tree((file,))
    prefix = _prefix(location)
    entries = store.files_under(unit, location.datastore, prefix)
    return Tree(tuple(File(f.path[len(prefix) :], f.digest, f.size, f.modified_ms) for f in entries))


@internal
def file_at(unit: Unit, location: DatastorePath) -> File | None:
    """The file that a path names, under its last name; None for a folder, and where nothing is. A path that ends with `/` names a folder
    when there is one."""
    path = location.path.strip("/")
    if not path or (location.path.endswith("/") and store.files_under(unit, location.datastore, path + "/", limit=1)):
        return None
    file = store.get_file(unit, location.datastore, path)
    return File(path.rsplit("/", 1)[-1], file.digest, file.size, file.modified_ms) if file is not None else None


@internal
def children(unit: Unit, datastore: str, folder: str) -> list[tuple[str, bool, int]]:
    """Direct children of a folder: (name, is a folder, size), sorted."""
    prefix = folder.strip("/") + "/" if folder.strip("/") else ""
    entries: dict[str, tuple[bool, int]] = {}
    for file in store.files_under(unit, datastore, prefix):
        name, slash, _ = file.path[len(prefix) :].partition("/")
        entries[name] = (True, 0) if slash else (False, file.size)
    return sorted((name, is_folder, size) for name, (is_folder, size) in entries.items())


@internal
def all_digests(unit: Unit) -> set[str]:
    """Every digest that some path holds."""
    return store.all_digests(unit)


@internal
def used_digests(unit: Unit, staged_before_ms: int) -> set[str]:
    """Every digest that some path holds, after dropping stale staging rows: what a sweep must keep. No workspace has any other from then on."""
    store.forget_staged(unit, STAGING, staged_before_ms)
    store.forget_unused_contents(unit)
    workspaces.set_storage_use(unit, store.stored_bytes(unit))
    return store.all_digests(unit)


def _check_own(unit: Unit, datastore: str) -> None:
    if datastore not in BUILT_IN:
        kind = datastore_spec(unit, datastore).type
        raise Invalid(
            f"files in the datastore {datastore} of type {kind} are not sent through the yard",
            hint=f"Read and write the storage itself, or use {BLOBSTORE}.",
        )


@internal
def local_folder(unit: Unit, location: DatastorePath) -> Path | None:
    """The folder or file of this machine that a path in a local datastore is; None for other datastores. It need not exist."""
    spec = datastore_spec(unit, location.datastore)
    if not isinstance(spec, LocalDatastore):
        return None
    root = Path(spec.path).resolve()
    path = (root / location.path.strip("/")).resolve()
    if path != root and root not in path.parents:
        raise Invalid(f"{location} leads out of its datastore", code="invalid_path")
    return path


@internal
def name_output(unit: Unit, run: str, name: str, type: str, location: DatastorePath, content: DatastorePath | None = None) -> None:
    """Note where an output of a job, or a model logged by a run, lies, so that it can be referred to by name.

    `content` is where what was written stays as it is, when others may write to `location` too.
    """
    store.put_output(unit, run, name, NamedOutput(type, str(location), str(content) if content is not None else None))


@internal
def pass_output_on(unit: Unit, source: str, port: str, run: str, name: str) -> NamedOutput:
    """Let an output of one job be an output of another, which it carries out or whose result it takes over: it stays when the first is deleted."""
    output = store.outputs_of(unit, source)[port]
    location = parse_reference(output.stays_at)
    content = output.content
    if isinstance(location, DatastorePath) and files_at(unit, location).files:
        pinned = pin(unit, location)
        content = str(pinned) if pinned != location else content
    writer = output.source or source
    passed = NamedOutput(output.type, output.uri, content, writer if writer != run else None)
    store.put_output(unit, run, name, passed)
    return passed


@internal
def outputs_of(unit: Unit, run: str) -> dict[str, NamedOutput]:
    """The outputs of a run by name."""
    return store.outputs_of(unit, run)


@internal
def origin_of(unit: Unit, reference: Reference) -> Origin | None:
    """What files come from that are named by the run that left them, or by the location that the yard gave them for it."""
    if isinstance(reference, DatastorePath):
        behind = run_behind(reference)
        if isinstance(behind, JobOutput) and behind.output not in store.outputs_of(unit, behind.job):
            return None
        reference = behind or reference
    if isinstance(reference, RunArtifact):
        return Origin(reference.run)
    if not isinstance(reference, JobOutput):
        return None
    output = store.outputs_of(unit, reference.job).get(reference.output)
    return Origin(reference.job, output.source if output else None)


@internal
def writers_of(unit: Unit, location: DatastorePath) -> list[str]:
    """The jobs that have written an output to a path, below it or to a folder around it."""
    return store.writers_of(unit, str(location))


@internal
def takers_of(unit: Unit, job: str) -> list[str]:
    """The pipelines and sweeps that have taken over an output of a job."""
    return store.takers_of(unit, job)


@internal
def forget_run(unit: Unit, run: str) -> None:
    """Let go of a run's artifacts, outputs and their names."""
    delete_files(unit, ARTIFACTSTORE, artifact_place(run).path)
    delete_files(unit, BLOBSTORE, f"azureml/{run}/")
    store.delete_outputs(unit, run)


@internal
def output_place(unit: Unit, ref: JobOutput | RunArtifact) -> DatastorePath:
    """What `azureml://jobs/…/outputs/…` or `runs:/…` stands for. Raises NotFound when the run has no such output.

    `outputs/artifacts` are the artifacts of the run, unless the job has an output of that name.
    """
    of_run = isinstance(ref, RunArtifact)
    if isinstance(ref, RunArtifact):
        ref = JobOutput(ref.run, "artifacts", ref.path)
    named = store.outputs_of(unit, ref.job)
    if ref.output == "artifacts" and (of_run or "artifacts" not in named):
        location = artifact_place(ref.job, ref.path)
        if files_at(unit, location).files:
            return location
        head, _, path = ref.path.strip("/").partition("/")
    else:
        head, path = ref.output, ref.path
    if head not in named:
        known = f"it has {', '.join(named)}" if named else "it has none"
        raise NotFound(f"run {ref.job} has no output {head or 'artifacts'}; {known}", code="output_not_found")
    output = parse_reference(named[head].stays_at)
    if not isinstance(output, DatastorePath):
        raise Invalid(f"output {head} of run {ref.job} lies at {named[head].uri}, which the yard does not read")
    return DatastorePath(output.datastore, output.path.rstrip("/") + "/" + path) if path else output

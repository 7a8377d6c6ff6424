"""Records of datastores and files."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ...core.clock import iso
from ...core.errors import Invalid, TooLarge
from ...core.names import safe_path
from ...ports.objects import File, Tree
from ...spec.datastore import AnyDatastore
from ...spec.loading import stored_spec
from ...spec.references import ARTIFACTSTORE, BLOBSTORE, DatastorePath, JobOutput, RunArtifact

BUILT_IN = (BLOBSTORE, ARTIFACTSTORE)
STAGING = ".uploads"
"""A pseudo datastore: blobs that were sent ahead of the upload they belong to, by digest."""

MAX_FILES = 200_000
PINNED = "Pinned/"
FOR_GOOD = ("LocalUpload/", "Shared/", PINNED)
"""Folders of the blob store whose content is addressed by its digest: it never changes and never goes."""
KEPT = ("azureml/", *FOR_GOOD)
"""Folders of the blob store that the yard itself fills, each location in them once: outputs of jobs, uploads, what a registry shares, and
content that something refers to by its digest."""


@dataclass(frozen=True)
class DatastoreRecord:
    """Its credentials lie in the vault, not here."""

    name: str
    stored: dict[str, Any]
    created_ms: int
    created_by: str

    @cached_property
    def spec(self) -> AnyDatastore:
        spec: AnyDatastore = stored_spec("datastore", self.stored, name=self.name)
        return spec

    def document(self) -> dict[str, Any]:
        return {
            **self.stored, "creation_context": {"created_at": iso(self.created_ms), "created_by": self.created_by},
            "id": f"azureml://datastores/{self.name}",
        }  # fmt: skip


@dataclass(frozen=True)
class NamedOutput:
    """An output of a job, or a model that a run logged. `content` is where it stays as it was written, when `uri` is not that location.
    `source` is the job that wrote it, of one that a pipeline or sweep has taken over."""

    type: str
    uri: str
    content: str | None = None
    source: str | None = None
    default: bool = False
    """The run's artifacts, which every job has: what lies in `./outputs` and `./logs`, the logs, what MLflow logged."""

    @property
    def stays_at(self) -> str:
        return self.content or self.uri


@dataclass(frozen=True)
class Origin:
    """The run that files come from. `writer`: the job that wrote them, where the run is a pipeline or sweep that has taken them over."""

    run: str
    writer: str | None = None


def output_folder(job: str, port: str) -> DatastorePath:
    """Where the yard keeps an output, as Azure names it."""
    return DatastorePath(BLOBSTORE, f"azureml/{job}/{port}/")


def is_kept(location: DatastorePath) -> bool:
    """Whether what lies at `location` is never written over: the yard put it there once. An output goes with its job, though."""
    return location.datastore == BLOBSTORE and location.path.startswith(KEPT)


def check_no_root(location: DatastorePath) -> None:
    """Raise Invalid for the root of a datastore: nobody means all that lies there."""
    if not location.path.strip("/"):
        raise Invalid(f"{location} is the root of a datastore; name a folder below it", code="invalid_path")


def is_for_good(location: DatastorePath) -> bool:
    """Whether what lies at `location` stays, whatever is written or deleted elsewhere."""
    return location.datastore == BLOBSTORE and location.path.startswith(FOR_GOOD)


def pinned_location(location: DatastorePath, digest: str) -> DatastorePath:
    """Where the tree with `digest` at `location` is stored for good. The last name of its path stays: models are loaded by it."""
    if location.path.startswith("LoggedModels/") and location.path.count("/") < 3:
        return DatastorePath(BLOBSTORE, f"{PINNED}{digest}/model/")
    name = location.path.rstrip("/").rsplit("/", 1)[-1]
    slash = "/" if location.path.endswith("/") or not name else ""
    return DatastorePath(BLOBSTORE, f"{PINNED}{digest}/{name}{slash}")


def artifact_place(run: str, path: str = "") -> DatastorePath:
    """Where an artifact of a run lies, as Azure names it."""
    return DatastorePath(ARTIFACTSTORE, f"ExperimentRun/dcid.{run}/{path}")


def run_behind(location: DatastorePath) -> JobOutput | RunArtifact | None:
    """The output or artifact that a location is, which the yard has named after the run that wrote it."""
    match [location.datastore, *location.path.strip("/").split("/", 3)]:
        case [str(store), "azureml", job, port, *path] if store == BLOBSTORE:
            return JobOutput(job, port, "".join(path))
        case [str(store), "ExperimentRun", run, *path] if store == ARTIFACTSTORE and run.startswith("dcid."):
            return RunArtifact(run.removeprefix("dcid."), "/".join(path))
    return None


def logged_model_place(model_id: str, path: str = "") -> DatastorePath:
    """Where the files of an MLflow 3 logged model lie."""
    return DatastorePath(ARTIFACTSTORE, f"LoggedModels/{model_id}/{path}")


def read_manifest(document: Any) -> Tree:
    """The files an upload announces: `[[path, sha256, size], …]`. Raises Invalid, TooLarge."""
    if not isinstance(document, list) or not document:
        raise Invalid("an upload lists its files as [path, sha256, size], at least one", code="invalid_manifest")
    if len(document) > MAX_FILES:
        raise TooLarge(f"an upload may have {MAX_FILES:,} files at most", code="too_many_files")
    files: dict[str, File] = {}
    for entry in document:
        if not (isinstance(entry, list) and len(entry) == 3):
            raise Invalid("an upload lists its files as [path, sha256, size]", code="invalid_manifest")
        path, digest, size = entry
        if not isinstance(path, str) or not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 2**53:
            raise Invalid("an upload lists its files as [path, sha256, size]", code="invalid_manifest")
        check_digest(digest)
        path = safe_path(path)
        if path in files:
            raise Invalid(f"the file {path} is listed twice", code="invalid_manifest")
        files[path] = File(path, digest, size)
    for path in files:
        parts = path.split("/")
        for depth in range(1, len(parts)):
            if "/".join(parts[:depth]) in files:
                raise Invalid(f"{'/'.join(parts[:depth])} is both a file and a folder", code="invalid_manifest")
    return Tree(tuple(files.values()))


def check_digest(digest: Any) -> str:
    if not isinstance(digest, str) or len(digest) != 64 or any(char not in "0123456789abcdef" for char in digest):
        raise Invalid("a digest is 64 lowercase hexadecimal digits of a SHA-256", code="invalid_digest")
    return digest

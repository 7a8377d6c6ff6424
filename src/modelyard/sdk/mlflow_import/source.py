"""What the importer reads of an MLflow store, whichever way the store holds it: a server, a SQLite file, a folder."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from ...core.errors import Invalid

Document = dict[str, Any]
Point = tuple[str, "float | str", int, int]
"""(key, value, milliseconds since 1970, step); a value that JSON has no number for is text."""
Files = list[tuple[str, Path]]
"""(path below the artifact root, local file)"""

MODEL_STATUS = {0: "LOGGED_MODEL_PENDING", 1: "LOGGED_MODEL_PENDING", 2: "LOGGED_MODEL_READY", 3: "LOGGED_MODEL_UPLOAD_FAILED"}


@dataclass
class SourceRun:
    """`document` is what the yard is sent, without its experiment; `mark` changes whenever the run does."""

    id: str
    mark: str
    lifecycle: str
    document: Document
    artifact_uri: str
    metric_keys: tuple[str, ...] = ()


@dataclass
class SourceModel:
    """A logged model; `document` as `SourceRun.document`."""

    id: str
    document: Document
    artifact_uri: str


class Unreadable(Exception):
    """Files lie where this program does not read, such as s3://…; the argument says where."""


class Source(Protocol):
    def count(self) -> int | None:
        """The number of all runs; None when it is not known before they are read."""

    def experiments(self) -> Iterator[Document]: ...

    def runs(self, experiment_id: str) -> Iterator[SourceRun]: ...

    def points(self, run: SourceRun) -> Iterator[Point]:
        """Metric after metric."""

    def artifacts(self, run: SourceRun, scratch: Path) -> Files:
        """Raises Unreadable. What has to be fetched is put into `scratch`."""

    def logged_models(self, experiment_id: str) -> Iterator[SourceModel]: ...

    def model_artifacts(self, model: SourceModel, scratch: Path) -> Files: ...

    def registered_models(self) -> Iterator[Document]:
        """As the yard is sent them; versions carry `storage_location` besides."""


@dataclass
class LocalArtifacts:
    """Resolves artifact addresses to local files, also when the store has moved or the files were a server's own."""

    roots: list[Path] = field(default_factory=list)
    """Where addresses that no longer lead anywhere, or begin with `mlflow-artifacts:`, are looked up."""

    def at(self, uri: str, *ends: str) -> Files:
        """`ends`: what the address should end with below a root, if it itself leads nowhere."""
        folder = local_path(uri)
        candidates = [folder] if folder else []
        if uri.startswith("mlflow-artifacts:"):
            ends = (*ends, unquote(urlsplit(uri).path).strip("/"))
        elif folder is None:
            raise Unreadable(uri)
        candidates += [root / end for root in self.roots for end in ends]
        existing = next((path for path in candidates if path.is_dir()), None)
        if existing is None and uri.startswith("mlflow-artifacts:") and not any(root.is_dir() for root in self.roots):
            raise Unreadable(uri)
        return files_below(existing) if existing else []


def files_below(folder: Path) -> Files:
    return [(path.relative_to(folder).as_posix(), path) for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]


def local_path(uri: str) -> Path | None:
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return Path(uri) if not parts.scheme else None


def number(value: float, is_nan: bool = False) -> float | str:
    """A metric value as JSON can carry it."""
    if is_nan or math.isnan(value):
        return "NaN"
    return value if math.isfinite(value) else ("Infinity" if value > 0 else "-Infinity")


def whole(value: Any, what: str) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise Invalid(f"{what}: {value!r} is not a whole number") from None

"""Reads a source and sends it to a yard: small runs many at a time, what is here already not again, counts compared at the end."""

from __future__ import annotations

import itertools
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from ...core.errors import AlreadyExists, Conflict, Invalid, NotFound
from ..transport import Transport
from ..upload import Progress, send_files, upload
from .file_store import FileStore
from .server import Server
from .source import Document, Files, Source, SourceModel, SourceRun, Unreadable
from .sqlite_store import SqliteStore

T = TypeVar("T")
PAGE = 500
POINTS = 20_000
"""Points in one request."""
BATCH_VALUES = 2_000
"""Small runs are sent in one request until it holds more values (points, tags and params) than this."""
MARK = "modelyard.import"


def open_source(address: str, *, deleted: bool = False, artifacts: Path | None = None) -> Source:
    """A server (http…), a SQLite file (a path, or sqlite:///…) or an `mlruns` folder. Raises NotFound, Invalid."""
    if address.startswith(("http://", "https://")):
        return Server(address, deleted=deleted)
    if "://" in address and not address.startswith(("sqlite:///", "file://")):
        raise Invalid(
            f"{address.split('://')[0]} is not read directly",
            hint="Import from the tracking server in front of it: --from http://HOST:PORT.",
        )
    path = Path(address.removeprefix("sqlite:///").removeprefix("file://").removeprefix("file:"))
    if path.is_file():
        return SqliteStore(path, deleted=deleted, artifacts=artifacts)
    if not path.is_dir():
        raise NotFound(f"{path}: there is no such file or folder", code="file_not_found")
    if (path / "mlruns").is_dir() and not any(item.name.isdigit() for item in path.iterdir()):
        path = path / "mlruns"
    if not any((item / "meta.yaml").is_file() for item in path.iterdir() if item.is_dir()):
        raise Invalid(f"{path} is not an mlruns folder: no folder in it has a meta.yaml")
    return FileStore(path, deleted=deleted, artifacts=artifacts)


class Importer:
    """One pass over a source. `notes` are sentences about what could not be taken over."""

    def __init__(self, transport: Transport, source: Source, progress: Progress | None = None) -> None:
        self._transport = transport
        self._source = source
        self._progress = progress
        self._counts: Counter[str] = Counter()
        self._seen: dict[str, str] = {}
        """run id → mark, of every run at the source."""
        self._models: set[str] = set()
        self._total = source.count()
        self._batch: list[Document] = []
        self._sending: list[Future[None]] = []
        self.notes: list[str] = []

    def run(self) -> Document:
        """Import everything. Returns the counts of what is at the source, what was here before and what is missing, and the notes."""
        with ThreadPoolExecutor(4) as self._pool, tempfile.TemporaryDirectory(prefix="yard-import-") as scratch:
            self._scratch = Path(scratch)
            for experiment in self._source.experiments():
                self._experiment(experiment)
            self._flush()
            self._settle(0)
            for model in self._source.registered_models():
                self._registered(model)
        missing = self._missing()
        return {
            **{name: self._counts[name] for name in ("experiments", "runs", "points", "files", "logged_models", "models", "versions")},
            "runs_here_before": self._counts["before"], "missing": missing, "notes": self.notes,
        }  # fmt: skip

    def _call(self, path: str, body: Document) -> Any:
        return self._transport.call("POST", self._transport.workspace_path(path), body=body)

    def _experiment(self, experiment: Document) -> None:
        source_id = experiment.pop("id")
        id = self._call("/import/experiments", experiment)["id"]
        self._counts["experiments"] += 1
        for page in _pages(self._source.runs(source_id), PAGE):
            marks = self._call("/import/marks", {"ids": [run.id for run in page]})
            for run in page:
                self._seen[run.id] = run.mark
                self._counts["runs"] += 1
                if marks.get(run.id) == run.mark:
                    self._counts["before"] += 1
                else:
                    self._run(id, run)
                if self._progress is not None:
                    self._progress("runs", self._counts["runs"], self._total or self._counts["runs"])
        for model in self._source.logged_models(source_id):
            self._logged_model(id, model)

    def _run(self, experiment: str, run: SourceRun) -> None:
        document = {**run.document, "experiment_id": experiment}
        document["tags"] = {key: value for key, value in run.document["tags"].items() if key != MARK}
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            files = self._read(f"artifacts of run {run.id}", lambda to: self._source.artifacts(run, to), Path(folder))
            chunks = _pages(_distinct(self._source.points(run)), POINTS)
            first = next(chunks, [])
            finish: Document = {
                "mark": run.mark, "lifecycle": run.lifecycle, "points": len(first), "params": len(document["params"]),
                "tags": len(document["tags"]), "files": len(files),
            }  # fmt: skip
            if not files and len(first) < POINTS:
                self._append({**document, "points": first, "finish": finish})
            else:
                self._call("/import/runs", {"runs": [{**document, "points": first}]})
                for chunk in chunks:
                    self._call(f"/import/runs/{run.id}/points", {"points": chunk})
                    finish["points"] += len(chunk)
                if files:
                    send_files(self._transport, self._transport.workspace_path(f"/runs/{run.id}/artifacts"), files, run.id)
                self._call(f"/import/runs/{run.id}/finish", finish)
        self._counts["points"] += finish["points"]
        self._counts["files"] += len(files)

    def _append(self, document: Document) -> None:
        self._batch.append(document)
        if sum(len(item["points"]) + len(item["tags"]) + len(item["params"]) for item in self._batch) > BATCH_VALUES:
            self._flush()

    def _read(self, what: str, read: Callable[[Path], Files], folder: Path) -> Files:
        try:
            return read(folder)
        except Unreadable as error:
            self._note(f"{what} lie at {error} and were not copied")
            return []

    def _logged_model(self, experiment: str, model: SourceModel) -> None:
        self._call("/import/logged-models", {**model.document, "experiment_id": experiment})
        self._counts["logged_models"] += 1
        self._models.add(model.id)
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            files = self._read(f"files of logged model {model.id}", lambda to: self._source.model_artifacts(model, to), Path(folder))
            if files:
                send_files(self._transport, self._transport.workspace_path(f"/logged-models/{model.id}/artifacts"), files, model.id)
                self._counts["files"] += len(files)

    def _note(self, text: str) -> None:
        if len(self.notes) < 100:
            self.notes.append(text)

    def _flush(self) -> None:
        """Send what waits, on a thread of its own: the source is read on meanwhile."""
        if self._batch:
            self._sending.append(self._pool.submit(self._call, "/import/runs", {"runs": self._batch}))
            self._batch = []
            self._settle(8)

    def _settle(self, most: int) -> None:
        while len(self._sending) > most:
            self._sending.pop(0).result()

    def _registered(self, model: Document) -> None:
        versions = [self._version(model["name"], version) for version in model["versions"]]
        try:
            self._call("/models/import", {**model, "versions": versions})
        except AlreadyExists as error:
            self._note(str(error))
            return
        self._counts["models"] += 1
        self._counts["versions"] += len(versions)

    def _version(self, name: str, version: Document) -> Document:
        """The version with the location of its files in the yard; files that belong to no run and no logged model are uploaded."""
        sent = dict(version)
        storage = sent.pop("storage_location", "")
        if sent["tags"].get("mlflow.prompt.is_prompt") == "true":
            return {**sent, "run_id": None, "model_id": None}
        location = _location(sent, storage)
        if location.get("model_id") and location["model_id"] not in self._models:
            self._note(f"model {name}:{sent['version']}: its logged model {location['model_id']} is not at the source")
        elif location.get("run_id") and "path" in location and location["run_id"] not in self._seen:
            self._note(f"model {name}:{sent['version']}: its run {location['run_id']} is not at the source, or deleted there (--deleted)")
        if not location:
            folder = next((Path(text.removeprefix("file://")) for text in (storage, sent["source"]) if _is_folder(text)), None)
            if folder is not None:
                location = {"uri": upload(self._transport, folder)}
            else:
                location = {"uri": sent["source"]}
                self._note(f"model {name}:{sent['version']}: its files lie at {sent['source']} and were not copied")
        return {**sent, **location}

    def _missing(self) -> int:
        """Runs of the source that are not here whole now. Raises nothing: the number is the answer."""
        ids = list(self._seen)
        whole = 0
        for start in range(0, len(ids), PAGE):
            some = ids[start : start + PAGE]
            here = self._call("/import/marks", {"ids": some})
            whole += sum(here.get(id) == self._seen[id] for id in some)
        return len(ids) - whole


def _location(version: Document, storage: str) -> Document:
    """The run and path, or the logged model, in which a version's files lie; empty when in neither."""
    if version.get("model_id"):
        return {"model_id": version["model_id"]}
    for text in (version["source"], storage):
        if match := re.search(r"(?:^models:/|/models/)(m-[0-9a-zA-Z]+)(?:/|$)", text):
            return {"model_id": match[1]}
        if match := re.match(r"runs:/([^/]+)/(.*)", text):
            return {"run_id": match[1], "path": match[2]}
        if version.get("run_id") and (match := re.search(rf"/{re.escape(version['run_id'])}/artifacts/(.*)", text)):
            return {"run_id": version["run_id"], "path": match[1]}
    return {}


def _is_folder(text: str) -> bool:
    return bool(text) and ("://" not in text or text.startswith("file://")) and Path(text.removeprefix("file://")).is_dir()


def _pages(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while page := list(itertools.islice(rest, size)):
        yield page


def _distinct(points: Iterable[Any]) -> Iterator[Any]:
    """Without repetitions within a metric: a file store may hold the same line twice, a yard keeps it once."""
    for _, group in itertools.groupby(points, key=lambda point: point[0]):
        seen = set()
        for point in group:
            if point not in seen:
                seen.add(point)
                yield point


def import_mlflow(
    transport: Transport, address: str, *, deleted: bool = False, artifacts: Path | None = None, progress: Progress | None = None
) -> Document:
    """Take over a whole MLflow store. Raises Conflict when something of it did not arrive."""
    result = Importer(transport, open_source(address, deleted=deleted, artifacts=artifacts), progress).run()
    if result["missing"]:
        raise Conflict(f"{result['missing']} runs of {address} did not arrive whole", code="import_incomplete", hint="Import again.")
    return result

"""An `mlruns` folder: a folder an experiment, a folder a run, a file a param, tag and metric."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ...core.errors import Invalid
from ...spec.states import RunState
from .source import MODEL_STATUS, Document, Files, LocalArtifacts, Point, SourceModel, SourceRun, number, whole

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class FileStore:
    def __init__(self, root: Path, *, deleted: bool, artifacts: Path | None) -> None:
        self._root = root
        self._deleted = deleted
        self._owners: dict[str, Path] = {}
        """id of a run or logged model → folder of its experiment, filled while they are listed."""
        self._local = LocalArtifacts([root, *([artifacts] if artifacts else [])])

    def _experiment_folders(self) -> Iterator[tuple[Path, str]]:
        for base, lifecycle in ((self._root, "active"), (self._root / ".trash", "deleted")):
            if lifecycle == "deleted" and not self._deleted:
                continue
            for folder in sorted(base.iterdir()) if base.is_dir() else []:
                if folder.name.isdigit() and (folder / "meta.yaml").is_file():
                    yield folder, lifecycle

    def _folder(self, experiment_id: str) -> Path:
        plain = self._root / experiment_id
        return plain if plain.is_dir() else self._root / ".trash" / experiment_id

    def count(self) -> int:
        return sum(1 for folder, _ in self._experiment_folders() for _ in _run_folders(folder))

    def experiments(self) -> Iterator[Document]:
        for folder, lifecycle in self._experiment_folders():
            meta = _meta(folder)
            changed = int(meta.get("last_update_time") or folder.stat().st_mtime * 1000)
            yield {
                "id": folder.name, "name": str(meta["name"]), "lifecycle": meta.get("lifecycle_stage") or lifecycle,
                "created_ms": int(meta.get("creation_time") or changed), "updated_ms": changed, "tags": _texts(folder / "tags"),
            }  # fmt: skip

    def runs(self, experiment_id: str) -> Iterator[SourceRun]:
        base = self._folder(experiment_id)
        for folder in _run_folders(base):
            meta = _meta(folder)
            lifecycle = str(meta.get("lifecycle_stage") or "active")
            if lifecycle == "deleted" and not self._deleted:
                continue
            tags = _texts(folder / "tags")
            inputs, models = [], []
            for item in sorted((folder / "inputs").glob("*/meta.yaml")):
                entry = _meta(item.parent)
                if entry.get("source_type") == "DATASET":
                    data = _meta(base / "datasets" / str(entry["source_id"]))
                    names = ("name", "digest", "source_type", "source", "schema", "profile")
                    dataset = {name: data[name] for name in names if data.get(name) is not None}
                    input_tags = [{"key": key, "value": str(value)} for key, value in (entry.get("tags") or {}).items()]
                    inputs.append({"dataset": dataset, "tags": input_tags})
                else:
                    models.append(str(entry["source_id"]))
            outputs = [_meta(item.parent) for item in sorted((folder / "outputs").glob("*/meta.yaml"))]
            document = {
                "id": folder.name, "name": str(meta.get("run_name") or tags.get("mlflow.runName") or folder.name),
                "status": RunState.of(meta.get("status") or RunState.FINISHED), "start_ms": meta.get("start_time"),
                "end_ms": meta.get("end_time"), "user": str(meta.get("user_id") or ""), "params": _texts(folder / "params"), "tags": tags,
                "inputs": inputs, "model_inputs": models,
                "model_outputs": [[str(item["destination_id"]), int(item.get("step") or 0)] for item in outputs],
            }  # fmt: skip
            sizes = [f"{path.relative_to(folder)} {path.stat().st_size}" for path in sorted((folder / "metrics").rglob("*"))]
            mark = hashlib.sha256(repr((document, lifecycle, sizes)).encode()).hexdigest()
            self._owners[folder.name] = base
            yield SourceRun(folder.name, mark, lifecycle, document, str(meta.get("artifact_uri") or folder / "artifacts"))

    def points(self, run: SourceRun) -> Iterator[Point]:
        base = self._owners[run.id] / run.id / "metrics"
        for path in sorted(item for item in base.rglob("*") if item.is_file()):
            key = path.relative_to(base).as_posix()
            with path.open(encoding="utf-8") as lines:
                for line in lines:
                    parts = line.split()
                    if not parts:
                        continue
                    if len(parts) < 2:
                        raise Invalid(f"{path}: the line {line.strip()[:80]!r} is not `time value step`")
                    yield key, number(float(parts[1])), whole(parts[0], str(path)), whole(parts[2], str(path)) if len(parts) > 2 else 0

    def artifacts(self, run: SourceRun, scratch: Path) -> Files:
        owner = self._owners[run.id].name
        return self._local.at(run.artifact_uri, f"{owner}/{run.id}/artifacts", f".trash/{owner}/{run.id}/artifacts")

    def logged_models(self, experiment_id: str) -> Iterator[SourceModel]:
        base = self._folder(experiment_id) / "models"
        for folder in sorted(base.iterdir()) if base.is_dir() else []:
            if not (folder / "meta.yaml").is_file():
                continue
            meta = _meta(folder)
            metrics = []
            for path in sorted(item for item in (folder / "metrics").rglob("*") if item.is_file()):
                for line in path.read_text().splitlines():
                    time_ms, value, step, run_id, *dataset = line.split()
                    metrics.append(
                        {
                            "key": path.relative_to(folder / "metrics").as_posix(), "value": number(float(value)), "time_ms": int(time_ms),
                            "step": int(step), "run_id": run_id,
                            **dict(zip(("dataset_name", "dataset_digest"), dataset, strict=False)),
                        }
                    )  # fmt: skip
            document = {
                "id": folder.name, "name": str(meta["name"]), "run_id": meta.get("source_run_id"),
                "model_type": str(meta.get("model_type") or ""), "status": MODEL_STATUS.get(meta.get("status"), "LOGGED_MODEL_READY"),  # type: ignore[arg-type]
                "status_message": str(meta.get("status_message") or ""), "created_ms": int(meta["creation_timestamp"]),
                "updated_ms": int(meta["last_updated_timestamp"]), "params": _texts(folder / "params"), "tags": _texts(folder / "tags"),
                "metrics": metrics,
            }  # fmt: skip
            self._owners[folder.name] = base.parent
            yield SourceModel(folder.name, document, str(meta.get("artifact_location") or folder / "artifacts"))

    def model_artifacts(self, model: SourceModel, scratch: Path) -> Files:
        owner = self._owners[model.id].name
        return self._local.at(model.artifact_uri, f"{owner}/models/{model.id}/artifacts")

    def registered_models(self) -> Iterator[Document]:
        base = self._root / "models"
        for folder in sorted(base.iterdir()) if base.is_dir() else []:
            if not (folder / "meta.yaml").is_file():
                continue
            meta = _meta(folder)
            versions = []
            for item in sorted(folder.glob("version-*/meta.yaml")):
                record = _meta(item.parent)
                versions.append(
                    {
                        "version": str(record["version"]), "source": str(record.get("source") or ""),
                        "created_ms": int(record["creation_timestamp"]), "updated_ms": int(record["last_updated_timestamp"]),
                        "user": str(record.get("user_id") or ""), "description": str(record.get("description") or ""),
                        "stage": str(record.get("current_stage") or "None"), "status": str(record.get("status") or "READY"),
                        "run_id": record.get("run_id") or None, "model_id": record.get("model_id") or None,
                        "storage_location": str(record.get("storage_location") or ""), "tags": _texts(item.parent / "tags"),
                    }
                )  # fmt: skip
            aliases = {**(meta.get("aliases") or {}), **_texts(folder / "aliases")}
            yield {
                "name": str(meta["name"]), "created_ms": int(meta["creation_timestamp"]), "updated_ms": int(meta["last_updated_timestamp"]),
                "description": str(meta.get("description") or ""), "tags": _texts(folder / "tags"),
                "aliases": {str(alias): str(version) for alias, version in aliases.items()}, "versions": versions,
            }  # fmt: skip


def _run_folders(experiment: Path) -> Iterator[Path]:
    for folder in sorted(experiment.iterdir()):
        if folder.name not in ("models", "datasets", "tags", "traces") and (folder / "meta.yaml").is_file():
            yield folder


def _meta(folder: Path) -> Document:
    path = folder / "meta.yaml"
    try:
        record = yaml.load(path.read_bytes(), _Loader)  # noqa: S506 (a safe loader)
    except (OSError, yaml.YAMLError) as error:
        raise Invalid(f"{path} cannot be read: {error}") from None
    if not isinstance(record, dict):
        raise Invalid(f"{path} is not a record of MLflow")
    return record


def _texts(folder: Path) -> dict[str, str]:
    """A file a value; a name with slashes is a path."""
    if not folder.is_dir():
        return {}
    return {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*")) if path.is_file()}

"""MLflow's SQL schema in a SQLite file, read as it is: columns that a release does not have yet are taken as empty."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...core.errors import Invalid
from .source import MODEL_STATUS, Document, Files, LocalArtifacts, Point, SourceModel, SourceRun, number

PAGE = 500


class SqliteStore:
    def __init__(self, file: Path, *, deleted: bool, artifacts: Path | None) -> None:
        try:
            # Read-only, and never waiting on a writer: the file may belong to a server that runs.
            self._db = sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True, timeout=30)
            self._db.row_factory = sqlite3.Row
            tables = [row[0] for row in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        except sqlite3.Error as error:
            raise Invalid(f"{file} cannot be read as a SQLite database: {error}") from None
        if not {"experiments", "runs", "metrics", "params"} <= set(tables):
            raise Invalid(f"{file} is a SQLite database, but not MLflow's: it has no table of experiments and runs")
        self._tables = set(tables)
        self._lifecycles = ("active", "deleted") if deleted else ("active",)
        base = file.resolve().parent
        self._local = LocalArtifacts([*([artifacts] if artifacts else []), base / "mlartifacts", base / "mlruns"])

    def _all(self, query: str, *values: Any) -> list[dict[str, Any]]:
        return [dict(row) for row in self._db.execute(query, values)]

    def _rows(self, table: str, where: str = "1", *values: Any) -> list[dict[str, Any]]:
        return self._all(f"SELECT * FROM {table} WHERE {where}", *values) if table in self._tables else []

    def _live(self) -> str:
        return "lifecycle_stage IN ({})".format(", ".join(f"'{name}'" for name in self._lifecycles))

    def count(self) -> int:
        return int(self._all(f"SELECT count(*) AS n FROM runs WHERE {self._live()}")[0]["n"])

    def experiments(self) -> Iterator[Document]:
        for row in self._rows("experiments", self._live() + " ORDER BY experiment_id"):
            tags = self._pairs("experiment_tags", "experiment_id", row["experiment_id"])
            created = row.get("creation_time") or 0
            yield {
                "id": str(row["experiment_id"]), "name": row["name"], "lifecycle": row["lifecycle_stage"], "created_ms": created,
                "updated_ms": row.get("last_update_time") or created, "tags": tags,
            }  # fmt: skip

    def _pairs(self, table: str, column: str, id: Any) -> dict[str, str]:
        return {row["key"]: row["value"] or "" for row in self._rows(table, f"{column} = ?", id)}

    def runs(self, experiment_id: str) -> Iterator[SourceRun]:
        after = ""
        while True:
            where = f"experiment_id = ? AND run_uuid > ? AND {self._live()} ORDER BY run_uuid LIMIT {PAGE}"
            rows = self._rows("runs", where, int(experiment_id), after)
            yield from self._filled(rows)
            if len(rows) < PAGE:
                return
            after = rows[-1]["run_uuid"]

    def _filled(self, rows: list[dict[str, Any]]) -> Iterator[SourceRun]:
        """One query a table for a page of runs."""
        ids = [row["run_uuid"] for row in rows]
        marks = ", ".join("?" * len(ids))
        params, tags, latest = (self._grouped(table, f"run_uuid IN ({marks})", ids) for table in ("params", "tags", "latest_metrics"))
        inputs = self._inputs(ids, marks)
        for row in rows:
            id = row["run_uuid"]
            own_tags = {tag["key"]: tag["value"] or "" for tag in tags.get(id, [])}
            document = {
                "id": id, "name": row.get("name") or own_tags.get("mlflow.runName") or id, "status": row["status"],
                "start_ms": row["start_time"], "end_ms": row["end_time"], "user": row["user_id"] or "",
                "params": {param["key"]: param["value"] for param in params.get(id, [])}, "tags": own_tags,
                **inputs.get(id, {}),
            }  # fmt: skip
            newest = [(m["key"], m["value"], m["timestamp"], m["step"]) for m in latest.get(id, [])]
            mark = hashlib.sha256(repr((document, row["lifecycle_stage"], sorted(newest, key=repr))).encode()).hexdigest()
            yield SourceRun(id, mark, row["lifecycle_stage"], document, row["artifact_uri"] or "")

    def _grouped(self, table: str, where: str, values: list[str]) -> dict[str, list[dict[str, Any]]]:
        rows_of: dict[str, list[dict[str, Any]]] = {}
        for row in self._rows(table, where, *values):
            rows_of.setdefault(row["run_uuid"], []).append(row)
        return rows_of

    def _inputs(self, ids: list[str], marks: str) -> dict[str, Document]:
        """run id → its datasets, input models and output models."""
        inputs_of: dict[str, Document] = {}

        def of(id: str) -> Document:
            return inputs_of.setdefault(id, {"inputs": [], "model_inputs": [], "model_outputs": []})

        if "inputs" not in self._tables:
            return inputs_of
        for row in self._rows("inputs", f"destination_id IN ({marks})", *ids):
            if row["source_type"] == "DATASET":
                for data in self._rows("datasets", "dataset_uuid = ?", row["source_id"]):
                    dataset = {
                        "name": data["name"], "digest": data["digest"], "source_type": data["dataset_source_type"],
                        "source": data["dataset_source"], "schema": data["dataset_schema"], "profile": data["dataset_profile"],
                    }  # fmt: skip
                    tags = [{"key": t["name"], "value": t["value"]} for t in self._rows("input_tags", "input_uuid = ?", row["input_uuid"])]
                    dataset = {key: value for key, value in dataset.items() if value is not None}
                    of(row["destination_id"])["inputs"].append({"dataset": dataset, "tags": tags})
            else:
                of(row["destination_id"])["model_inputs"].append(row["source_id"])
        for row in self._rows("inputs", f"source_type = 'RUN_OUTPUT' AND source_id IN ({marks})", *ids):
            of(row["source_id"])["model_outputs"].append([row["destination_id"], row.get("step") or 0])
        return inputs_of

    def points(self, run: SourceRun) -> Iterator[Point]:
        query = "SELECT key, value, timestamp, step, is_nan FROM metrics WHERE run_uuid = ? ORDER BY key, step, timestamp"
        for row in self._db.execute(query, (run.id,)):
            yield row["key"], number(row["value"], bool(row["is_nan"])), row["timestamp"], row["step"]

    def artifacts(self, run: SourceRun, scratch: Path) -> Files:
        return self._local.at(run.artifact_uri, "/".join(run.artifact_uri.rsplit("/", 3)[-3:])) if run.artifact_uri else []

    def logged_models(self, experiment_id: str) -> Iterator[SourceModel]:
        for row in self._rows("logged_models", f"experiment_id = ? AND {self._live()} ORDER BY model_id", int(experiment_id)):
            id = row["model_id"]
            metrics = [
                {
                    "key": m["metric_name"], "value": number(m["metric_value"] if m["metric_value"] is not None else float("nan")),
                    "time_ms": m["metric_timestamp_ms"], "step": m["metric_step"], "run_id": m["run_id"],
                    "dataset_name": m["dataset_name"] or "", "dataset_digest": m["dataset_digest"] or "",
                }
                for m in self._rows("logged_model_metrics", "model_id = ?", id)
            ]  # fmt: skip
            document = {
                "id": id, "name": row["name"], "run_id": row["source_run_id"], "model_type": row["model_type"] or "",
                "status": MODEL_STATUS.get(row["status"], "LOGGED_MODEL_READY"), "status_message": row["status_message"] or "",
                "created_ms": row["creation_timestamp_ms"], "updated_ms": row["last_updated_timestamp_ms"],
                "params": {p["param_key"]: p["param_value"] for p in self._rows("logged_model_params", "model_id = ?", id)},
                "tags": {t["tag_key"]: t["tag_value"] for t in self._rows("logged_model_tags", "model_id = ?", id)},
                "metrics": metrics,
            }  # fmt: skip
            yield SourceModel(id, document, row["artifact_location"])

    def model_artifacts(self, model: SourceModel, scratch: Path) -> Files:
        return self._local.at(model.artifact_uri, "/".join(model.artifact_uri.rsplit("/", 4)[-4:]))

    def registered_models(self) -> Iterator[Document]:
        for row in self._rows("registered_models", "1 ORDER BY name"):
            versions = [
                {
                    "version": str(v["version"]), "source": v["source"] or "", "created_ms": v["creation_time"] or 0,
                    "updated_ms": v["last_updated_time"] or 0, "user": v["user_id"] or "", "description": v["description"] or "",
                    "stage": v["current_stage"] or "None", "status": v["status"] or "READY", "run_id": v["run_id"] or None,
                    "storage_location": v.get("storage_location") or "",
                    "tags": self._named("model_version_tags", "key", "value", row["name"], v["version"]),
                }
                for v in self._rows("model_versions", "name = ? AND current_stage != 'Deleted_Internal' ORDER BY version", row["name"])
            ]  # fmt: skip
            yield {
                "name": row["name"], "created_ms": row["creation_time"] or 0, "updated_ms": row["last_updated_time"] or 0,
                "description": row["description"] or "", "tags": self._named("registered_model_tags", "key", "value", row["name"]),
                "aliases": self._named("registered_model_aliases", "alias", "version", row["name"]), "versions": versions,
            }  # fmt: skip

    def _named(self, table: str, key: str, value: str, name: str, version: int | None = None) -> dict[str, str]:
        where, values = ("name = ?", [name]) if version is None else ("name = ? AND version = ?", [name, version])
        return {row[key]: str(row[value] if row[value] is not None else "") for row in self._rows(table, where, *values)}

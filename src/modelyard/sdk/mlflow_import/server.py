"""A tracking server, read over MLflow's REST protocol; another yard is one too."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from ...core.errors import Forbidden, Invalid, Unavailable
from .source import Document, Files, Point, SourceModel, SourceRun, number

API = "/api/2.0/mlflow/"


class Server:
    def __init__(self, uri: str, *, deleted: bool) -> None:
        user, password, token = (os.environ.get(f"MLFLOW_TRACKING_{name}") for name in ("USERNAME", "PASSWORD", "TOKEN"))
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        auth = (user, password or "") if user and not token else None
        self._client = httpx.Client(base_url=uri.rstrip("/"), headers=headers, auth=auth, timeout=120, follow_redirects=False)
        self._view = "ALL" if deleted else "ACTIVE_ONLY"
        self._ask("POST", "experiments/search", {"max_results": 1})

    def _ask(self, method: str, path: str, /, body: Any = None, *, maybe: bool = False, **params: Any) -> Document:
        """The decoded answer. `maybe`: an older server may not know the call; then it is empty."""
        response = self._send(method, path if path.startswith("/") else API + path, body, params)
        if maybe and response.status_code in (404, 405, 501):
            return {}
        if response.status_code in (401, 403):
            hint = "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
            raise Forbidden(f"{self._client.base_url} answers {response.status_code} to {path}", hint=hint)
        if response.status_code != 200:
            raise Unavailable(f"{self._client.base_url} answers {response.status_code} to {path}: {response.text[:200]}")
        try:
            answer = json.loads(response.content)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise Invalid(f"{self._client.base_url} is not an MLflow tracking server: it answers {response.text[:80]!r} to {path}")
        return answer

    def _send(self, method: str, path: str, body: Any, params: dict[str, Any]) -> httpx.Response:
        for attempt in range(4):
            try:
                return self._client.request(method, path, json=body, params=params)
            except httpx.TransportError as error:
                if attempt == 3 or isinstance(error, httpx.ConnectError):
                    raise Unavailable(f"{self._client.base_url} cannot be reached: {error}", code="unreachable") from None
        raise AssertionError

    def _pages(self, method: str, path: str, key: str, body: Document, *, maybe: bool = False) -> Iterator[Document]:
        token = None
        while True:
            sent = {**body, **({"page_token": token} if token else {})}
            page = self._ask(method, path, sent, maybe=maybe) if method == "POST" else self._ask(method, path, maybe=maybe, **sent)
            yield from page.get(key, [])
            token = page.get("next_page_token")
            if not token:
                return

    def count(self) -> None:
        return None

    def experiments(self) -> Iterator[Document]:
        for experiment in self._pages("POST", "experiments/search", "experiments", {"max_results": 1000, "view_type": self._view}):
            created = int(experiment.get("creation_time") or 0)
            yield {
                "id": experiment["experiment_id"], "name": experiment["name"], "lifecycle": experiment["lifecycle_stage"], "created_ms": created,
                "updated_ms": int(experiment.get("last_update_time") or created), "tags": _pairs(experiment.get("tags")),
            }  # fmt: skip

    def runs(self, experiment_id: str) -> Iterator[SourceRun]:
        query = {"experiment_ids": [experiment_id], "max_results": 1000, "run_view_type": self._view}
        for run in self._pages("POST", "runs/search", "runs", query):
            info, data = run["info"], run.get("data", {})
            inputs, outputs = run.get("inputs") or {}, run.get("outputs") or {}
            tags, metrics = _pairs(data.get("tags")), data.get("metrics", [])
            document = {
                "id": info["run_id"], "name": info.get("run_name") or tags.get("mlflow.runName") or info["run_id"],
                "status": info["status"], "start_ms": _maybe(info.get("start_time")), "end_ms": _maybe(info.get("end_time")),
                "user": info.get("user_id") or tags.get("mlflow.user", ""), "params": _pairs(data.get("params")), "tags": tags,
                "inputs": inputs.get("dataset_inputs", []), "model_inputs": [item["model_id"] for item in inputs.get("model_inputs", [])],
                "model_outputs": [[item["model_id"], int(item.get("step") or 0)] for item in outputs.get("model_outputs", [])],
            }  # fmt: skip
            newest = sorted((m["key"], str(m.get("value")), m.get("timestamp"), m.get("step")) for m in metrics)
            mark = hashlib.sha256(repr((document, info["lifecycle_stage"], newest)).encode()).hexdigest()
            keys = tuple(m["key"] for m in metrics)
            yield SourceRun(info["run_id"], mark, info["lifecycle_stage"], document, info.get("artifact_uri") or "", keys)

    def points(self, run: SourceRun) -> Iterator[Point]:
        for key in run.metric_keys:
            for m in self._pages("GET", "metrics/get-history", "metrics", {"run_id": run.id, "metric_key": key, "max_results": 25_000}):
                yield m["key"], number(float(m.get("value", 0))), int(m.get("timestamp") or 0), int(m.get("step") or 0)

    def artifacts(self, run: SourceRun, scratch: Path) -> Files:
        return self._fetch(scratch, lambda path: self._run_listing(run.id, path), "/get-artifact", {"run_uuid": run.id}, "path")

    def _run_listing(self, id: str, path: str) -> list[Document]:
        return list(self._pages("GET", "artifacts/list", "files", {"run_id": id, **({"path": path} if path else {})}))

    def _fetch(self, scratch: Path, listing: Any, address: str, fixed: Document, name: str) -> Files:
        """Walk the listing and fetch every file into `scratch`."""
        files: Files = []
        folders = [""]
        while folders:
            for item in listing(folders.pop()):
                if item.get("is_dir"):
                    folders.append(item["path"])
                    continue
                target = scratch / f"{len(files)}"
                with self._client.stream("GET", address, params={**fixed, name: item["path"]}) as response:
                    if response.status_code != 200:
                        raise Unavailable(f"{self._client.base_url} answers {response.status_code} to {address} for {item['path']}")
                    with target.open("wb") as out:
                        for chunk in response.iter_bytes(1 << 20):
                            out.write(chunk)
                files.append((item["path"], target))
        return files

    def logged_models(self, experiment_id: str) -> Iterator[SourceModel]:
        for model in self._pages("POST", "logged-models/search", "models", {"experiment_ids": [experiment_id]}, maybe=True):
            info, data = model["info"], model.get("data") or {}
            metrics = [
                {
                    "key": m["key"], "value": number(float(m.get("value", 0))), "time_ms": int(m.get("timestamp") or 0),
                    "step": int(m.get("step") or 0), "run_id": m.get("run_id") or info.get("source_run_id") or "",
                    "dataset_name": m.get("dataset_name") or "", "dataset_digest": m.get("dataset_digest") or "",
                }
                for m in data.get("metrics", [])
            ]  # fmt: skip
            document = {
                "id": info["model_id"], "name": info["name"], "run_id": info.get("source_run_id") or None,
                "model_type": info.get("model_type") or "", "status": info.get("status") or "LOGGED_MODEL_READY",
                "status_message": info.get("status_message") or "", "created_ms": int(info.get("creation_timestamp_ms") or 0),
                "updated_ms": int(info.get("last_updated_timestamp_ms") or 0), "params": _pairs(data.get("params")),
                "tags": _pairs(info.get("tags")), "metrics": metrics,
            }  # fmt: skip
            yield SourceModel(info["model_id"], document, info.get("artifact_uri") or "")

    def model_artifacts(self, model: SourceModel, scratch: Path) -> Files:
        base = f"logged-models/{model.id}/artifacts"

        def listing(path: str) -> list[Document]:
            query = {"artifact_directory_path": path} if path else {}
            return list(self._pages("GET", f"{base}/directories", "files", query))

        return self._fetch(scratch, listing, f"/ajax-api/2.0/mlflow/{base}/files", {}, "artifact_file_path")

    def registered_models(self) -> Iterator[Document]:
        for model in self._pages("GET", "registered-models/search", "registered_models", {"max_results": 100}, maybe=True):
            name = model["name"]
            versions = [
                {
                    "version": str(v["version"]), "source": v.get("source") or "", "created_ms": int(v.get("creation_timestamp") or 0),
                    "updated_ms": int(v.get("last_updated_timestamp") or 0), "user": v.get("user_id") or "",
                    "description": v.get("description") or "", "stage": v.get("current_stage") or "None", "status": v.get("status") or "READY",
                    "run_id": v.get("run_id") or None, "model_id": v.get("model_id") or None, "storage_location": "",
                    "tags": _pairs(v.get("tags")),
                }
                for v in self._pages("GET", "model-versions/search", "model_versions", {"filter": "name=" + _quoted(name)})
            ]  # fmt: skip
            whole = self._ask("GET", "registered-models/get", name=name)["registered_model"]
            yield {
                "name": name, "created_ms": int(model.get("creation_timestamp") or 0),
                "updated_ms": int(model.get("last_updated_timestamp") or 0), "description": model.get("description") or "",
                "tags": _pairs(whole.get("tags")),
                "aliases": {item["alias"]: str(item["version"]) for item in whole.get("aliases", [])}, "versions": versions,
            }  # fmt: skip


def _pairs(items: Any) -> dict[str, str]:
    return {item["key"]: item.get("value") or "" for item in items or ()}


def _maybe(value: Any) -> int | None:
    return int(value) if value else None


def _quoted(text: str) -> str:
    return '"' + text + '"' if "'" in text else f"'{text}'"

"""Records as MLflow spells them."""

from __future__ import annotations

from typing import Any

from ...assets.models.model import ModelVersion, RegisteredModel
from ...work.tracking.model import Experiment, LoggedModel, Metric, Point, Run


def filled(document: dict[str, Any]) -> dict[str, Any]:
    """Without what is empty, as protobuf's JSON leaves it out."""
    return {key: value for key, value in document.items() if value not in ([], (), None)}


def pairs(values: dict[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in values.items()]


def experiment(record: Experiment) -> dict[str, Any]:
    return filled(
        {
            "experiment_id": record.id,
            "name": record.name,
            "artifact_location": record.artifact_location,
            "lifecycle_stage": record.lifecycle,
            "creation_time": record.created_ms,
            "last_update_time": record.updated_ms,
            "tags": pairs(record.tags),
        }
    )


def metric(point: Metric) -> dict[str, Any]:
    key, value, time_ms, step, is_nan, _, _ = point
    return {"key": key, "value": "NaN" if is_nan else value, "timestamp": time_ms, "step": step}


def history(key: str, points: list[Point]) -> list[dict[str, Any]]:
    return [
        {"key": key, "value": "NaN" if is_nan else value, "timestamp": time_ms, "step": step} for step, time_ms, value, is_nan in points
    ]


def run_info(record: Run) -> dict[str, Any]:
    info: dict[str, Any] = {
        "run_id": record.id,
        "run_uuid": record.id,
        "run_name": record.name,
        "experiment_id": record.experiment_id,
        "user_id": record.user,
        "status": record.status,
        "artifact_uri": artifact_uri(record),
        "lifecycle_stage": record.lifecycle,
        "start_time": record.start_ms,
    }
    if record.end_ms is not None:
        info["end_time"] = record.end_ms
    return info


def artifact_uri(record: Run) -> str:
    return f"mlflow-artifacts:/{record.experiment_id}/{record.id}/artifacts"


def run(record: Run) -> dict[str, Any]:
    data = {"metrics": [metric(point) for point in record.metrics], "params": pairs(record.params), "tags": pairs(record.tags)}
    inputs: dict[str, Any] = {}
    outputs: dict[str, Any] = {}
    for item in record.inputs:
        if item["kind"] == "dataset":
            inputs.setdefault("dataset_inputs", []).append({"dataset": item["dataset"], "tags": item["tags"]})
        elif item["kind"] == "model_input":
            inputs.setdefault("model_inputs", []).append({"model_id": item["model_id"]})
        else:
            outputs.setdefault("model_outputs", []).append({"model_id": item["model_id"], "step": item.get("step", 0)})
    return {"info": run_info(record), "data": filled(data), "inputs": inputs, "outputs": outputs}


_STATUS = {"READY": "LOGGED_MODEL_READY", "FAILED": "LOGGED_MODEL_UPLOAD_FAILED"}


def logged_model(record: LoggedModel) -> dict[str, Any]:
    info = {
        "model_id": record.id,
        "experiment_id": record.experiment_id,
        "name": record.name,
        "creation_timestamp_ms": record.created_ms,
        "last_updated_timestamp_ms": record.updated_ms,
        "artifact_uri": f"mlflow-artifacts:/{record.experiment_id}/models/{record.id}/artifacts",
        "status": _STATUS.get(record.status, record.status),
        "model_type": record.model_type,
        "status_message": record.status_message or None,
        "tags": pairs(record.tags),
        "source_run_id": record.run_id or None,
    }
    return {"info": filled(info), "data": filled({"params": pairs(record.params), "metrics": [_model_metric(m) for m in record.metrics]})}


def _model_metric(point: dict[str, Any]) -> dict[str, Any]:
    name, _, digest = point["dataset"].rpartition("@")
    shown = {key: value for key, value in point.items() if key != "dataset"}
    return {**shown, **({"dataset_name": name, "dataset_digest": digest} if name else {})}


def registered_model(record: RegisteredModel) -> dict[str, Any]:
    return filled(
        {
            "name": record.name,
            "creation_timestamp": record.created_ms,
            "last_updated_timestamp": record.updated_ms,
            "description": record.description,
            "latest_versions": [model_version(version) for version in record.latest],
            "tags": pairs(record.tags),
            "aliases": [{"alias": alias, "version": version} for alias, version in record.aliases.items()],
        }
    )


def model_version(record: ModelVersion) -> dict[str, Any]:
    answer = {
        "name": record.name,
        "version": record.version,
        "creation_timestamp": record.created_ms,
        "last_updated_timestamp": record.updated_ms,
        "user_id": record.created_by,
        "current_stage": record.stage,
        "description": record.description,
        "source": record.source,
        "run_id": record.run_id or "",
        "status": record.status,
        "run_link": "",
        "tags": pairs(record.tags),
        "aliases": list(record.aliases),
    }
    if record.model_id:
        answer["model_id"] = record.model_id
    return filled(answer)

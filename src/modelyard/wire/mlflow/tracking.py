"""Experiments, runs, metrics, params, tags, inputs, logged models."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request

from ...core.errors import Invalid
from ...engine.http import Call, limited_body
from ...work.tracking import service
from ...work.tracking.model import Metric, check_key, check_text, read_metric
from . import shapes
from .app import route

MAX_BODY = 32 * 2**20


class MetricBody(msgspec.Struct):
    key: str | None = None
    value: float | str | None = None
    timestamp: int | None = None
    step: int | None = None
    model_id: str | None = None


class PairBody(msgspec.Struct):
    key: str | None = None
    value: str | None = None


class LogMetric(MetricBody):
    run_id: str | None = None
    run_uuid: str | None = None


class LogPair(PairBody):
    run_id: str | None = None
    run_uuid: str | None = None


class LogBatch(msgspec.Struct):
    run_id: str | None = None
    metrics: list[MetricBody] = []
    params: list[PairBody] = []
    tags: list[PairBody] = []


class CreateRun(msgspec.Struct):
    experiment_id: str | int | None = None
    user_id: str | None = None
    run_name: str | None = None
    start_time: int | None = None
    tags: list[PairBody] = []


class UpdateRun(msgspec.Struct):
    run_id: str | None = None
    run_uuid: str | None = None
    status: str | int | None = None
    end_time: int | None = None
    run_name: str | None = None


class SearchRuns(msgspec.Struct):
    experiment_ids: list[str | int] = []
    filter: str | None = None
    run_view_type: str = "ACTIVE_ONLY"
    max_results: int = 1000
    order_by: list[str] = []
    page_token: str | None = None


async def body(call: Call, kind: Any) -> Any:
    """The JSON body as a Struct. Numbers may come as text, as protobuf's JSON allows. Raises Invalid."""
    data = await limited_body(call.request, MAX_BODY)
    try:
        return msgspec.json.decode(data or b"{}", type=kind, strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"Invalid request body: {error}", code="invalid_json") from None


def query(request: Request, name: str, default: str = "") -> str:
    return request.query_params.get(name, default)


def number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text.lstrip("-").isdigit() or len(text) > 18:
        raise Invalid(f"Invalid value {text[:40]!r} for parameter '{name}': an integer is needed")
    return int(text)


def needed(value: Any, name: str) -> Any:
    if value is None or value == "":
        raise Invalid(f"Missing value for required parameter '{name}'. See the API docs for more information about request parameters.")
    return value


def tag_map(items: list[PairBody]) -> dict[str, str]:
    return {needed(item.key, "key"): item.value or "" for item in items}


def loose_tags(items: Any) -> dict[str, str]:
    if not isinstance(items, list) or not all(isinstance(item, dict) and isinstance(item.get("key"), str) for item in items):
        raise Invalid("tags and params are lists of {key, value}")
    return {item["key"]: "" if item.get("value") is None else str(item["value"]) for item in items}


# Experiments


@route("POST", "mlflow/experiments/create")
async def create_experiment(call: Call, _: dict[str, str]) -> Any:
    sent = await call.json()
    tags = loose_tags(sent.get("tags") or [])
    id = await call.write(service.create_experiment, needed(sent.get("name"), "name"), str(sent.get("artifact_location") or ""), tags)
    return {"experiment_id": id}


@route("GET", "mlflow/experiments/get")
async def get_experiment(call: Call, _: dict[str, str]) -> Any:
    return {
        "experiment": shapes.experiment(
            await call.lookup(service.get_experiment, needed(query(call.request, "experiment_id"), "experiment_id"))
        )
    }


@route("GET", "mlflow/experiments/get-by-name")
async def get_experiment_by_name(call: Call, _: dict[str, str]) -> Any:
    name = needed(query(call.request, "experiment_name"), "experiment_name")
    return {"experiment": shapes.experiment(await call.lookup(service.get_experiment_by_name, name))}


@route("POST", "mlflow/experiments/update")
async def update_experiment(call: Call, _: dict[str, str]) -> Any:
    sent = await call.json()
    await call.write(
        service.update_experiment, needed(sent.get("experiment_id"), "experiment_id"), needed(sent.get("new_name"), "new_name")
    )
    return {}


@route("POST", "mlflow/experiments/delete")
async def delete_experiment(call: Call, _: dict[str, str]) -> Any:
    await call.write(service.delete_experiment, needed((await call.json()).get("experiment_id"), "experiment_id"))
    return {}


@route("POST", "mlflow/experiments/restore")
async def restore_experiment(call: Call, _: dict[str, str]) -> Any:
    await call.write(service.restore_experiment, needed((await call.json()).get("experiment_id"), "experiment_id"))
    return {}


@route("POST", "mlflow/experiments/set-experiment-tag")
async def set_experiment_tag(call: Call, _: dict[str, str]) -> Any:
    sent = await call.json()
    await call.write(service.set_experiment_tag, needed(sent.get("experiment_id"), "experiment_id"), sent.get("key"), sent.get("value"))
    return {}


@route("POST", "mlflow/experiments/delete-experiment-tag")
async def delete_experiment_tag(call: Call, _: dict[str, str]) -> Any:
    sent = await call.json()
    await call.write(service.delete_experiment_tag, needed(sent.get("experiment_id"), "experiment_id"), needed(sent.get("key"), "key"))
    return {}


@route("GET POST", "mlflow/experiments/search")
async def search_experiments(call: Call, _: dict[str, str]) -> Any:
    if call.request.method == "GET":
        parameters = call.request.query_params
        sent: dict[str, Any] = {
            **parameters,
            "order_by": parameters.getlist("order_by"),
            "max_results": number(call.request, "max_results", 1000),
        }
    else:
        sent = await call.json()
    limit = sent.get("max_results") or 1000
    if not isinstance(limit, int):
        raise Invalid("Invalid value for parameter 'max_results': an integer is needed")
    page = await _reader(call, sent.get("filter"), limit, quick_order=not sent.get("order_by"))(
        service.search_experiments,
        sent.get("filter"),
        sent.get("order_by"),
        sent.get("view_type") or "ACTIVE_ONLY",
        limit,
        sent.get("page_token"),
    )
    return _paged({"experiments": [shapes.experiment(item) for item in page.items]}, page.next_token)


def _reader(call: Call, filter: str | None, limit: int, *, quick_order: bool) -> Any:
    """A small page that an index gives in its order is looked up on the spot; what may scan goes to a thread."""
    return call.lookup if not filter and limit <= 200 and quick_order else call.read


def _paged(document: dict[str, Any], token: str | None) -> dict[str, Any]:
    if token:
        document["next_page_token"] = token
    return document


# Runs


@route("POST", "mlflow/runs/create")
async def create_run(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, CreateRun)
    run = await call.write(
        service.create_run, needed(sent.experiment_id, "experiment_id") if sent.experiment_id != 0 else 0, user=sent.user_id or "",
        name=sent.run_name or "", start_ms=sent.start_time, tags=tag_map(sent.tags),
    )  # fmt: skip
    return {"run": shapes.run(run)}


@route("GET", "mlflow/runs/get")
async def get_run(call: Call, _: dict[str, str]) -> Any:
    id = query(call.request, "run_id") or query(call.request, "run_uuid")
    return {"run": shapes.run(await call.lookup(service.get_run, needed(id, "run_id")))}


@route("POST", "mlflow/runs/update")
async def update_run(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, UpdateRun)
    names = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}
    status = names.get(sent.status, str(sent.status)) if isinstance(sent.status, int) else sent.status
    id = needed(sent.run_id or sent.run_uuid, "run_id")
    run = await call.write(service.update_run, id, status=status, end_ms=sent.end_time, name=sent.run_name)
    return {"run_info": shapes.run_info(run)}


@route("POST", "mlflow/runs/delete")
async def delete_run(call: Call, _: dict[str, str]) -> Any:
    await call.write(service.delete_run, needed((await call.json()).get("run_id"), "run_id"))
    return {}


@route("POST", "mlflow/runs/restore")
async def restore_run(call: Call, _: dict[str, str]) -> Any:
    await call.write(service.restore_run, needed((await call.json()).get("run_id"), "run_id"))
    return {}


def _metric(sent: MetricBody) -> Metric:
    if not sent.key or sent.value is None or sent.timestamp is None:
        for name in ("key", "value", "timestamp"):
            needed(getattr(sent, name), name)
    return read_metric(sent.key, sent.value, sent.timestamp, sent.step or 0, sent.model_id)


@route("POST", "mlflow/runs/log-metric")
async def log_metric(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, LogMetric)
    await call.write(service.log_metric, needed(sent.run_id or sent.run_uuid, "run_id"), _metric(sent))
    return {}


@route("POST", "mlflow/runs/log-parameter")
async def log_parameter(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, LogPair)
    await call.write(service.log_param, needed(sent.run_id or sent.run_uuid, "run_id"), needed(sent.key, "key"), sent.value or "")
    return {}


@route("POST", "mlflow/runs/set-tag")
async def set_tag(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, LogPair)
    await call.write(service.set_tag, needed(sent.run_id or sent.run_uuid, "run_id"), needed(sent.key, "key"), sent.value or "")
    return {}


@route("POST", "mlflow/runs/delete-tag")
async def delete_tag(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, LogPair)
    await call.write(service.delete_tag, needed(sent.run_id, "run_id"), needed(sent.key, "key"))
    return {}


@route("POST", "mlflow/runs/log-batch")
async def log_batch(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, LogBatch)
    points = [_metric(item) for item in sent.metrics]
    params = [(needed(item.key, "key"), item.value or "") for item in sent.params]
    tags = [(needed(item.key, "key"), item.value or "") for item in sent.tags]
    await call.write(service.log_batch, needed(sent.run_id, "run_id"), points, params, tags)
    return {}


@route("POST", "mlflow/runs/log-inputs")
async def log_inputs(call: Call, _: dict[str, str]) -> Any:
    sent = await call.json()
    datasets, models = sent.get("datasets") or [], sent.get("models") or []
    if not isinstance(datasets, list) or not all(isinstance(item, dict) for item in (*datasets, *models)):
        raise Invalid("datasets is a list of dataset inputs, models a list of model inputs")
    ids = [str(item.get("model_id")) for item in models]
    await call.write(service.log_inputs, needed(sent.get("run_id"), "run_id"), datasets, ids)
    return {}


@route("POST", "mlflow/runs/outputs")
async def log_outputs(call: Call, _: dict[str, str]) -> Any:
    sent = await call.json()
    models = sent.get("models") or []
    if not isinstance(models, list) or not all(isinstance(item, dict) for item in models):
        raise Invalid("models is a list of model outputs")
    await call.write(service.log_outputs, needed(sent.get("run_id"), "run_id"), models)
    return {}


@route("POST", "mlflow/runs/log-model")
async def log_model(call: Call, _: dict[str, str]) -> Any:
    sent = await call.json()
    text = str(sent.get("model_json") or "")[:8000]
    await call.write(service.set_tag, needed(sent.get("run_id"), "run_id"), "mlflow.log-model.history", f"[{text}]")
    return {}


@route("POST", "mlflow/runs/search")
async def search_runs(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, SearchRuns)
    indexed = not sent.order_by or (len(sent.order_by) == 1 and sent.order_by[0].startswith("metric"))
    reader = _reader(call, sent.filter, sent.max_results, quick_order=indexed and len(sent.experiment_ids) == 1)
    page = await reader(
        service.search_runs, sent.experiment_ids, sent.filter, sent.order_by, sent.run_view_type, sent.max_results, sent.page_token
    )
    return _paged({"runs": [shapes.run(item) for item in page.items]}, page.next_token)


@route("GET", "mlflow/metrics/get-history")
async def get_history(call: Call, _: dict[str, str]) -> Any:
    request = call.request
    id = needed(query(request, "run_id") or query(request, "run_uuid"), "run_id")
    limit = number(request, "max_results", 25_000) if "max_results" in request.query_params else None
    key = check_key("metric", query(request, "metric_key"))
    page = await call.read(service.metric_history, id, key, limit, query(request, "page_token") or None)
    return _paged({"metrics": shapes.history(key, page.items)}, page.next_token)


@route("GET", "mlflow/metrics/get-history-bulk-interval")
async def get_history_bulk(call: Call, _: dict[str, str]) -> Any:
    request = call.request
    key = check_key("metric", query(request, "metric_key"))
    most = number(request, "max_results", 2500)
    first, last = number(request, "start_step", -(2**62)), number(request, "end_step", 2**62)
    ids = request.query_params.getlist("run_ids")
    if not ids or len(ids) > 100 or not 1 <= most <= 2500:
        raise Invalid("GetMetricHistoryBulkInterval takes 1 to 100 run_ids and max_results of 1 to 2500")
    found = await call.read(service.sampled_history, ids, key, most, first, last)
    return {"metrics": [{**point, "run_id": id} for id, points in found.items() for point in shapes.history(key, points)]}


# Logged models


@route("POST", "mlflow/logged-models")
async def create_logged_model(call: Call, _: dict[str, str]) -> Any:
    sent = await call.json()
    model = await call.write(
        service.create_logged_model, needed(sent.get("experiment_id"), "experiment_id"), name=str(sent.get("name") or ""),
        model_type=str(sent.get("model_type") or ""), run_id=sent.get("source_run_id"), params=loose_tags(sent.get("params") or []),
        tags=loose_tags(sent.get("tags") or []),
    )  # fmt: skip
    return {"model": shapes.logged_model(model)}


@route("POST", "mlflow/logged-models/search")
async def search_logged_models(call: Call, _: dict[str, str]) -> Any:
    sent = await call.json()
    order = []
    for item in sent.get("order_by") or []:
        if not isinstance(item, dict) or not isinstance(item.get("field_name"), str):
            raise Invalid("order_by is a list of {field_name, ascending}")
        order.append(item["field_name"] + ("" if item.get("ascending", True) else " DESC"))
    ids = sent.get("experiment_ids") or []
    if not isinstance(ids, list):
        raise Invalid("experiment_ids is a list")
    limit = sent.get("max_results") or 100
    if not isinstance(limit, int):
        raise Invalid("Invalid value for parameter 'max_results': an integer is needed")
    page = await call.read(service.search_logged_models, ids, sent.get("filter"), order, limit, sent.get("page_token"))
    return _paged({"models": [shapes.logged_model(item) for item in page.items]}, page.next_token)


@route("GET", "mlflow/logged-models/{model_id}")
async def get_logged_model(call: Call, path: dict[str, str]) -> Any:
    return {"model": shapes.logged_model(await call.lookup(service.get_logged_model, path["model_id"]))}


@route("PATCH", "mlflow/logged-models/{model_id}")
async def finalize_logged_model(call: Call, path: dict[str, str]) -> Any:
    sent = await call.json()
    status = str(sent.get("status"))
    status = {"1": "LOGGED_MODEL_PENDING", "2": "LOGGED_MODEL_READY", "3": "LOGGED_MODEL_UPLOAD_FAILED"}.get(status, status)
    return {"model": shapes.logged_model(await call.write(service.finalize_logged_model, path["model_id"], status))}


@route("DELETE", "mlflow/logged-models/{model_id}")
async def delete_logged_model(call: Call, path: dict[str, str]) -> Any:
    await call.write(service.delete_logged_model, path["model_id"])
    return {}


@route("PATCH", "mlflow/logged-models/{model_id}/tags")
async def set_logged_model_tags(call: Call, path: dict[str, str]) -> Any:
    tags = loose_tags((await call.json()).get("tags") or [])
    return {"model": shapes.logged_model(await call.write(service.set_logged_model_tags, path["model_id"], tags))}


@route("DELETE", "mlflow/logged-models/{model_id}/tags/{key}")
async def delete_logged_model_tag(call: Call, path: dict[str, str]) -> Any:
    await call.write(service.delete_logged_model_tag, path["model_id"], path["key"])
    return {}


@route("POST", "mlflow/logged-models/{model_id}/params")
async def log_logged_model_params(call: Call, path: dict[str, str]) -> Any:
    params = loose_tags((await call.json()).get("params") or [])
    checked = {check_key("param", key): check_text("Param value", value, 6000) for key, value in params.items()}
    await call.write(service.log_logged_model_params, path["model_id"], checked)
    return {}


@route("GET", "mlflow/server-info")
async def server_info(call: Call, _: dict[str, str]) -> Any:
    return {"store_type": "SqlStore", "workspaces_enabled": False}

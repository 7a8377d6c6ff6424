"""Experiments, runs, metrics, params, tags, inputs, logged models."""

from __future__ import annotations

from typing import Any

from ...core.errors import Invalid
from ...engine.http import Call
from ...work.tracking import service
from ...work.tracking.model import Metric, Point, check_key, check_text, dataset_key, read_metric
from . import bodies, shapes
from .app import route
from .bodies import body, needed, number, pairs, query

# Experiments


@route("POST", "mlflow/experiments/create")
async def create_experiment(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, bodies.ExperimentBody, service.create_experiment)
    id = await call.write(service.create_experiment, needed(sent.name, "name"), sent.artifact_location or "", pairs(sent.tags))
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
    sent = await body(call, bodies.ExperimentBody, service.update_experiment)
    await call.write(service.update_experiment, needed(sent.experiment_id, "experiment_id"), needed(sent.new_name, "new_name"))
    return {}


@route("POST", "mlflow/experiments/delete")
async def delete_experiment(call: Call, _: dict[str, str]) -> Any:
    await call.write(
        service.delete_experiment,
        needed((await body(call, bodies.ExperimentBody, service.delete_experiment)).experiment_id, "experiment_id"),
    )
    return {}


@route("POST", "mlflow/experiments/restore")
async def restore_experiment(call: Call, _: dict[str, str]) -> Any:
    await call.write(
        service.restore_experiment,
        needed((await body(call, bodies.ExperimentBody, service.restore_experiment)).experiment_id, "experiment_id"),
    )
    return {}


@route("POST", "mlflow/experiments/set-experiment-tag")
async def set_experiment_tag(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, bodies.ExperimentBody, service.set_experiment_tag)
    id = needed(sent.experiment_id, "experiment_id")
    await call.write(service.set_experiment_tag, id, needed(sent.key, "key"), sent.value)
    return {}


@route("POST", "mlflow/experiments/delete-experiment-tag")
async def delete_experiment_tag(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, bodies.ExperimentBody, service.delete_experiment_tag)
    await call.write(service.delete_experiment_tag, needed(sent.experiment_id, "experiment_id"), needed(sent.key, "key"))
    return {}


@route("POST", "mlflow/experiments/search-datasets")
async def search_datasets(call: Call, _: dict[str, str]) -> Any:
    ids = (await body(call, bodies.ExperimentList, service.dataset_summaries)).experiment_ids or []
    if not ids:
        raise Invalid("SearchDatasets request must specify at least one experiment_id.")
    if len(ids) > 20:
        raise Invalid(f"SearchDatasets request cannot specify more than 20 experiment_ids. Received {len(ids)} experiment_ids.")
    return {"dataset_summaries": await call.read(service.dataset_summaries, ids)}


@route("GET POST", "mlflow/experiments/search")
async def search_experiments(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, bodies.SearchExperiments, service.search_experiments)
    if call.request.method == "GET":
        parameters = call.request.query_params
        max_results = number(call.request, "max_results", 1000)
        sent = bodies.SearchExperiments(
            query(call.request, "filter"),
            parameters.get("view_type"),
            max_results,
            parameters.getlist("order_by"),
            parameters.get("page_token"),
        )
    limit = 1000 if sent.max_results is None else sent.max_results
    reader = _reader(call, sent.filter, limit, quick_order=not sent.order_by)
    page = await reader(service.search_experiments, sent.filter, sent.order_by, _view(sent.view_type), limit, sent.page_token)
    return _paged({"experiments": [shapes.experiment(item) for item in page.items]}, page.next_token)


def _view(sent: str | int | None) -> str:
    return {None: "ACTIVE_ONLY", "": "ACTIVE_ONLY", "1": "ACTIVE_ONLY", "2": "DELETED_ONLY", "3": "ALL"}.get(
        sent if sent is None else str(sent), str(sent)
    )


def _reader(call: Call, filter: str | None, limit: int, *, quick_order: bool) -> Any:
    """A small page that an index gives in its order is looked up on the spot; what may scan goes to a thread."""
    return call.lookup if not filter and limit <= 200 and quick_order else call.read


def _paged(document: dict[str, Any], token: str | None) -> dict[str, Any]:
    if token:
        document["next_page_token"] = token
    return shapes.filled(document)


# Runs


@route("POST", "mlflow/runs/create")
async def create_run(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, bodies.CreateRun, service.create_run)
    run = await call.write(
        service.create_run, needed(sent.experiment_id, "experiment_id"), user=sent.user_id or "",
        name=sent.run_name or "", start_ms=sent.start_time, tags=pairs(sent.tags),
    )  # fmt: skip
    return {"run": shapes.run(run)}


@route("GET", "mlflow/runs/get")
async def get_run(call: Call, _: dict[str, str]) -> Any:
    id = query(call.request, "run_id") or query(call.request, "run_uuid")
    return {"run": shapes.run(await call.lookup(service.get_run, needed(id, "run_id")))}


@route("POST", "mlflow/runs/update")
async def update_run(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, bodies.RunBody, service.update_run)
    id = needed(sent.run_id or sent.run_uuid, "run_id")
    run = await call.write(service.update_run, id, status=sent.status, end_ms=sent.end_time, name=sent.run_name)
    return {"run_info": shapes.run_info(run)}


@route("POST", "mlflow/runs/delete")
async def delete_run(call: Call, _: dict[str, str]) -> Any:
    await call.write(service.delete_run, needed((await body(call, bodies.RunBody, service.delete_run)).run_id, "run_id"))
    return {}


@route("POST", "mlflow/runs/restore")
async def restore_run(call: Call, _: dict[str, str]) -> Any:
    await call.write(service.restore_run, needed((await body(call, bodies.RunBody, service.restore_run)).run_id, "run_id"))
    return {}


def _metric(sent: bodies.MetricBody) -> Metric:
    if not sent.key or sent.value is None or sent.timestamp is None:
        for name in ("key", "value", "timestamp"):
            needed(getattr(sent, name), name)
    dataset = dataset_key(sent.dataset_name, sent.dataset_digest) if sent.dataset_name else ""
    return read_metric(sent.key, sent.value, sent.timestamp, sent.step or 0, sent.model_id, dataset)


@route("POST", "mlflow/runs/log-metric")
async def log_metric(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, bodies.LogMetric, service.log_metric)
    await call.write(service.log_metric, needed(sent.run_id or sent.run_uuid, "run_id"), _metric(sent))
    return {}


@route("POST", "mlflow/runs/log-parameter")
async def log_parameter(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, bodies.LogPair, service.log_param)
    await call.write(service.log_param, needed(sent.run_id or sent.run_uuid, "run_id"), needed(sent.key, "key"), sent.value or "")
    return {}


@route("POST", "mlflow/runs/set-tag")
async def set_tag(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, bodies.LogPair, service.set_tag)
    await call.write(service.set_tag, needed(sent.run_id or sent.run_uuid, "run_id"), needed(sent.key, "key"), sent.value or "")
    return {}


@route("POST", "mlflow/runs/delete-tag")
async def delete_tag(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, bodies.LogPair, service.delete_tag)
    await call.write(service.delete_tag, needed(sent.run_id or sent.run_uuid, "run_id"), needed(sent.key, "key"))
    return {}


@route("POST", "mlflow/runs/log-batch")
async def log_batch(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, bodies.LogBatch, service.log_batch)
    points = [_metric(item) for item in sent.metrics or ()]
    params = [(needed(item.key, "key"), item.value or "") for item in sent.params or ()]
    tags = [(needed(item.key, "key"), item.value or "") for item in sent.tags or ()]
    await call.write(service.log_batch, needed(sent.run_id, "run_id"), points, params, tags)
    return {}


@route("POST", "mlflow/runs/log-inputs")
async def log_inputs(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, bodies.LogInputs, service.log_inputs)
    datasets = [
        {"dataset": item.dataset, "tags": [{"key": tag.key or "", "value": tag.value or ""} for tag in item.tags or ()]}
        for item in sent.datasets or ()
    ]
    models = [needed(item.model_id, "model_id") for item in sent.models or ()]
    await call.write(service.log_inputs, needed(sent.run_id, "run_id"), datasets, models)
    return {}


@route("POST", "mlflow/runs/outputs")
async def log_outputs(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, bodies.LogInputs, service.log_outputs)
    models = [(needed(item.model_id, "model_id"), item.step or 0) for item in sent.models or ()]
    await call.write(service.log_outputs, needed(sent.run_id, "run_id"), models)
    return {}


@route("POST", "mlflow/runs/log-model")
async def log_model(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, bodies.RunBody, service.log_model_record)
    text = needed(sent.model_json, "model_json")
    await call.write(service.log_model_record, needed(sent.run_id, "run_id"), text)
    return {}


@route("POST", "mlflow/runs/search")
async def search_runs(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, bodies.SearchRuns, service.search_runs)
    ids, order = sent.experiment_ids or [], sent.order_by or []
    limit = 1000 if sent.max_results is None else sent.max_results
    indexed = not order or (len(order) == 1 and order[0].startswith("metric"))
    reader = _reader(call, sent.filter, limit, quick_order=indexed and len(ids) == 1)
    page = await reader(service.search_runs, ids, sent.filter, order, _view(sent.run_view_type), limit, sent.page_token)
    return _paged({"runs": [shapes.run(item) for item in page.items]}, page.next_token)


@route("GET", "mlflow/metrics/get-history")
async def get_history(call: Call, _: dict[str, str]) -> Any:
    request = call.request
    id = needed(query(request, "run_id") or query(request, "run_uuid"), "run_id")
    limit = number(request, "max_results", 25_000) if "max_results" in request.query_params else None
    key = check_key("metric", query(request, "metric_key"))
    page = await call.read(service.metric_history, id, key, limit, query(request, "page_token") or None)
    return _paged({"metrics": shapes.history(key, page.items)}, page.next_token)


@route("GET", "mlflow/metrics/get-history-bulk")
async def get_history_bulk(call: Call, _: dict[str, str]) -> Any:
    request = call.request
    ids = request.query_params.getlist("run_id")
    if not ids:
        raise Invalid("GetMetricHistoryBulk request must specify at least one run_id.")
    if len(ids) > 100:
        raise Invalid(f"GetMetricHistoryBulk request cannot specify more than 100 run_ids. Received {len(ids)} run_ids.")
    if "metric_key" not in request.query_params:
        raise Invalid("GetMetricHistoryBulk request must specify a metric_key.")
    key, max_results = query(request, "metric_key"), min(number(request, "max_results", 25_000), 25_000)
    histories = await call.read(service.histories, sorted(set(ids)), key)
    return {"metrics": _of_runs(key, histories)[:max_results]}


@route("GET", "mlflow/metrics/get-history-bulk-interval")
async def get_history_bulk_interval(call: Call, _: dict[str, str]) -> Any:
    request = call.request
    ids = request.query_params.getlist("run_ids")
    key, max_results = needed(query(request, "metric_key"), "metric_key"), number(request, "max_results", 2500)
    needed(ids or None, "run_ids")
    if len(ids) > 100:
        raise Invalid(f"GetMetricHistoryBulkInterval request must specify at most 100 run_ids. Received {len(ids)} run_ids.")
    if not 1 <= max_results <= 2500:
        raise Invalid("max_results must be between 1 and 2500.")
    present = [name in request.query_params for name in ("start_step", "end_step")]
    first, last = number(request, "start_step", -(2**62)), number(request, "end_step", 2**62)
    if any(present) and not all(present):
        raise Invalid("If either start step or end step are specified, both must be specified.")
    if first > last:
        raise Invalid(f"end_step must be greater than start_step. Found start_step={first} and end_step={last}.")
    return {"metrics": _of_runs(key, await call.read(service.sampled_histories, ids, key, max_results, first, last))}


def _of_runs(key: str, histories: dict[str, list[Point]]) -> list[dict[str, Any]]:
    return [{**point, "run_id": id} for id, points in histories.items() for point in shapes.history(key, points)]


# Logged models


@route("POST", "mlflow/logged-models")
async def create_logged_model(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, bodies.LoggedModelBody, service.create_logged_model)
    model = await call.write(
        service.create_logged_model, needed(sent.experiment_id, "experiment_id"), name=sent.name or "", model_type=sent.model_type or "",
        run_id=sent.source_run_id or None, params=pairs(sent.params), tags=pairs(sent.tags),
    )  # fmt: skip
    return {"model": shapes.logged_model(model)}


@route("POST", "mlflow/logged-models/search")
async def search_logged_models(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, bodies.SearchLoggedModels, service.search_logged_models)
    order = [needed(item.field_name, "field_name") + (" DESC" if item.ascending is False else "") for item in sent.order_by or ()]
    limit = 100 if sent.max_results is None else sent.max_results
    datasets = [dataset_key(item.get("dataset_name"), item.get("dataset_digest")) for item in sent.datasets or ()]
    ids = sent.experiment_ids or []
    page = await call.read(service.search_logged_models, ids, sent.filter, order, limit, sent.page_token, [d for d in datasets if d])
    return _paged({"models": [shapes.logged_model(item) for item in page.items]}, page.next_token)


@route("GET", "mlflow/logged-models/{model_id}")
async def get_logged_model(call: Call, path: dict[str, str]) -> Any:
    return {"model": shapes.logged_model(await call.lookup(service.get_logged_model, path["model_id"]))}


@route("PATCH", "mlflow/logged-models/{model_id}")
async def finalize_logged_model(call: Call, path: dict[str, str]) -> Any:
    status = str((await body(call, bodies.LoggedModelBody, service.finalize_logged_model)).status)
    status = {"1": "LOGGED_MODEL_PENDING", "2": "LOGGED_MODEL_READY", "3": "LOGGED_MODEL_UPLOAD_FAILED"}.get(status, status)
    return {"model": shapes.logged_model(await call.write(service.finalize_logged_model, path["model_id"], status))}


@route("DELETE", "mlflow/logged-models/{model_id}")
async def delete_logged_model(call: Call, path: dict[str, str]) -> Any:
    await call.write(service.delete_logged_model, path["model_id"])
    return {}


@route("PATCH", "mlflow/logged-models/{model_id}/tags")
async def set_logged_model_tags(call: Call, path: dict[str, str]) -> Any:
    tags = pairs((await body(call, bodies.LoggedModelBody, service.set_logged_model_tags)).tags)
    await call.write(service.set_logged_model_tags, path["model_id"], tags)
    return {}


@route("DELETE", "mlflow/logged-models/{model_id}/tags/{key}")
async def delete_logged_model_tag(call: Call, path: dict[str, str]) -> Any:
    await call.write(service.delete_logged_model_tag, path["model_id"], path["key"])
    return {}


@route("POST", "mlflow/logged-models/{model_id}/params")
async def log_logged_model_params(call: Call, path: dict[str, str]) -> Any:
    params = pairs((await body(call, bodies.LoggedModelBody, service.log_logged_model_params)).params)
    checked = {check_key("param", key): check_text("Param value", value, 6000) for key, value in params.items()}
    await call.write(service.log_logged_model_params, path["model_id"], checked)
    return {}


@route("GET", "mlflow/server-info")
async def server_info(call: Call, _: dict[str, str]) -> Any:
    return {
        "store_type": "SqlStore",
        "workspaces_enabled": False,
        "multipart_uploads_enabled": True,
        "multipart_downloads_enabled": False,
        "trace_archival_enabled": False,
        "features_enabled": {"gateway": False},
    }

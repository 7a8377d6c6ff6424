from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request, Response

from ...assets.files.model import read_manifest
from ...assets.files.rest import lost_content, take_content
from ...engine.http import MAX_BULK_VALUES, Call, CallDep, answer, listing
from ...engine.openapi import Media, answers
from ...ports.objects import Tree
from ...spec.answers import Page
from ...spec.datastore import Manifest, Missing
from ...spec.tracking import Experiment, ImportedId, MetricPoint, Run, RunGroup, Runs
from . import importing, service
from .model import Run as RunRecord
from .model import in_document

router = APIRouter(prefix="/workspaces/{workspace}", tags=["tracking"])
Texts = Annotated[list[str] | None, Query()]


def _shown(run: RunRecord) -> dict[str, Any]:
    return in_document(run)


@router.get("/experiments")
@answers(Page[Experiment])
async def list_experiments(call: CallDep, view: str = "ACTIVE_ONLY", limit: int = 1000, token: str | None = None) -> Response:
    page = await call.read(service.search_experiments, None, None, view, limit, token)
    return listing([vars_of(item) for item in page.items], page.next_token)


def vars_of(experiment: Any) -> dict[str, Any]:
    return {name: getattr(experiment, name) for name in ("id", "name", "lifecycle", "created_ms", "updated_ms", "tags")}


@router.delete("/experiments/{name}")
@answers(status=204)
async def delete_experiment(call: CallDep, name: str) -> Response:
    experiment = await call.read(service.get_experiment_by_name, name)
    await call.write(service.delete_experiment, experiment.id)
    return Response(status_code=204)


@router.post("/experiments/{id}/restore")
@answers(status=204)
async def restore_experiment(call: CallDep, id: str) -> Response:
    await call.write(service.restore_experiment, id)
    return Response(status_code=204)


@router.get("/runs")
@answers(Runs)
async def list_runs(
    call: CallDep, experiment: Texts = None, filter: str | None = None, order_by: Texts = None, view: str = "ACTIVE_ONLY", limit: int = 100,
    token: str | None = None, columns: Texts = None, count: bool = False,
) -> Response:  # fmt: skip
    """Runs of the named experiments, or of all. `columns` such as `metrics.loss` leaves out what is not asked for."""
    page = await call.read(service.select_runs, experiment, filter, order_by, view, limit, token, columns)
    body: dict[str, Any] = {"value": [_shown(run) for run in page.items]}
    if page.next_token:
        body["next"] = page.next_token
    if count:
        body["count"] = await call.read(service.count_runs, experiment, filter, view)
    return answer(body)


@router.get("/runs/groups")
@answers(Page[RunGroup])
async def group_runs(
    call: CallDep, over: Texts = None, by: Texts = None, ignore: Texts = None, experiment: Texts = None, filter: str | None = None
) -> Response:
    """Mean, standard deviation, least and greatest of metrics over runs that agree in `by`, or in all params but `ignore`."""
    return listing(await call.read(service.group_runs, experiment, filter, over or [], by or [], ignore or []))


@router.get("/runs/{id}")
@answers(Run)
async def get_run(call: CallDep, id: str) -> Response:
    return answer(_shown(await call.lookup(service.get_run, id)))


@router.delete("/runs/{id}")
@answers(status=204)
async def delete_run(call: CallDep, id: str, permanent: bool = False) -> Response:
    await call.write(service.purge_run if permanent else service.delete_run, id)
    return Response(status_code=204)


@router.post("/runs/{id}/restore")
@answers(status=204)
async def restore_run(call: CallDep, id: str) -> Response:
    await call.write(service.restore_run, id)
    return Response(status_code=204)


@router.get("/runs/{id}/metrics/{key:path}")
@answers(Page[MetricPoint])
async def metric_history(call: CallDep, id: str, key: str, points: int = 1000) -> Response:
    """The history of a metric in `points` points at most; what is left out lies between what is shown."""
    history = await call.read(service.charted_history, id, key, points)
    shown = [{"step": step, "timestamp": time_ms, "value": None if nan else value} for step, time_ms, value, nan in history]
    return listing(shown)


# Artifacts, many at once: announce them, send the content of what is missing, as an upload to a datastore.


@router.post("/runs/{id}/artifacts")
@answers(Missing, body=Manifest)
async def put_artifacts(call: CallDep, id: str) -> Response:
    return await _put_artifacts(call, importing.put_run_artifacts, id)


@router.post("/runs/{id}/artifacts/content")
@answers(Missing, body=Media())
async def put_artifacts_content(call: CallDep, request: Request, id: str) -> Response:
    await call.read(service.check_artifact_writable, id)
    _, tree = await take_content(call, request)
    return await _put_tree(call, importing.put_run_artifacts, id, tree)


@router.post("/logged-models/{id}/artifacts")
@answers(Missing, body=Manifest)
async def put_model_artifacts(call: CallDep, id: str) -> Response:
    return await _put_artifacts(call, importing.put_model_artifacts, id)


@router.post("/logged-models/{id}/artifacts/content")
@answers(Missing, body=Media())
async def put_model_artifacts_content(call: CallDep, request: Request, id: str) -> Response:
    await call.read(service.check_model_writable, id)
    _, tree = await take_content(call, request)
    return await _put_tree(call, importing.put_model_artifacts, id, tree)


async def _put_artifacts(call: Call, use_case: Any, id: str) -> Response:
    announcement = await call.json(use_case, most_values=MAX_BULK_VALUES)
    return await _put_tree(call, use_case, id, await call.aside(read_manifest, announcement.get("files")))


async def _put_tree(call: Call, use_case: Any, id: str, tree: Tree) -> Response:
    return answer(await call.write(use_case, id, tree, await lost_content(call, tree)))


# Taking over runs from an MLflow store.


@router.post("/import/experiments")
@answers(ImportedId, body=importing.ImportedExperiment)
async def import_experiment(call: CallDep) -> Response:
    return answer(
        await call.write(
            importing.import_experiment,
            await call.struct(importing.import_experiment, importing.ImportedExperiment, most_values=MAX_BULK_VALUES),
        )
    )


class RunIds(msgspec.Struct):
    ids: list[str]


class ImportedRuns(msgspec.Struct):
    runs: list[importing.ImportedRun]


class ImportedPoints(msgspec.Struct):
    points: list[importing.ImportedPoint]


@router.post("/import/marks")
@answers(dict[str, str], body=RunIds)
async def import_marks(call: CallDep) -> Response:
    return answer(await call.read(importing.marks, (await call.struct(importing.marks, RunIds, most_values=MAX_BULK_VALUES)).ids))


@router.post("/import/runs")
@answers(status=204, body=ImportedRuns)
async def import_runs(call: CallDep) -> Response:
    await call.write(importing.import_runs, (await call.struct(importing.import_runs, ImportedRuns, most_values=MAX_BULK_VALUES)).runs)
    return Response(status_code=204)


@router.post("/import/runs/{id}/points")
@answers(status=204, body=ImportedPoints)
async def import_points(call: CallDep, id: str) -> Response:
    await call.write(
        importing.import_points, id, (await call.struct(importing.import_points, ImportedPoints, most_values=MAX_BULK_VALUES)).points
    )
    return Response(status_code=204)


@router.post("/import/runs/{id}/finish")
@answers(status=204, body=importing.Finish)
async def finish_run(call: CallDep, id: str) -> Response:
    await call.write(importing.finish_run, id, await call.struct(importing.finish_run, importing.Finish, most_values=MAX_BULK_VALUES))
    return Response(status_code=204)


@router.post("/import/logged-models")
@answers(status=204, body=importing.ImportedLoggedModel)
async def import_logged_model(call: CallDep) -> Response:
    await call.write(
        importing.import_logged_model,
        await call.struct(importing.import_logged_model, importing.ImportedLoggedModel, most_values=MAX_BULK_VALUES),
    )
    return Response(status_code=204)

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from ...engine.http import CallDep, answer, listing
from . import service
from .model import Run, in_document

router = APIRouter(prefix="/workspaces/{workspace}", tags=["tracking"])
Texts = Annotated[list[str] | None, Query()]


def _shown(run: Run) -> dict[str, Any]:
    return in_document(run)


@router.get("/experiments")
async def list_experiments(call: CallDep, view: str = "ACTIVE_ONLY", limit: int = 1000, token: str | None = None) -> Response:
    page = await call.read(service.search_experiments, None, None, view, limit, token)
    return listing([vars_of(item) for item in page.items], page.next_token)


def vars_of(experiment: Any) -> dict[str, Any]:
    return {name: getattr(experiment, name) for name in ("id", "name", "lifecycle", "created_ms", "updated_ms", "tags")}


@router.delete("/experiments/{name}", status_code=204)
async def delete_experiment(call: CallDep, name: str) -> Response:
    experiment = await call.read(service.get_experiment_by_name, name)
    await call.write(service.delete_experiment, experiment.id)
    return Response(status_code=204)


@router.post("/experiments/{id}/restore", status_code=204)
async def restore_experiment(call: CallDep, id: str) -> Response:
    await call.write(service.restore_experiment, id)
    return Response(status_code=204)


@router.get("/runs")
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
async def group_runs(
    call: CallDep, over: Texts = None, by: Texts = None, ignore: Texts = None, experiment: Texts = None, filter: str | None = None
) -> Response:
    """Mean, standard deviation, least and greatest of metrics over runs that agree in `by`, or in all params but `ignore`."""
    return listing(await call.read(service.group_runs, experiment, filter, over or [], by or [], ignore or []))


@router.get("/runs/{id}")
async def get_run(call: CallDep, id: str) -> Response:
    return answer(_shown(await call.lookup(service.get_run, id)))


@router.delete("/runs/{id}", status_code=204)
async def delete_run(call: CallDep, id: str, permanent: bool = False) -> Response:
    await call.write(service.purge_run if permanent else service.delete_run, id)
    return Response(status_code=204)


@router.post("/runs/{id}/restore", status_code=204)
async def restore_run(call: CallDep, id: str) -> Response:
    await call.write(service.restore_run, id)
    return Response(status_code=204)


@router.get("/runs/{id}/metrics/{key:path}")
async def chart(call: CallDep, id: str, key: str, points: int = 1000) -> Response:
    """The history of a metric in `points` points at most; what is left out lies between what is shown."""
    found = await call.read(service.charted_history, id, key, points)
    shown = [{"step": step, "timestamp": time_ms, "value": None if nan else value} for step, time_ms, value, nan in found]
    return listing(shown)

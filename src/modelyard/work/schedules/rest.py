from __future__ import annotations

from fastapi import APIRouter, Response

from ...engine.http import CallDep, answer, listing
from ...engine.openapi import answers
from ...spec.answers import Page
from ...spec.schedule import FiredJob, Schedule
from . import service

router = APIRouter(prefix="/workspaces/{workspace}/schedules", tags=["schedules"])


@router.get("")
@answers(Page[Schedule])
async def list_(call: CallDep, enabled: bool | None = None) -> Response:
    return listing(await call.read(service.list_, enabled))


@router.get("/{name}")
@answers(Schedule)
async def get(call: CallDep, name: str) -> Response:
    return answer(await call.read(service.get, name))


@router.put("/{name}")
@answers(Schedule, body=Schedule)
async def create_or_update(call: CallDep, name: str) -> Response:
    spec = await call.body(Schedule, name=name)
    return answer(await call.write(service.put, spec, call.yard.executor.capacity()))


@router.delete("/{name}")
@answers(status=204)
async def delete(call: CallDep, name: str) -> Response:
    await call.write(service.delete, name)
    return Response(status_code=204)


@router.post("/{name}/enable")
@answers(Schedule)
async def enable(call: CallDep, name: str) -> Response:
    return answer(await call.write(service.set_enabled, name, True))


@router.post("/{name}/disable")
@answers(Schedule)
async def disable(call: CallDep, name: str) -> Response:
    return answer(await call.write(service.set_enabled, name, False))


@router.post("/{name}/trigger")
@answers(FiredJob, 201)
async def trigger(call: CallDep, name: str) -> Response:
    return answer(await call.write(service.trigger, name, call.yard.executor.capacity()), 201)

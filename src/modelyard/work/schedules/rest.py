from __future__ import annotations

from fastapi import APIRouter, Response

from ...engine.http import CallDep, accepts, answer, listing
from ...spec.schedule import Schedule
from ..compute.model import machine
from . import service

router = APIRouter(prefix="/workspaces/{workspace}/schedules", tags=["schedules"])


@router.get("")
async def list_(call: CallDep, enabled: bool | None = None) -> Response:
    return listing(await call.read(service.list_, enabled))


@router.get("/{name}")
async def get(call: CallDep, name: str) -> Response:
    return answer(await call.read(service.get, name))


@router.put("/{name}", openapi_extra=accepts(Schedule))
async def put(call: CallDep, name: str) -> Response:
    spec = await call.body(Schedule, name=name)
    return answer(await call.write(service.put, spec, machine(call.yard.settings.cpu_slots)))


@router.delete("/{name}", status_code=204)
async def delete(call: CallDep, name: str) -> Response:
    await call.write(service.delete, name)
    return Response(status_code=204)


@router.post("/{name}/enable")
async def enable(call: CallDep, name: str) -> Response:
    return answer(await call.write(service.set_enabled, name, True))


@router.post("/{name}/disable")
async def disable(call: CallDep, name: str) -> Response:
    return answer(await call.write(service.set_enabled, name, False))


@router.post("/{name}/trigger", status_code=201)
async def trigger(call: CallDep, name: str) -> Response:
    return answer(await call.write(service.trigger, name, machine(call.yard.settings.cpu_slots)), 201)

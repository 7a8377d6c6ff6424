from __future__ import annotations

from fastapi import Response

from ...engine.http import CallDep, answer, listing
from ...engine.openapi import answers
from ...engine.resources import named_routes
from ...spec.answers import Page
from ...spec.nouns import NOUNS
from ...spec.schedule import FiredJob, Schedule
from . import service

router = named_routes(NOUNS["schedule"], service, needs=lambda call: (call.yard.executor.capacity(),), without=("list_",))


@router.get("")
@answers(Page[Schedule])
async def list_(call: CallDep, enabled: bool | None = None) -> Response:
    return listing(await call.read(service.list_, enabled))


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

from __future__ import annotations

from fastapi import APIRouter, Response

from ...engine.http import CallDep, answer, listing
from ...engine.openapi import answers
from ...spec.answers import Page
from ...spec.workspace import Workspace
from . import service

router = APIRouter(tags=["workspaces"])


@router.get("/workspaces")
@answers(Page[Workspace])
async def list_(call: CallDep, kind: str | None = None) -> Response:
    return listing(await call.read(service.list_visible, kind))


@router.get("/workspaces/{workspace}")
@answers(Workspace)
async def get(call: CallDep) -> Response:
    return answer(await call.read(service.get, call.workspace))


@router.put("/workspaces/{workspace}")
@answers(Workspace, body=Workspace)
async def create_or_update(call: CallDep) -> Response:
    spec = await call.body(service.create_or_update, Workspace, name=call.workspace)
    return answer(await call.write(service.create_or_update, spec))


@router.delete("/workspaces/{workspace}")
@answers(status=204)
async def delete(call: CallDep) -> Response:
    await call.write(service.delete, call.workspace)
    return Response(status_code=204)

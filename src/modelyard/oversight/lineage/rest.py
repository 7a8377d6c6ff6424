from __future__ import annotations

from fastapi import APIRouter, Response

from ...engine.http import CallDep, answer, listing
from ...engine.openapi import answers
from ...spec.answers import Page
from ...spec.tracking import Lineage, OpenLineageEvent
from . import service

router = APIRouter(prefix="/workspaces/{workspace}/lineage", tags=["lineage"])


@router.get("/{kind}/{name}/openlineage")
@answers(Page[OpenLineageEvent])
async def openlineage(call: CallDep, kind: str, name: str, depth: int = 10) -> Response:
    return listing(await call.read(service.openlineage, kind, name, depth))


@router.get("/{kind}/{name}")
@answers(Lineage)
async def show(call: CallDep, kind: str, name: str, depth: int = 10) -> Response:
    return answer(await call.read(service.show, kind, name, depth))

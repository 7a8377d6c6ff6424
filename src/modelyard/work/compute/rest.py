from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from ...engine.http import CallDep, answer, listing
from ...engine.openapi import answers
from ...spec.answers import Page
from ...spec.fields import parse
from ...spec.loading import AnyCompute, spec_class
from . import service

router = APIRouter(prefix="/workspaces/{workspace}/computes", tags=["computes"])


@router.get("")
@answers(Page[AnyCompute])
async def list_(call: CallDep) -> Response:
    return listing(await call.read(service.list_))


@router.get("/{name}")
@answers(AnyCompute)
async def get(call: CallDep, name: str) -> Response:
    return answer(await call.read(service.get, name))


@router.put("/{name}")
@answers(AnyCompute, body=AnyCompute)
async def create_or_update(call: CallDep, name: str) -> Response:
    document = {**await call.json(), "name": name}
    spec: Any = parse(spec_class("compute", document), document, what="compute")
    return answer(await call.write(service.put, spec))


@router.delete("/{name}")
@answers(status=204)
async def delete(call: CallDep, name: str) -> Response:
    await call.write(service.delete, name)
    return Response(status_code=204)

from __future__ import annotations

from typing import Any

from fastapi import Response

from ...engine.http import CallDep, answer
from ...engine.openapi import answers
from ...spec.fields import parse
from ...spec.loading import AnyComponent, spec_class
from ..versions.routes import asset_routes
from . import service

router = asset_routes("components", AnyComponent, service, creates=False)


@router.post("")
@answers(AnyComponent, 201, body=AnyComponent)
async def create(call: CallDep) -> Response:
    document = await call.json()
    spec: Any = parse(spec_class("component", document), document, what="component")
    return answer(await call.write(service.create, spec), 201)

from __future__ import annotations

import asyncio
from typing import Any, Literal

from fastapi import APIRouter, Response

from ...engine.http import Call, CallDep, answer
from ...engine.openapi import Media, answers
from ...spec.model import ModelCard
from ...spec.references import AssetRef
from . import service
from .model import markdown, read_mlmodel

router = APIRouter(prefix="/workspaces/{workspace}/models", tags=["models"])


@router.get("/{name}/versions/{version}/card")
@answers((ModelCard, Media("text/markdown")))
async def card(call: CallDep, name: str, version: str, format: Literal["json", "markdown"] = "json") -> Response:
    """What is on record about a model version."""
    document = await _card(call, AssetRef(name, version))
    if format == "markdown":
        return Response(markdown(document), media_type="text/markdown; charset=utf-8")
    return answer(document)


async def _card(call: Call, ref: AssetRef) -> dict[str, Any]:
    document, mlmodel = await call.read(service.card, ref)
    if mlmodel is not None:
        document |= await asyncio.to_thread(lambda: read_mlmodel(call.yard.objects.open(mlmodel)))
    return document

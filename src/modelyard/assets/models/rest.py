from __future__ import annotations

from fastapi import Response

from ...engine.http import CallDep, answer
from ...spec.model import Model
from ..versions.routes import asset_routes
from . import importing, service

router = asset_routes("models", Model, service)


@router.delete("/{name}/versions/{version}", status_code=204)
async def delete(call: CallDep, name: str, version: str) -> Response:
    await call.write(service.delete_version, name, version)
    return Response(status_code=204)


@router.delete("/{name}", status_code=204)
async def delete_all(call: CallDep, name: str) -> Response:
    await call.write(service.delete_registered, name)
    return Response(status_code=204)


@router.post("/import", openapi_extra={"summary": "Take over a registered model of an MLflow registry"})
async def import_model(call: CallDep) -> Response:
    return answer(await call.write(importing.import_model, await call.struct(importing.ImportedModel)))

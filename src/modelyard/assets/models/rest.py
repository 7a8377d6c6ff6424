from __future__ import annotations

from fastapi import Response

from ...engine.http import MAX_BULK_VALUES, CallDep, answer
from ...engine.openapi import answers
from ...spec.model import ImportedVersions
from ...spec.nouns import NOUNS
from ..versions.routes import asset_routes
from . import importing, service

router = asset_routes(NOUNS["model"], service)


@router.delete("/{name}/versions/{version}")
@answers(status=204)
async def delete_version(call: CallDep, name: str, version: str) -> Response:
    await call.write(service.delete_version, name, version)
    return Response(status_code=204)


@router.delete("/{name}")
@answers(status=204)
async def delete(call: CallDep, name: str) -> Response:
    await call.write(service.delete_registered, name)
    return Response(status_code=204)


@router.post("/import")
@answers(ImportedVersions, body=importing.ImportedModel)
async def import_model(call: CallDep) -> Response:
    """Take over a registered model of an MLflow registry."""
    return answer(
        await call.write(
            importing.import_model, await call.struct(importing.import_model, importing.ImportedModel, most_values=MAX_BULK_VALUES)
        )
    )

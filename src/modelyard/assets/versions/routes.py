"""The routes that every kind of versioned asset has."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import msgspec
from fastapi import APIRouter, Response

from ...engine.http import CallDep, answer, listing
from ...engine.openapi import answers
from ...engine.resources import page_of, spec_of
from ...spec.answers import AssetChanges
from ...spec.loading import any_of
from ...spec.nouns import Noun
from ...spec.references import AssetRef


class Share(msgspec.Struct):
    """Into which registry; under which name and version when not its own."""

    registry: str
    name: str | None = None
    version: str | None = None


def asset_routes(noun: Noun, service: ModuleType, creates: bool = True) -> APIRouter:
    """`/{collection}`, `/{collection}/{name}` (`?label=`) and `/{collection}/{name}/versions/{version}`.

    `service` has create, get, list_, update, set_archived and share.
    A collection with a `create` of its own leaves it out here (`creates`).
    """
    model: Any = any_of(noun)
    router = APIRouter(prefix=f"/workspaces/{{workspace}}/{noun.collection}", tags=[noun.collection])

    @router.get("")
    @answers(page_of(model))
    async def list_(call: CallDep, name: str | None = None, archived: str = "false") -> Response:
        return listing(await call.read(service.list_, name, _archived(archived)))

    if creates:

        @router.post("")
        @answers(model, 201, body=model)
        async def create(call: CallDep) -> Response:
            return answer(await call.write(service.create, await spec_of(call, noun, service.create)), 201)

    @router.get("/{name}")
    @answers(model)
    async def get_latest(call: CallDep, name: str, label: str = "latest") -> Response:
        return answer(await call.read(service.get, AssetRef(name, label=label)))

    @router.get("/{name}/versions/{version}")
    @answers(model)
    async def get(call: CallDep, name: str, version: str) -> Response:
        return answer(await call.read(service.get, AssetRef(name, version)))

    @router.patch("/{name}/versions/{version}")
    @answers(model, body=AssetChanges)
    async def update(call: CallDep, name: str, version: str) -> Response:
        return answer(await call.write(service.update, AssetRef(name, version), await call.json(service.update)))

    @router.post("/{name}/versions/{version}/share")
    @answers(model, 201, body=Share)
    async def share(call: CallDep, name: str, version: str) -> Response:
        sent = await call.struct(service.share, Share)
        return answer(await call.write(service.share, AssetRef(name, version), sent.registry, sent.name, sent.version), 201)

    @router.post("/{name}/archive")
    @answers(status=204)
    async def archive(call: CallDep, name: str, version: str | None = None) -> Response:
        await call.write(service.set_archived, name, version, True)
        return Response(status_code=204)

    @router.post("/{name}/restore")
    @answers(status=204)
    async def restore(call: CallDep, name: str, version: str | None = None) -> Response:
        await call.write(service.set_archived, name, version, False)
        return Response(status_code=204)

    return router


def _archived(word: str) -> bool | None:
    """`false`: only live ones; `true`: only archived ones; anything else: both."""
    return {"false": False, "true": True}.get(word)

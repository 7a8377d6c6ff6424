from __future__ import annotations

import asyncio
from pathlib import Path

from fastapi import Response

from ...core import trees
from ...core.errors import YardError
from ...engine.http import CallDep, answer
from ...engine.openapi import answers
from ...engine.yard import Yard
from ...spec.data import Data
from ...spec.nouns import NOUNS
from ...spec.references import WebAddress
from ..files.fetch import version_at
from ..versions.routes import asset_routes
from . import service

router = asset_routes(NOUNS["data"], service, creates=False)


@router.post("")
@answers(Data, 201, body=Data)
async def create(call: CallDep) -> Response:
    spec = await call.body(service.create, Data)
    seen = await _fingerprint(call.yard, await call.read(service.outside, spec.path))
    return answer(await call.write(service.create, spec, seen), 201)


async def _fingerprint(yard: Yard, source: Path | WebAddress | None) -> str | None:
    """Distinguishes the files at a source from later ones; None where that cannot be determined, as for an address that does not answer."""
    try:
        if isinstance(source, Path):
            return await asyncio.to_thread(trees.fingerprint, source)
        return await version_at(yard, source.url) if source is not None else None
    except (YardError, OSError):
        return None

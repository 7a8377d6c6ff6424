from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from fastapi import Response
from fastapi.responses import StreamingResponse

from ...core.errors import YardError
from ...engine.http import CallDep
from ...engine.openapi import TEXT, answers
from ...spec.nouns import NOUNS
from ...spec.references import AssetRef
from ..versions.routes import asset_routes
from . import service

router = asset_routes(NOUNS["environment"], service)


@router.post("/{name}/build")
@answers(TEXT)
async def build(call: CallDep, name: str, version: str | None = None) -> Response:
    """Build now, and stream the build's log as text. The last line is `done: KEY` or `failed: MESSAGE`."""
    resolved = await call.read(service.to_build, AssetRef(name, version))

    async def log_lines() -> AsyncIterator[bytes]:
        lines: asyncio.Queue[str | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def say(line: str) -> None:
            loop.call_soon_threadsafe(lines.put_nowait, line)

        async def run() -> str:
            try:
                built = await service.prepare(call.yard, call.workspace, resolved, say)
                return f"done: {built.key}"
            except YardError as error:
                return f"failed: {error}"
            finally:
                lines.put_nowait(None)

        task = asyncio.create_task(run())
        while (line := await lines.get()) is not None:
            yield line.encode() + b"\n"
        yield (await task).encode() + b"\n"

    return StreamingResponse(log_lines(), media_type="text/plain")

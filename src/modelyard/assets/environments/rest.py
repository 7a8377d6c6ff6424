from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import orjson
from fastapi import Response
from fastapi.responses import StreamingResponse

from ...core.errors import YardError
from ...engine.http import CallDep
from ...engine.openapi import TEXT, answers
from ...engine.resources import spec_of
from ...spec.environment import Environment
from ...spec.nouns import NOUNS
from ...spec.references import AssetRef
from ..versions.routes import asset_routes
from . import service

router = asset_routes(NOUNS["environment"], service)


@router.post("/lock")
@answers(TEXT, body=Environment)
async def lock(call: CallDep) -> Response:
    """Resolve a definition, build nothing, keep nothing, and stream the log as text. The last line is `done: LOCK`, the lock as JSON, or
    `failed: MESSAGE`."""
    spec = await spec_of(call, NOUNS["environment"], service.to_lock)
    wanted = await call.read(service.to_lock, spec)

    async def locked(say: Callable[[str], None]) -> str:
        return orjson.dumps(await service.lock(call.yard, wanted, say)).decode()

    return _streamed(locked)


@router.post("/{name}/build")
@answers(TEXT)
async def build(call: CallDep, name: str, version: str | None = None) -> Response:
    """Build now, and stream the build's log as text. The last line is `done: KEY` or `failed: MESSAGE`."""
    resolved = await call.read(service.to_build, AssetRef(name, version))

    async def built(say: Callable[[str], None]) -> str:
        return (await service.prepare(call.yard, call.workspace, resolved, say)).key

    return _streamed(built)


def _streamed(action: Callable[[Callable[[str], None]], Awaitable[str]]) -> Response:
    """What the action says, a line each, then how it ended."""

    async def log_lines() -> AsyncIterator[bytes]:
        lines: asyncio.Queue[str | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def say(line: str) -> None:
            loop.call_soon_threadsafe(lines.put_nowait, line)

        async def run() -> str:
            try:
                return f"done: {await action(say)}"
            except YardError as error:
                return f"failed: {error}"
            finally:
                lines.put_nowait(None)

        task = asyncio.create_task(run())
        while (line := await lines.get()) is not None:
            yield line.encode() + b"\n"
        yield (await task).encode() + b"\n"

    return StreamingResponse(log_lines(), media_type="text/plain")

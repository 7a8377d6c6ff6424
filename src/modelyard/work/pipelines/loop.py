"""Advances one pipeline as far as it goes, and writes its log."""

from __future__ import annotations

import asyncio

from ...engine.yard import Yard
from ...ports.executor import LOG, Share
from ...storage.unit import Unit
from ..jobs import service as jobs
from ..jobs.logs import YardLog
from . import service


def due(unit: Unit) -> list[tuple[str, str]]:
    return jobs.due(unit, "pipeline")


async def advance(yard: Yard, machine: Share, workspace: str, name: str) -> None:
    values: dict[str, str] = {}
    while True:
        try:
            lines = await yard.db.write(lambda unit: service.advance(unit, name, values, machine), workspace=workspace)
        except service.NeedValue as need:
            data = await asyncio.to_thread(lambda digest=need.digest: b"".join(yard.objects.open(digest)))  # type: ignore[misc]
            values[need.digest] = data.decode("utf-8", "replace")
            continue
        break
    if lines:  # what `yard job stream` shows of a pipeline
        await asyncio.to_thread(YardLog(yard.home, name, LOG).say, *lines)

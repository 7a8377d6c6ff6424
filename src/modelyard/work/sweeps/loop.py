"""Advances one sweep: when a trial ended, or when early termination or a timeout is to be checked."""

from __future__ import annotations

from ...engine.yard import Yard
from ...ports.executor import Share
from ...storage.unit import Unit
from ..jobs import service as jobs
from . import service


def due(unit: Unit) -> list[tuple[str, str]]:
    watched = [(workspace, name) for workspace, name in jobs.running(unit, "sweep") if service.is_watched(unit.at(workspace), name)]
    return list(dict.fromkeys([*jobs.due(unit, "sweep"), *watched]))


async def advance(yard: Yard, machine: Share, workspace: str, name: str) -> None:
    await yard.db.write(lambda unit: service.advance(unit, name, machine), workspace=workspace)

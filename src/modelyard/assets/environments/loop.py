"""Builds the environments of registered components, so that the first step that uses one does not wait."""

from __future__ import annotations

import logging

from ...core.errors import YardError
from ...engine.yard import Yard
from . import service

log = logging.getLogger(__name__)


class EnvironmentsLoop:
    name = "environments"
    topics = ("component.created",)
    every = 3600.0
    exclusive = False

    def __init__(self, yard: Yard) -> None:
        self.yard = yard
        self._refused: set[tuple[str, str]] = set()
        """What cannot be built; a job that needs it says why. Asked again after a restart."""

    async def turn(self) -> None:
        for workspace, resolved in await self.yard.db.read(service.to_prepare):
            known = (workspace, str(resolved))
            if known in self._refused:
                continue
            try:
                await service.prepare(self.yard, workspace, resolved, lambda line: None)
            except YardError as error:
                if not error.transient:
                    self._refused.add(known)
                    log.warning("environment %s of a component cannot be built: %s", resolved, error.message)

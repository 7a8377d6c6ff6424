"""The one way in for bytes that callers send: within the quota of their workspace, and theirs only once all of them have come.

A quota holds while bytes arrive, for all uploads of a workspace together, and once more in the transaction that notes what came. The route
has checked beforehand that the caller may write.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace

from ...engine.http import Call
from ...engine.yard import Yard
from ...ports.objects import Blob, Uploader
from ...tenancy.workspaces import service as workspaces
from ...tenancy.workspaces.model import StorageUse, quota_exceeded
from . import service


class Intake:
    """One of each server."""

    def __init__(self, yard: Yard) -> None:
        self._yard = yard
        self._arriving: Counter[str] = Counter()
        """workspace → bytes that its present uploads have brought, or still will"""

    async def take(self, call: Call, chunks: AsyncIterator[bytes], *, expect: str | None = None) -> Blob:
        """Store a stream. Raises Invalid when its digest is not `expect`; LimitExceeded, `quota_exceeded` among others."""
        return await self._yard.objects.put_stream(
            self._metered(call.workspace, chunks), expect=expect, limit=self._yard.settings.max_upload_bytes
        )

    async def append(self, call: Call, digest: str, offset: int, chunks: AsyncIterator[bytes], total: int) -> Blob | None:
        """Go on with an upload of the caller's; the blob when it is complete. `total` is what it takes at the end."""
        reserved = max(0, total - offset)
        self._arriving[call.workspace] += reserved
        try:
            await self._check(call.workspace, await self._use(call.workspace))
            return await self._yard.objects.append(digest, uploader_of(call), offset, chunks, total=total)
        finally:
            self._arriving[call.workspace] -= reserved

    async def _metered(self, workspace: str, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        counted = 0
        use = await self._use(workspace)
        try:
            async for chunk in chunks:
                counted += len(chunk)
                self._arriving[workspace] += len(chunk)
                await self._check(workspace, use)
                yield chunk
        finally:
            self._arriving[workspace] -= counted

    async def _use(self, workspace: str) -> StorageUse:
        """What the workspace stores, and what of its uploads came earlier."""
        use = await self._yard.db.lookup(workspaces.storage_use, workspace=workspace)
        return use if use.quota is None else replace(use, used=use.used + self._yard.objects.partial_bytes(workspace))

    async def _check(self, workspace: str, use: StorageUse) -> None:
        """Raise LimitExceeded when what arrives does not fit, not even once deleted content counts no more."""
        if use.quota is None or use.used + self._arriving[workspace] <= use.quota:
            return
        if use.stale:
            await self._yard.db.write(service.recount, workspace=workspace)
        needed = (await self._use(workspace)).used + self._arriving[workspace]
        if needed > use.quota:
            raise quota_exceeded(workspace, use.quota, needed)


def intake_of(call: Call) -> Intake:
    return call.yard.one(Intake)


def uploader_of(call: Call) -> Uploader:
    return Uploader(call.workspace, call.actor.id)

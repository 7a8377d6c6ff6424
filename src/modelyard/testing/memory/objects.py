"""An object store in memory."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Collection, Iterator
from typing import BinaryIO

from ...core.errors import Conflict, Invalid, NotFound, TooLarge, Unavailable
from ...ports.objects import Blob, Uploader

CHUNK = 1 << 16


class MemoryObjects:
    """Implements ResumableObjectStore."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.partial: dict[tuple[str, Uploader], bytes] = {}
        self._damaged: set[str] = set()

    async def put_stream(self, chunks: AsyncIterator[bytes], *, expect: str | None = None, limit: int = 2**63) -> Blob:
        data = b""
        async for chunk in chunks:
            data += chunk
            if len(data) > limit:
                raise TooLarge(f"a file may have {limit:,} bytes at most", code="file_too_large")
        _check(data, expect)
        return self.put_bytes(data)

    def put_open(self, file: BinaryIO) -> Blob:
        return self.put_bytes(file.read())

    def put_bytes(self, data: bytes) -> Blob:
        digest = hashlib.sha256(data).hexdigest()
        self.blobs[digest] = data
        self._damaged.discard(digest)
        return Blob(digest, len(data))

    def open(self, digest: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        if digest not in self.blobs:
            raise NotFound("the content is not stored here", code="blob_not_found")
        return self._read(digest, start, length)

    def _read(self, digest: str, start: int, length: int | None) -> Iterator[bytes]:
        data = self.blobs[digest]
        if hashlib.sha256(data).hexdigest() != digest:
            self._damaged.add(digest)
            raise Unavailable(f"the stored content {digest[:12]}… is damaged", code="damaged_blob")
        end = len(data) if length is None else start + length
        yield from (data[at : min(at + CHUNK, end)] for at in range(start, min(end, len(data)), CHUNK))

    def has(self, digest: str) -> bool:
        return digest in self.blobs

    def missing(self, digests: Collection[str]) -> set[str]:
        return {digest for digest in digests if digest not in self.blobs or digest in self._damaged}

    def damaged(self) -> set[str]:
        return set(self._damaged)

    def copy_to(self, digest: str, target: BinaryIO) -> None:
        for chunk in self.open(digest):
            target.write(chunk)

    def partial_size(self, digest: str, uploader: Uploader) -> int:
        return len(self.partial.get((digest, uploader), b""))

    def partial_bytes(self, workspace: str) -> int:
        return sum(len(data) for (_, uploader), data in self.partial.items() if uploader.workspace == workspace)

    async def append(self, digest: str, uploader: Uploader, offset: int, chunks: AsyncIterator[bytes], *, total: int) -> Blob | None:
        data = self.partial.get((digest, uploader), b"")
        if offset != len(data):
            raise Conflict(f"the upload goes on at byte {len(data)}, not {offset}", code="wrong_offset")
        async for chunk in chunks:
            data += chunk
        if len(data) > total:
            raise Invalid("the upload is longer than it said", code="invalid_upload")
        self.partial[digest, uploader] = data
        if len(data) < total:
            return None
        del self.partial[digest, uploader]
        _check(data, digest)
        return self.put_bytes(data)


def _check(data: bytes, expected: str | None) -> None:
    if expected is not None and hashlib.sha256(data).hexdigest() != expected:
        raise Invalid(f"the content has not the digest {expected[:12]}… that was announced", code="digest_mismatch", hint="Send it again.")

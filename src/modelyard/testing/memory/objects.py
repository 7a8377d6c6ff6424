"""An object store in memory."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator
from typing import BinaryIO

from ...core.errors import Conflict, Invalid, LimitExceeded, NotFound, Unavailable
from ...ports.objects import Blob

CHUNK = 1 << 16


class MemoryObjects:
    """Implements ResumableObjectStore."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.partial: dict[str, bytes] = {}

    async def put_stream(self, chunks: AsyncIterator[bytes], *, expect: str | None = None, limit: int = 2**63) -> Blob:
        data = b""
        async for chunk in chunks:
            data += chunk
            if len(data) > limit:
                raise LimitExceeded(f"a file may have {limit:,} bytes at most", code="file_too_large")
        _check(data, expect)
        return self.put_bytes(data)

    def put_open(self, file: BinaryIO) -> Blob:
        return self.put_bytes(file.read())

    def put_bytes(self, data: bytes) -> Blob:
        digest = hashlib.sha256(data).hexdigest()
        self.blobs[digest] = data
        return Blob(digest, len(data))

    def open(self, digest: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        data = self.blobs.get(digest)
        if data is None:
            raise NotFound("the content is not stored here", code="blob_not_found")
        if start == 0 and length is None and hashlib.sha256(data).hexdigest() != digest:
            raise Unavailable(f"the stored content {digest[:12]}… is damaged", code="damaged_blob")
        end = len(data) if length is None else start + length
        return (data[at : min(at + CHUNK, end)] for at in range(start, min(end, len(data)), CHUNK))

    def has(self, digest: str) -> bool:
        return digest in self.blobs

    def copy_to(self, digest: str, target: BinaryIO) -> None:
        for chunk in self.open(digest):
            target.write(chunk)

    def partial_size(self, digest: str) -> int:
        return len(self.partial.get(digest, b""))

    async def append(self, digest: str, offset: int, chunks: AsyncIterator[bytes], *, total: int) -> Blob | None:
        data = self.partial.get(digest, b"")
        if offset != len(data) and digest not in self.blobs:
            raise Conflict(f"the upload goes on at byte {len(data)}, not {offset}", code="wrong_offset")
        async for chunk in chunks:
            data += chunk
        if digest in self.blobs:
            return Blob(digest, total)
        if len(data) > total:
            raise Invalid("the upload is longer than it said", code="invalid_upload")
        self.partial[digest] = data
        if len(data) < total:
            return None
        del self.partial[digest]
        _check(data, digest)
        return self.put_bytes(data)


def _check(data: bytes, expected: str | None) -> None:
    if expected is not None and hashlib.sha256(data).hexdigest() != expected:
        raise Invalid(f"the content has not the digest {expected[:12]}… that was announced", code="digest_mismatch", hint="Send it again.")

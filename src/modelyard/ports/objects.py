"""Content-addressed storage: bytes by their SHA-256."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol


@dataclass(frozen=True)
class Blob:
    digest: str
    """64 lowercase hexadecimal digits of the SHA-256."""
    size: int
    """Bytes."""


class ObjectStore(Protocol):
    """`put*` return only after the bytes survive a power cut. Readers raise NotFound for an unknown digest."""

    async def put_stream(self, chunks: AsyncIterator[bytes], *, expect: str | None = None, limit: int = 2**63) -> Blob:
        """Store a stream. Raises Invalid when its digest is not `expect`, LimitExceeded beyond `limit` bytes."""
        ...

    def put_open(self, file: BinaryIO) -> Blob:
        """Store a copy of an open file, from where it is read to its end. Never a path: what one leads to can be exchanged."""
        ...

    def put_bytes(self, data: bytes) -> Blob: ...

    def open(self, digest: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes in chunks. A whole read is checked against the digest and raises Unavailable when it differs."""
        ...

    def has(self, digest: str) -> bool: ...

    def copy_to(self, digest: str, target: BinaryIO) -> None:
        """Write the bytes to an open file. Checked as in `open`."""
        ...


class ResumableObjectStore(ObjectStore, Protocol):
    def partial_size(self, digest: str) -> int:
        """How many bytes of an unfinished upload of `digest` are kept; 0 when there is none."""
        ...

    async def append(self, digest: str, offset: int, chunks: AsyncIterator[bytes], *, total: int) -> Blob | None:
        """Go on with an upload at `offset`; the blob once `total` bytes are there and the digest fits, else None."""
        ...

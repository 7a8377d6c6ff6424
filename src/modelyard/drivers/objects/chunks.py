"""Digests of a blob's chunks, so that any part of it is checked before it is given away.

The digest by which a blob is addressed covers all of it: a range of a large file could be checked only by reading the whole. So the
digests of its chunks lie beside it, in a file that carries a digest of its own. That file is worth nothing by itself: what is missing or
torn is made again from the blob, once that was read whole and has the digest it is addressed by (ADR 19).
"""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path

CHUNK = 1 << 20
"""Bytes. What is read and checked at once; a blob of one chunk needs no file beside it."""
_HEAD = struct.Struct(">4sIQ")
_MAGIC = b"YCH1"
_DIGEST = 32


class Digests:
    """The digest of a stream and those of its chunks."""

    def __init__(self) -> None:
        self.size = 0
        self._whole = hashlib.sha256()
        self._chunk = hashlib.sha256()
        self._chunks: list[bytes] = []

    def update(self, data: bytes) -> None:
        self._whole.update(data)
        view = memoryview(data)
        while view:
            room = CHUNK - self.size % CHUNK
            self._chunk.update(view[:room])
            self.size += min(room, len(view))
            view = view[room:]
            if self.size % CHUNK == 0:
                self._chunks.append(self._chunk.digest())
                self._chunk = hashlib.sha256()

    @property
    def whole(self) -> str:
        return self._whole.hexdigest()

    @property
    def chunks(self) -> list[bytes]:
        return self._chunks if self.size % CHUNK == 0 else [*self._chunks, self._chunk.digest()]


def write(path: Path, digests: Digests, partial: Path) -> None:
    """Write the digests to `path`, by way of `partial`. Not synced: a torn file shows in its own digest."""
    body = _HEAD.pack(_MAGIC, CHUNK, digests.size) + b"".join(digests.chunks)
    partial.write_bytes(body + hashlib.sha256(body).digest())
    path.parent.mkdir(parents=True, exist_ok=True)
    os.rename(partial, path)


def read(path: Path, size: int) -> list[bytes] | None:
    """The digests of the chunks of a blob of `size` bytes; None when they are not there, torn, or of another size."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    count = -(-size // CHUNK)
    body = data[:-_DIGEST]
    if len(body) != _HEAD.size + count * _DIGEST or hashlib.sha256(body).digest() != data[-_DIGEST:]:
        return None
    if _HEAD.unpack_from(body) != (_MAGIC, CHUNK, size):
        return None
    return [body[at : at + _DIGEST] for at in range(_HEAD.size, len(body), _DIGEST)]

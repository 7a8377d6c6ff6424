"""Content-addressed storage: bytes by their SHA-256, and files that belong together as a tree of blobs."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol


@dataclass(frozen=True)
class Blob:
    digest: str
    """64 lowercase hexadecimal digits of the SHA-256."""
    size: int
    """Bytes."""


@dataclass(frozen=True)
class File:
    """`path` is relative to whatever the list was asked for; `modified_ms` counts from 1970."""

    path: str
    digest: str
    size: int
    modified_ms: int = 0


@dataclass(frozen=True)
class Tree:
    """Files that belong together, with a digest over all of them."""

    files: tuple[File, ...]

    @property
    def digest(self) -> str:
        return tree_digest(self.files)

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def tree_digest(files: Iterable[File]) -> str:
    """SHA-256 over `path NUL digest NUL size LF` of every file, sorted by path: equal trees have equal digests."""
    total = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.path):
        total.update(f"{file.path}\0{file.digest}\0{file.size}\n".encode())
    return total.hexdigest()


@dataclass(frozen=True)
class Uploader:
    """Whose unfinished upload it is: others neither see nor continue it."""

    workspace: str
    principal: str


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
        """The bytes in chunks, each checked before it is given, in a range too. Raises Unavailable (`damaged_blob`) instead of the first one
        that is not as it was stored; nothing is read before the first is asked for."""
        ...

    def has(self, digest: str) -> bool: ...

    def missing(self, digests: Collection[str]) -> set[str]:
        """Those of `digests` that are not stored, or were found damaged: they are taken again, and replaced."""
        ...

    def damaged(self) -> set[str]:
        """Blobs whose bytes were found to differ from their digest, and that were not stored again since."""
        ...

    def copy_to(self, digest: str, target: BinaryIO) -> None:
        """Write the bytes to an open file. Checked as in `open`."""
        ...


class ResumableObjectStore(ObjectStore, Protocol):
    def partial_size(self, digest: str, uploader: Uploader) -> int:
        """How many bytes of an unfinished upload of `digest` are stored; 0 when there is none."""
        ...

    def partial_bytes(self, workspace: str) -> int:
        """How many bytes the unfinished uploads of a workspace take together."""
        ...

    async def append(self, digest: str, uploader: Uploader, offset: int, chunks: AsyncIterator[bytes], *, total: int) -> Blob | None:
        """Go on with an upload at `offset`; the blob once `total` bytes have come and have the digest, else None.

        Whether others have stored the same content makes no difference: the uploader shows that it has the bytes.
        """
        ...


class TreeLayout(Protocol):
    def lay_out(self, tree: Tree) -> Path:
        """A read-only folder of this machine with the files of `tree`, shared by everything that reads the same content."""
        ...

    def copy_out(self, tree: Tree, target: Path, mode: int = 0o644, programs: tuple[str, ...] = ()) -> None:
        """Copy the files into the folder `target`, created when it is missing. `programs`: endings of files that may be run."""
        ...

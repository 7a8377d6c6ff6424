"""Blobs as files: `blobs/<2 hex>/<62 hex>`, written to a temporary file, synced, renamed, folder synced."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from modelyard_runtime.files import rename_durably, sync_folder

from ...core import ids
from ...core.errors import Conflict, Invalid, LimitExceeded, NotFound, Unavailable
from ...ports.objects import Blob

CHUNK = 1 << 20


class LocalObjects:
    """Implements ResumableObjectStore on a folder of this machine; `digests` and `remove` are for maintenance."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.partial = root / "partial"
        self.partial.mkdir(parents=True, exist_ok=True)
        self._appending: set[str] = set()

    async def put_stream(self, chunks: AsyncIterator[bytes], *, expect: str | None = None, limit: int = 2**63) -> Blob:
        path = self.partial / ids.hex32()
        digest = hashlib.sha256()
        size = 0
        try:
            with _storing(), path.open("xb") as file:
                async for chunk in _received(chunks):
                    size += len(chunk)
                    if size > limit:
                        raise LimitExceeded(f"a file may have {limit:,} bytes at most", code="file_too_large")
                    digest.update(chunk)
                    if size > CHUNK:
                        await asyncio.to_thread(file.write, chunk)
                    else:
                        file.write(chunk)
            _check(digest.hexdigest(), expect)
            with _storing():
                await asyncio.to_thread(self._keep, path, digest.hexdigest())
        finally:
            path.unlink(missing_ok=True)
        return Blob(digest.hexdigest(), size)

    def put_open(self, file: BinaryIO) -> Blob:
        def copy(target: Path) -> Blob:
            digest = hashlib.sha256()
            size = 0
            with target.open("xb") as writer:
                while chunk := file.read(CHUNK):
                    digest.update(chunk)
                    size += len(chunk)
                    writer.write(chunk)
            return Blob(digest.hexdigest(), size)

        return self._put(copy)

    def put_bytes(self, data: bytes) -> Blob:
        def write(target: Path) -> Blob:
            target.write_bytes(data)
            return Blob(hashlib.sha256(data).hexdigest(), len(data))

        return self._put(write)

    def _put(self, write: Callable[[Path], Blob]) -> Blob:
        path = self.partial / ids.hex32()
        try:
            with _storing():
                blob = write(path)
                self._keep(path, blob.digest)
        finally:
            path.unlink(missing_ok=True)
        return blob

    def open(self, digest: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        try:
            file = self._path(digest).open("rb")
        except FileNotFoundError:
            raise NotFound("the content is not stored here", code="blob_not_found") from None
        return self._read(file, digest, start, length)

    @staticmethod
    def _read(file: object, digest: str, start: int, length: int | None) -> Iterator[bytes]:
        whole = start == 0 and length is None
        check = hashlib.sha256()
        with file as reader:  # type: ignore[attr-defined]
            reader.seek(start)
            left = length if length is not None else 2**63
            while left > 0 and (chunk := reader.read(min(CHUNK, left))):
                left -= len(chunk)
                if whole:
                    check.update(chunk)
                yield chunk
        if whole and check.hexdigest() != digest:
            raise Unavailable(
                f"the stored content {digest[:12]}… is damaged",
                code="damaged_blob",
                hint="Run `yard fsck --read-data`, then restore it from a backup.",
            )

    def has(self, digest: str) -> bool:
        return self._path(digest).exists()

    def copy_to(self, digest: str, target: BinaryIO) -> None:
        for chunk in self.open(digest):
            target.write(chunk)

    def partial_size(self, digest: str) -> int:
        try:
            return (self.partial / f"{digest}.part").stat().st_size
        except FileNotFoundError:
            return 0

    async def append(self, digest: str, offset: int, chunks: AsyncIterator[bytes], *, total: int) -> Blob | None:
        if self.has(digest):
            async for _ in chunks:
                pass
            return Blob(digest, total)
        if digest in self._appending:
            raise Conflict("this file is being uploaded by another request", code="upload_in_progress", hint="Try again.")
        self._appending.add(digest)
        path = self.partial / f"{digest}.part"
        try:
            received = self.partial_size(digest)
            if offset != received:
                raise Conflict(f"the upload goes on at byte {received}, not {offset}", code="wrong_offset")
            with _storing():
                with path.open("ab") as file:
                    async for chunk in _received(chunks):
                        received += len(chunk)
                        if received > total:
                            raise Invalid("the upload is longer than it said", code="invalid_upload")
                        await asyncio.to_thread(file.write, chunk)
                if received < total:
                    return None
                actual = await asyncio.to_thread(_digest_of, path)
                if actual != digest:
                    path.unlink()
                    _check(actual, digest)
                await asyncio.to_thread(self._keep, path, digest)
        finally:
            self._appending.discard(digest)
        return Blob(digest, total)

    def digests(self) -> Iterator[tuple[Blob, float]]:
        for folder in sorted(self.root.iterdir()):
            if len(folder.name) == 2:
                for file in folder.iterdir():
                    status = file.stat()
                    yield Blob(folder.name + file.name, status.st_size), status.st_mtime

    def remove(self, digest: str) -> None:
        self._path(digest).unlink(missing_ok=True)

    def _path(self, digest: str) -> Path:
        return self.root / digest[:2] / digest[2:]

    def _keep(self, path: Path, digest: str) -> None:
        """Sync the temporary file and give it its name, durably. A blob stored again gets a new time (see gc)."""
        target = self._path(digest)
        if target.exists():
            os.utime(target)
            path.unlink()
            return
        if not target.parent.exists():
            target.parent.mkdir(exist_ok=True)
            sync_folder(self.root)
        rename_durably(path, target)


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check(actual: str, expected: str | None) -> None:
    if expected is not None and actual != expected:
        raise Invalid(
            f"the content has the digest {actual[:12]}…, not {expected[:12]}… as announced", code="digest_mismatch", hint="Send it again."
        )


@contextlib.contextmanager
def _storing() -> Iterator[None]:
    """Errors of the disk become those of the port; those of the sender pass unchanged."""
    try:
        yield
    except _Sender as broken:
        raise broken.error from None
    except OSError as error:
        raise _storage_error(error) from error


class _Sender(Exception):
    def __init__(self, error: OSError) -> None:
        self.error = error


async def _received(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        async for chunk in chunks:
            yield chunk
    except OSError as error:
        raise _Sender(error) from error


def _storage_error(error: OSError) -> Unavailable:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Unavailable(
            "the yard's disk is full; nothing was stored",
            code="insufficient_storage",
            hint="Free some space, then try again.",
            transient=True,
        )
    return Unavailable(f"storing failed: {error.strerror}", code="storage_failed")

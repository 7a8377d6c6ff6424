"""Blobs as files: `blobs/<2 hex>/<62 hex>`, written to a temporary file, synced, renamed, folder synced; every byte is checked before it is
given away."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from modelyard_runtime.files import rename_durably, sync_folder, write_whole

from ...core import ids
from ...core.errors import NO_ROOM, Conflict, Invalid, NotFound, TooLarge, Unavailable, disk_full
from ...ports.objects import Blob, Uploader
from . import chunks
from .chunks import CHUNK, Digests

log = logging.getLogger(__name__)
AT_ONCE = 1 << 18
"""Bytes that are hashed and written on the event loop; more goes to a thread."""


class LocalObjects:
    """Implements ResumableObjectStore on a folder of this machine; `digests` and `remove` are for maintenance."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.partial = root / "partial"
        self._chunks = root / "chunks"
        self._marks = root / "damaged"
        """An empty file for each blob whose bytes differ from its digest."""
        self.partial.mkdir(parents=True, exist_ok=True)
        self._appending: set[Path] = set()

    async def put_stream(self, chunks: AsyncIterator[bytes], *, expect: str | None = None, limit: int = 2**63) -> Blob:
        path = self.partial / ids.hex32()
        digests = Digests()
        try:
            with _storing(), path.open("xb") as file:
                async for data in _batched(_received(chunks)):
                    if digests.size + len(data) > limit:
                        raise TooLarge(f"a file may have {limit:,} bytes at most", code="file_too_large")
                    if len(data) > AT_ONCE:
                        await asyncio.to_thread(_write, file, digests, data)
                    else:
                        _write(file, digests, data)
            _check(digests.whole, expect)
            with _storing():
                await asyncio.to_thread(self._keep, path, digests)
        finally:
            path.unlink(missing_ok=True)
        return Blob(digests.whole, digests.size)

    def put_open(self, file: BinaryIO) -> Blob:
        def copy(target: BinaryIO, digests: Digests) -> None:
            while data := file.read(CHUNK):
                _write(target, digests, data)

        return self._put(copy)

    def put_bytes(self, data: bytes) -> Blob:
        return self._put(lambda target, digests: _write(target, digests, data))

    def _put(self, write: Callable[[BinaryIO, Digests], None]) -> Blob:
        path = self.partial / ids.hex32()
        digests = Digests()
        try:
            with _storing():
                with path.open("xb") as target:
                    write(target, digests)
                self._keep(path, digests)
        finally:
            path.unlink(missing_ok=True)
        return Blob(digests.whole, digests.size)

    def open(self, digest: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        try:
            file = self._path(digest).open("rb", buffering=0)
        except FileNotFoundError:
            if (self._marks / digest).exists():  # its bytes were put aside
                raise _damage(digest) from None
            raise NotFound("the content is not stored here", code="blob_not_found") from None
        return self._read(file, digest, start, length)

    def _read(self, file: BinaryIO, digest: str, start: int, length: int | None) -> Iterator[bytes]:
        with file:
            size = os.fstat(file.fileno()).st_size
            end = size if length is None else min(size, start + length)
            expected = self._expected(file, digest, size)
            # One chunk at least: a file that was cut short ends before the range that is asked for.
            for number in range(start // CHUNK, -(-end // CHUNK)) or range(min(1, size)):
                try:
                    data = _read_chunk(file, number)
                except OSError as error:
                    log.error("the stored content %s cannot be read: %s", digest, error)
                    data = b""
                if hashlib.sha256(data).digest() != expected[number]:
                    raise self._damaged(digest)
                first = number * CHUNK
                if start > first or end < first + len(data):
                    data = data[max(0, start - first) : end - first]
                if data:
                    yield data

    def _expected(self, file: BinaryIO, digest: str, size: int) -> list[bytes]:
        """The digests of the chunks. A blob from before they were kept is read whole, once."""
        if 0 < size <= CHUNK:
            return [bytes.fromhex(digest)]
        known = chunks.read(self._chunks_path(digest), size)
        if known is None:
            digests = measured(file)
            if digests.whole != digest:
                raise self._damaged(digest)
            self._write_chunks(digests)
            known = digests.chunks
        return known

    def _damaged(self, digest: str) -> Unavailable:
        log.error("the stored content %s is damaged: its bytes differ from its digest", digest)
        self.mark_damaged(digest)
        return _damage(digest)

    def mark_damaged(self, digest: str) -> None:
        """Remember it: the content counts as missing, so that who has it sends it again."""
        with contextlib.suppress(OSError):  # a device that fails may not take the mark either; the next read finds the damage again
            self._marks.mkdir(exist_ok=True)
            write_whole(self._marks / digest, b"", 0o600, durable=True)

    def mark_whole(self, digest: str) -> None:
        """Forget a mark: the bytes were read, and are as they were stored."""
        (self._marks / digest).unlink(missing_ok=True)

    def damaged(self) -> set[str]:
        try:
            return {name for name in os.listdir(self._marks) if len(name) == 64}
        except FileNotFoundError:
            return set()

    def has(self, digest: str) -> bool:
        return self._path(digest).exists()

    def missing(self, digests: Collection[str]) -> set[str]:
        damaged = self.damaged()
        return {digest for digest in digests if digest in damaged or not self.has(digest)}

    def copy_to(self, digest: str, target: BinaryIO) -> None:
        for data in self.open(digest):
            target.write(data)

    def partial_size(self, digest: str, uploader: Uploader) -> int:
        try:
            return self._part(digest, uploader).stat().st_size
        except FileNotFoundError:
            return 0

    async def append(self, digest: str, uploader: Uploader, offset: int, chunks: AsyncIterator[bytes], *, total: int) -> Blob | None:
        path = self._part(digest, uploader)
        if path in self._appending:
            raise Conflict("this file is being uploaded by another request", code="upload_in_progress", hint="Try again.")
        self._appending.add(path)
        try:
            received = self.partial_size(digest, uploader)
            if offset != received:
                raise Conflict(f"the upload goes on at byte {received}, not {offset}", code="wrong_offset")
            with _storing():
                path.parent.mkdir(exist_ok=True)
                with path.open("ab") as file:
                    async for data in _batched(_received(chunks)):
                        received += len(data)
                        if received > total:
                            raise Invalid("the upload is longer than it said", code="invalid_upload")
                        await asyncio.to_thread(file.write, data)
                if received < total:
                    return None
                digests = await asyncio.to_thread(_measured_at, path)
                if digests.whole != digest:
                    path.unlink()
                    _check(digests.whole, digest)
                await asyncio.to_thread(self._keep, path, digests)
        finally:
            self._appending.discard(path)
        return Blob(digest, total)

    def partial_bytes(self, workspace: str) -> int:
        try:
            return sum(entry.stat().st_size for entry in os.scandir(self._parts_of(workspace)))
        except FileNotFoundError:
            return 0

    def digests(self) -> Iterator[tuple[Blob, float]]:
        for folder in sorted(self.root.iterdir()):
            if len(folder.name) == 2:
                for file in folder.iterdir():
                    status = file.stat()
                    yield Blob(folder.name + file.name, status.st_size), status.st_mtime

    def partials(self) -> Iterator[Path]:
        """Files of uploads that did not end."""
        return (path for path in self.partial.rglob("*") if path.is_file())

    def remove(self, digest: str) -> None:
        self._path(digest).unlink(missing_ok=True)
        self._chunks_path(digest).unlink(missing_ok=True)
        (self._marks / digest).unlink(missing_ok=True)

    def put_aside(self, digest: str) -> Path:
        """Move the bytes of a damaged blob to where nothing reads them: where they are now. It counts as missing from then on."""
        self.mark_damaged(digest)
        aside = self._marks / f"{digest}.bytes"
        rename_durably(self._path(digest), aside)
        self._chunks_path(digest).unlink(missing_ok=True)
        return aside

    def is_whole(self, digest: str) -> bool:
        """Whether the stored bytes have the digest: all of them are read. False when there are none."""
        try:
            with self._path(digest).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == digest
        except OSError:
            return False

    def _path(self, digest: str) -> Path:
        return self.root / digest[:2] / digest[2:]

    def _chunks_path(self, digest: str) -> Path:
        return self._chunks / digest[:2] / digest[2:]

    def _parts_of(self, workspace: str) -> Path:
        return self.partial / _file_name(workspace)

    def _part(self, digest: str, uploader: Uploader) -> Path:
        return self._parts_of(uploader.workspace) / f"{_file_name(uploader.principal)}-{digest}.part"

    def _keep(self, path: Path, digests: Digests) -> None:
        """Sync the temporary file and give it its name, durably. A blob stored again gets a new time (see gc); a damaged one is replaced."""
        digest = digests.whole
        target, mark = self._path(digest), self._marks / digest
        if target.exists() and not mark.exists() and target.stat().st_size == digests.size:
            os.utime(target)
            path.unlink()
            return
        if not target.parent.exists():
            target.parent.mkdir(exist_ok=True)
            sync_folder(self.root)
        rename_durably(path, target)
        mark.unlink(missing_ok=True)
        self._write_chunks(digests)

    def _write_chunks(self, digests: Digests) -> None:
        if digests.size > CHUNK:
            with contextlib.suppress(OSError):  # without room for them, the blob is read whole when it is asked for
                chunks.write(self._chunks_path(digests.whole), digests, self.partial / ids.hex32())


def _damage(digest: str) -> Unavailable:
    return Unavailable(
        f"the stored content {digest[:12]}… is damaged",
        code="damaged_blob",
        hint="Upload it again, or repair it from a backup: yard fsck --repair --from PATH",
    )


def _file_name(text: str) -> str:
    """A name of a caller's as that of a file: it leads nowhere, whatever it holds."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _read_chunk(file: BinaryIO, number: int) -> bytes:
    return os.pread(file.fileno(), CHUNK, number * CHUNK)


def measured(file: BinaryIO) -> Digests:
    """The digests of an open file, from its beginning."""
    digests = Digests()
    number = 0
    while data := _read_chunk(file, number):
        digests.update(data)
        number += 1
    return digests


def _measured_at(path: Path) -> Digests:
    with path.open("rb") as file:
        return measured(file)


def _write(file: BinaryIO, digests: Digests, data: bytes) -> None:
    digests.update(data)
    file.write(data)


def _check(actual: str, expected: str | None) -> None:
    if expected is not None and actual != expected:
        raise Invalid(
            f"the content has the digest {actual[:12]}…, not {expected[:12]}… as announced", code="digest_mismatch", hint="Send it again."
        )


async def _batched(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes, about as many at a time as are worth a thread. What came before an error is handed on first: an upload goes on there."""
    batch: list[bytes] = []
    size = 0
    broken: BaseException | None = None
    while True:
        try:
            data = await anext(chunks, None)
        except Exception as error:
            data, broken = None, error
        if data is not None:
            batch.append(data)
            size += len(data)
        if batch and (data is None or size >= CHUNK):
            yield b"".join(batch)
            batch, size = [], 0
        if broken is not None:
            raise broken
        if data is None:
            return


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
    if error.errno in NO_ROOM:
        return disk_full("nothing was stored")
    return Unavailable(f"storing failed: {error.strerror}", code="storage_failed")

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from ...core.errors import Invalid, TooLarge
from ...core.names import safe_path
from ...engine.http import MAX_BULK_VALUES, Call, CallDep, answer, aside, listing, stream_of
from ...engine.openapi import Media, answers
from ...engine.resources import Cases, named_routes
from ...ports.objects import File, Tree
from ...spec import jsontext
from ...spec.answers import Page
from ...spec.datastore import Blob, Manifest, StoredFile, Upload, UploadOffset
from ...spec.nouns import NOUNS
from . import service
from .intake import intake_of, uploader_of
from .model import check_digest, read_manifest

MAX_MANIFEST = 64 * 2**20
FILES = APIRouter(prefix="/workspaces/{workspace}", tags=["datastores"])
UPLOAD_HEADERS = {"Upload-Offset": "Where this part begins, in bytes; required.", "Upload-Length": "How large the whole file is; required."}


NAMED = Cases(service.list_datastores, service.get_datastore, service.put_datastore, service.delete_datastore)
router = APIRouter()
router.include_router(named_routes(NOUNS["datastore"], NAMED, needs=lambda call: (call.yard.vault, call.yard.home.root)))


@FILES.get("/datastores/{name}/files")
@answers(Page[StoredFile])
async def list_files(call: CallDep, name: str, prefix: str = "", limit: int = 1000, token: str | None = None) -> Response:
    page = await call.read(service.list_files, name, prefix, limit, token)
    return listing([{"path": f.path, "digest": f.digest, "size": f.size} for f in page.items], page.next_token)


@FILES.get("/datastores/{name}/files/{path:path}")
@answers(Media(), also={206: Media(), 416: None}, headers={"Range": "One range `bytes=a-b`."})
async def download(call: CallDep, request: Request, name: str, path: str) -> Response:
    file = await call.read(service.get_file, name, safe_path(path))
    return await blob_answer(call, file, request.headers.get("range"))


@FILES.post("/datastores/{name}/uploads")
@answers(Upload, body=Manifest)
async def announce_upload(call: CallDep, name: str) -> Response:
    await call.read(service.check_upload)
    body = await call.json(service.announce_upload, most_values=MAX_BULK_VALUES)
    return await _announce(call, name, body, await call.aside(read_manifest, body.get("files")))


@FILES.post("/datastores/{name}/uploads/content")
@answers(Upload, body=Media())
async def upload_content(call: CallDep, request: Request, name: str) -> Response:
    call.permit(service.announce_upload)
    await call.read(service.check_upload)
    announcement, tree = await take_content(call, request)
    return await _announce(call, name, announcement, tree)


async def _announce(call: Call, datastore: str, body: dict[str, Any], tree: Tree) -> Response:
    return answer(await call.write(service.announce_upload, datastore, tree, _upload_name(body), await lost_content(call, tree)))


async def lost_content(call: Call, tree: Tree) -> set[str]:
    """Digests of `tree` whose bytes are gone or damaged: whoever has them sends them again, which mends it."""
    return await asyncio.to_thread(call.yard.objects.missing, {file.digest for file in tree.files})


async def take_content(call: Call, request: Request) -> tuple[dict[str, Any], Tree]:
    """Many small files in one request: a line of JSON (the announcement), then per missing blob `digest size LF bytes`.

    The blobs are stored and staged; the announcement and its tree are returned. The caller's permission was checked.
    """
    frames = Frames(stream_of(request))
    line = await frames.line(MAX_MANIFEST)
    announcement = await aside(len(line), frames.object_of, line)
    tree = await aside(len(line), read_manifest, announcement.get("files"))
    while header := await frames.line(200):
        digest, _, size = header.decode("ascii", "replace").partition(" ")
        if not size.isdigit():
            raise Invalid("a frame begins with `digest size`", code="invalid_frame")
        blob = await intake_of(call).take(call, frames.take(int(size)), expect=check_digest(digest))
        await call.write(service.stage, File(blob.digest, blob.digest, blob.size))
    return announcement, tree


@FILES.head("/blobs/{digest}")
@answers(None, answer_headers={"Upload-Offset": "How many bytes of the file have come."})
async def upload_offset(call: CallDep, digest: str) -> Response:
    """How much of the caller's interrupted upload is here: `Upload-Offset`. All of it, when the workspace has the file already."""
    held = await call.read(service.held_size, check_digest(digest))
    if held is None or call.yard.objects.missing([digest]):
        held = call.yard.objects.partial_size(digest, uploader_of(call))
    return Response(headers={"Upload-Offset": str(held)})


@FILES.put("/blobs/{digest}")
@answers(Blob, 201, body=Media(), also={202: UploadOffset}, headers=UPLOAD_HEADERS)
async def upload_part(call: CallDep, request: Request, digest: str) -> Response:
    """One large file, resumable: `Upload-Offset` says where this part begins, `Upload-Length` how large the whole is."""
    held = await call.read(service.held_size, check_digest(digest))
    offset, total = (request.headers.get(name, "") for name in ("upload-offset", "upload-length"))
    if not (offset.isdigit() and total.isdigit() and int(total) <= call.yard.settings.max_upload_bytes):
        raise Invalid("Upload-Offset and Upload-Length must be given in bytes, within the yard's limit", code="invalid_upload")
    if held is not None and held == int(offset) and not call.yard.objects.missing([digest]):
        return answer({"digest": digest, "size": held}, 201)  # its last part came before, and the answer was lost
    blob = await intake_of(call).append(call, digest, int(offset), stream_of(request), int(total))
    if blob is None:
        return answer({"offset": call.yard.objects.partial_size(digest, uploader_of(call))}, 202)
    await call.write(service.stage, File(blob.digest, blob.digest, blob.size))
    return answer({"digest": blob.digest, "size": blob.size}, 201)


router.include_router(FILES)


def _upload_name(body: dict[str, Any]) -> str:
    """Ends with `/` when it is said to be a folder's."""
    name = body.get("name", "")
    if not isinstance(name, str) or not name:
        return ""
    return safe_path(name) + ("/" if name.endswith("/") else "")


def attachment(name: str) -> str:
    """The value of Content-Disposition (RFC 6266): the name in plain characters, and as it is where it has others."""
    plain = re.sub(r"[^\w .,()+=@-]", "_", name, flags=re.ASCII)
    exact = "" if plain == name else f"; filename*=UTF-8''{quote(name, safe='', errors='replace')}"
    return f'attachment; filename="{plain}"{exact}'


async def blob_answer(call: Call, file: File, range_header: str | None) -> Response:
    """The bytes of a file as an attachment that a browser will not run; one `bytes=a-b` range is honoured.

    Raises Unavailable when its first bytes are damaged; damage further on breaks the answer off before them.
    """
    headers = {
        "Content-Disposition": attachment(file.path.rsplit("/", 1)[-1]),
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "X-Content-Type-Options": "nosniff",
        "Accept-Ranges": "bytes",
        "ETag": f'"{file.digest}"',
    }
    span = byte_range(range_header, file.size)
    if span is None:
        headers["Content-Length"] = str(file.size)
        chunks = await asyncio.to_thread(_begun, call.yard.objects.open(file.digest))
        return StreamingResponse(chunks, headers=headers, media_type="application/octet-stream")
    start, length = span
    if length <= 0:
        return Response(status_code=416, headers={"Content-Range": f"bytes */{file.size}"})
    headers["Content-Length"] = str(length)
    headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{file.size}"
    chunks = await asyncio.to_thread(_begun, call.yard.objects.open(file.digest, start, length))
    return StreamingResponse(chunks, status_code=206, headers=headers, media_type="application/octet-stream")


def _begun(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same chunks, the first of them read and checked: an answer's status is sent before it."""
    first = next(chunks, b"")
    return itertools.chain((first,), chunks)


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """(start, length) of a single byte range; None to send everything; a length of 0 when it cannot be satisfied."""
    if not header or not header.startswith("bytes=") or "," in header:
        return None
    first, _, last = header.removeprefix("bytes=").partition("-")
    if first.isdigit():
        start = int(first)
        end = min(int(last), size - 1) if last.isdigit() else size - 1
        return (start, max(0, end - start + 1))
    if last.isdigit():
        length = min(int(last), size)
        return (size - length, length)
    return None


class Frames:
    """Reads lines and counted bytes from a stream of chunks."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""
        """Read from the stream, and not handed out yet."""

    async def line(self, limit: int) -> bytes:
        """The next line without its end; empty at the end of the stream."""
        parts, size = [], 0
        chunk = self._rest or await self._more()
        while chunk is not None and (end := chunk.find(b"\n")) < 0:
            parts.append(chunk)
            size += len(chunk)
            if size > limit:
                raise TooLarge("a line of the upload is too long", code="invalid_frame")
            chunk = await self._more()
        if chunk is None:
            if size:
                raise Invalid("the upload ends inside a line", code="invalid_frame")
            return b""
        parts.append(chunk[:end])
        self._rest = chunk[end + 1 :]
        return b"".join(parts)

    async def _more(self) -> bytes | None:
        return await anext(self._chunks, None)

    async def take(self, size: int) -> AsyncIterator[bytes]:
        while size > 0:
            if not self._rest:
                chunk = await anext(self._chunks, None)
                if chunk is None:
                    raise Invalid("the upload ends inside a file", code="invalid_frame")
                self._rest = chunk
            part, self._rest = self._rest[:size], self._rest[size:]
            size -= len(part)
            yield part

    @staticmethod
    def object_of(line: bytes) -> dict[str, Any]:
        try:
            document = jsontext.loads(line, MAX_BULK_VALUES)
        except Invalid:
            document = None
        if not isinstance(document, dict):
            raise Invalid("an upload begins with a line of JSON that lists its files", code="invalid_manifest")
        return document

"""Sending local files: walked with the ignore rules applied on the way, hashed, and only what is missing is sent."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..core.errors import Invalid, NotFound, Unavailable
from ..core.names import path_problem, safe_path
from ..spec.references import BLOBSTORE

if TYPE_CHECKING:
    from .transport import Transport

CHUNK = 1 << 20
SMALL = 4 << 20
"""Bytes. Files up to this size are sent in one request with others; larger ones each alone, resumable."""

LEFT_OUT = (".git/", "__pycache__/", "*.pyc", ".ipynb_checkpoints/", ".DS_Store", ".amlignore", ".env", "*.pem", "id_rsa", "id_ed25519")
"""Never part of a code snapshot: caches, and files that tend to hold secrets."""

MOST_NAMED = 10
"""Names in one message."""
log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""(what, bytes done, bytes in all)"""


@dataclass(frozen=True)
class LocalFile:
    path: str
    """Relative, with `/`."""
    source: Path
    size: int
    digest: str


def walk(root: Path, *, code: bool) -> Iterator[tuple[str, Path]]:
    """Every file under `root`: (relative path, file). Ignored folders are not entered, links are what they lead to.

    `.amlignore` decides, else (for code) `.gitignore`; code leaves out `LEFT_OUT` besides. What cannot be sent (a link to nothing or to a
    folder that it lies in, a pipe) is logged.
    """
    import pathspec

    lines = list(LEFT_OUT) if code else []
    for name in (".amlignore", ".gitignore") if code else (".amlignore",):
        file = root / name
        if file.is_file():
            lines += file.read_text(encoding="utf-8", errors="replace").splitlines()
            break
    rules = pathspec.GitIgnoreSpec.from_lines(lines)
    empty: list[str] = []
    yield from _walked(root, "", frozenset(), lambda path: bool(rules.match_file(path)), code, empty)
    if empty:
        more = f" and {len(empty) - MOST_NAMED} more" if len(empty) > MOST_NAMED else ""
        log.warning("note: empty folders are not uploaded: %s%s", ", ".join(f"{name}/" for name in empty[:MOST_NAMED]), more)


def files_of(path: Path, *, code: bool) -> Iterator[tuple[str, Path]]:
    """As `walk`; of a file, itself."""
    return iter([(path.name, path)]) if path.is_file() else walk(path, code=code)


def _walked(
    folder: Path, prefix: str, above: frozenset[str], ignored: Callable[[str], bool], code: bool, empty: list[str]
) -> Iterator[tuple[str, Path]]:
    """Files first, then folders, as names are sorted. `above`: the folders that this one lies in, without links; those that hold nothing are
    added to `empty`."""
    here = above | {os.path.realpath(folder)}
    folders = []
    paths = sorted(folder.iterdir())
    if prefix and not paths:
        empty.append(ascii(prefix)[1:-1].rstrip("/"))
    for path in paths:
        relative = prefix + path.name
        if path.is_dir():
            if not ignored(relative + "/") and not (code and (path / "pyvenv.cfg").exists()):
                folders.append(path)
        elif not ignored(relative):
            if path.is_file():
                yield relative, path
            else:
                log.warning("note: %a is not uploaded: it is %s", str(path), "a link to nothing" if path.is_symlink() else "no plain file")
    for path in folders:
        if os.path.realpath(path) in here:
            log.warning("note: %a is not uploaded: it is a link to a folder that it lies in", str(path))
        else:
            yield from _walked(path, f"{prefix}{path.name}/", here, ignored, code, empty)


def upload(transport: Transport, path: Path, *, code: bool = False, progress: Progress | None = None, datastore: str = BLOBSTORE) -> str:
    """Upload a file or folder and return its `azureml://datastores/…` address. Equal content is sent once.

    Raises NotFound when there is nothing at `path`, Invalid for an empty folder and for names that cannot be stored.
    """
    if not path.exists():
        raise NotFound(f"{path}: there is no such file or folder", code="file_not_found")
    name = path.name if path.is_file() else "" if code else path.resolve().name + "/"
    return upload_files(transport, files_of(path, code=code), path, name=name, progress=progress, datastore=datastore)


def upload_files(
    transport: Transport, sources: Iterable[tuple[str, Path]], what: Path, *, name: str = "", progress: Progress | None = None,
    datastore: str = BLOBSTORE,
) -> str:  # fmt: skip
    """Upload files (relative path, file) as the folder `name`, which ends with `/` or is empty, or the only one as the file of that name. The address."""
    files = list(sources)
    if not files:
        raise Invalid(f"{what}: the folder has no files to upload", code="empty_folder")
    target = transport.workspace_path(f"/datastores/{datastore}/uploads")
    answer = send_files(transport, target, files, what.name, {"name": name}, progress)
    uri: str = answer["uri"]
    return uri


def _check_names(files: list[tuple[str, Path]]) -> None:
    """Raise Invalid with the files whose names cannot be stored."""
    problems = [f"{ascii(str(source))}: {problem}" for relative, source in files if (problem := path_problem(relative))]
    if problems:
        remainder = f" (and {len(problems) - MOST_NAMED} more)" if len(problems) > MOST_NAMED else ""
        raise Invalid(
            f"names that cannot be stored: {'; '.join(problems[:MOST_NAMED])}{remainder}",
            code="invalid_path",
            hint="Rename these files, or name them in .amlignore; nothing was uploaded.",
        )


def send_files(
    transport: Transport, target: str, sources: Iterable[tuple[str, Path]], what: str, extra: dict[str, object] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Announce `sources` (relative path, file) at `target`, send the content that is missing there, and return its last answer."""
    sources = list(sources)
    _check_names(sources)
    files = [_hashed(relative, source) for relative, source in sources]
    manifest: dict[str, object] = {"files": [[file.path, file.digest, file.size] for file in files], **(extra or {})}
    answer: dict[str, Any] = transport.call("POST", target, body=manifest)
    if answer["missing"]:
        missing = set(answer["missing"])
        to_send = {file.digest: file for file in files if file.digest in missing}
        answer = _send(transport, target, manifest, list(to_send.values()), what, progress)
    if answer["missing"]:
        raise Unavailable(f"{what}: the upload did not arrive whole", code="upload_incomplete", hint="Try again; what arrived is kept.")
    return answer


def _hashed(relative: str, source: Path) -> LocalFile:
    try:
        with source.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return LocalFile(relative, source, file.tell(), digest)
    except OSError as error:
        raise Invalid(f"{source} cannot be read: {error.strerror}", code="file_unreadable") from None


def _send(
    transport: Transport, target: str, manifest: dict[str, object], files: list[LocalFile], name: str, progress: Progress | None
) -> dict[str, object]:
    total = sum(file.size for file in files)
    done = 0

    def sent(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(name, done, total)

    for file in files:
        if file.size > SMALL:
            _send_large(transport, file, sent)
    small = [file for file in files if file.size <= SMALL]
    answer: dict[str, object] = transport.send(
        "POST", target + "/content", _frames(manifest, small, sent), {"Content-Type": "application/octet-stream"}
    ).json()
    return answer


def _frames(manifest: dict[str, object], files: list[LocalFile], sent: Callable[[int], None]) -> Iterator[bytes]:
    yield json.dumps(manifest).encode() + b"\n"
    for file in files:
        data = file.source.read_bytes()
        yield f"{file.digest} {len(data)}\n".encode() + data
        sent(len(data))


def _send_large(transport: Transport, file: LocalFile, sent: Callable[[int], None]) -> None:
    path = transport.workspace_path(f"/blobs/{file.digest}")
    counted = 0
    for attempt in range(6):
        offset = int(transport.head(path).headers["Upload-Offset"])
        if offset > counted:
            sent(offset - counted)
            counted = offset

        def body(start: int = offset) -> Iterator[bytes]:
            nonlocal counted
            with file.source.open("rb") as source:
                source.seek(start)
                while chunk := source.read(CHUNK):
                    yield chunk
                    counted += len(chunk)
                    sent(len(chunk))

        try:
            transport.send("PUT", path, body(), {"Upload-Offset": str(offset), "Upload-Length": str(file.size)})
            return
        except Unavailable as error:
            if error.code != "unreachable":
                raise
            if attempt == 5:
                raise Unavailable(
                    f"{file.source}: the upload keeps breaking off", code="upload_incomplete", hint="Try again; what arrived is kept."
                ) from None


def download(transport: Transport, uri: str, target: Path, progress: Progress | None = None) -> list[Path]:
    """Fetch the file or folder at a datastore address into the folder `target`; each file is checked against its digest."""
    from ..spec.references import DatastorePath, parse_reference

    location = parse_reference(uri)
    if not isinstance(location, DatastorePath):
        raise Invalid(f"{uri} is not a place in a datastore")
    base = transport.workspace_path(f"/datastores/{location.datastore}/files")
    prefix = location.path
    files = list(transport.pages(base, {"prefix": prefix, "limit": 5000}))
    files = [
        file for file in files if prefix.endswith("/") or not prefix or file["path"] == prefix or file["path"].startswith(prefix + "/")
    ]
    total, done, written = sum(file["size"] for file in files), 0, []
    for file in files:
        relative = safe_path(file["path"][len(prefix) :].lstrip("/") or file["path"].rsplit("/", 1)[-1])
        local = target / relative
        local.parent.mkdir(parents=True, exist_ok=True)
        # Named by its content: a name of 255 bytes takes no ending, and another file may have the name with that ending.
        partial = local.with_name(f".{file['digest'][:32]}.partial")
        have_bytes = partial.stat().st_size if partial.exists() else 0
        headers = {"Range": f"bytes={have_bytes}-"} if 0 < have_bytes < file["size"] else {}
        with (
            transport.stream(f"{base}/{quote(file['path'])}", headers=headers) as response,
            partial.open("ab" if response.status == 206 else "wb") as out,
        ):
            for chunk in response.chunks(CHUNK):
                out.write(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(target.name, done, total)
        with partial.open("rb") as check:
            if hashlib.file_digest(check, "sha256").hexdigest() != file["digest"]:
                partial.unlink()
                raise Unavailable(f"{file['path']} arrived damaged", code="digest_mismatch", hint="Try again.")
        partial.replace(local)
        written.append(local)
    return written

"""Other copies of a yard's content: homes, backups, folders of them. A copy is read whole and checked before it is given."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from ...core.errors import Invalid
from ...core.home import Home


class Replicas:
    def __init__(self, sources: Sequence[Path]) -> None:
        """Raises Invalid for a source that is neither a home, nor a backup, nor a folder with one of them."""
        self._homes: list[Path] = []
        self._backups: list[Path] = []
        for source in sources:
            self._add(source)

    def _add(self, source: Path) -> None:
        if (blobs := Home(source).blobs).is_dir():
            self._homes.append(blobs)
        elif source.is_dir() and (backups := [path for path in sorted(source.iterdir()) if _is_backup(path)]):
            self._backups += backups
        elif _is_backup(source):
            self._backups.append(source)
        else:
            raise Invalid(f"{source} is no home of a yard, no backup, and no folder with backups", code="not_a_backup")

    @contextmanager
    def open(self, digest: str) -> Iterator[BinaryIO | None]:
        """A copy that has the digest, at its beginning; None where there is none."""
        for copy in self._copies(digest):
            with copy:
                if _digest_of(copy) == digest:
                    copy.seek(0)
                    yield copy
                    return
        yield None

    def _copies(self, digest: str) -> Iterator[BinaryIO]:
        name = f"{digest[:2]}/{digest[2:]}"
        for home in self._homes:
            if (home / name).is_file():
                yield (home / name).open("rb")
        for backup in self._backups:
            with tarfile.open(backup) as tar:
                try:
                    member = tar.extractfile(f"blobs/{name}")
                except KeyError:
                    continue
                if member is not None:
                    yield cast(BinaryIO, member)


def _digest_of(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while data := file.read(1 << 20):
        digest.update(data)
    return digest.hexdigest()


def _is_backup(path: Path) -> bool:
    try:
        return path.is_file() and tarfile.is_tarfile(path)
    except OSError:
        return False

"""One tar file with all of a yard: `manifest.json`, the database (SQLite's online copy, or what pg_dump wrote), the keys, and every blob
that the database refers to. The database is copied first and blobs are never changed, so that the two fit together while the yard runs.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sqlite3
import tarfile
import time
from pathlib import Path
from typing import BinaryIO

from modelyard_runtime.files import rename_durably

from ... import __version__
from ...core.errors import Conflict, Unavailable
from ...core.home import Home
from ...drivers.objects.local import LocalObjects
from ...settings import Settings
from ...storage import postgres_copy as postgres
from ...storage.migrate import copy_sqlite
from ...storage.postgres import PostgresDatabase
from ..home import open_home_database
from .report import progress, say

KEYS = ("master.key", "master.key.next", "token.pepper", "admin.token", "node", "ports.json")


def backup(home: Home, settings: Settings, target: Path) -> int:
    db = open_home_database(home, settings, upgrade=False)
    audit = _audit_files(home)  # before the database: what they say of it must be in the copy
    keys = _keys(home)
    copy = home.tmp / f"backup-{os.getpid()}"
    partial = target.with_name(target.name + ".partial")
    try:
        digests = postgres.dump(db, copy) if isinstance(db, PostgresDatabase) else _copy_sqlite(home, copy)
        if _keys(home) != keys:
            raise Conflict(
                "a key of the yard was changed meanwhile; the backup would not open its secrets", code="key_changed", hint="Try again."
            )
        manifest = {"version": __version__, "time": time.time(), "blobs": len(digests), "database": db.dialect}
        with tarfile.open(partial, "w") as tar:
            _add_bytes(tar, "manifest.json", json.dumps(manifest).encode())
            tar.add(copy, f"control/{'yard.db' if db.dialect == 'sqlite' else postgres.DUMP}")
            for name, data in keys.items():
                _add_bytes(tar, f"control/{name}", data)
            for name, data in audit.items():
                _add_bytes(tar, f"control/audit/{name}", data)
            _add_blobs(tar, home, digests)
        partial.chmod(0o600)
        rename_durably(partial, target)
    finally:
        db.close()
        copy.unlink(missing_ok=True)
        partial.unlink(missing_ok=True)
    say(
        f"backed up {len(digests)} files and the database into {target} ({target.stat().st_size:,} bytes). It holds the yard's keys: keep it safe."
    )
    return 0


def _keys(home: Home) -> dict[str, bytes]:
    return {name: (home.control / name).read_bytes() for name in KEYS if (home.control / name).exists()}


def _audit_files(home: Home) -> dict[str, bytes]:
    return (
        {path.name: path.read_bytes() for path in sorted(home.audit.iterdir()) if not path.name.startswith(".")}
        if home.audit.exists()
        else {}
    )


def _copy_sqlite(home: Home, copy: Path) -> set[str]:
    """A copy of the database, and the digests that the copy refers to."""
    copy_sqlite(home.database, copy)
    return _digests_in(copy)


def _add_blobs(tar: tarfile.TarFile, home: Home, digests: set[str]) -> None:
    objects = LocalObjects(home.blobs)
    for number, digest in enumerate(sorted(digests), 1):
        if not objects.has(digest):
            raise Unavailable(
                f"the content {digest[:12]}… is missing; the backup would not be whole", code="missing_blob", hint="Run yard fsck."
            )
        _add_blob(tar, home.blobs / digest[:2] / digest[2:], digest)
        progress("backup", number, len(digests))


class _Checked:
    """A file that is digested while it is copied."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.digest.update(data)
        return data


def _add_blob(tar: tarfile.TarFile, path: Path, digest: str) -> None:
    """Raises Unavailable for bytes that differ from their digest: a backup of them would be found out when it is needed."""
    with path.open("rb") as file:
        copied = _Checked(file)
        tar.addfile(tar.gettarinfo(arcname=f"blobs/{digest[:2]}/{digest[2:]}", fileobj=file), copied)
    if copied.digest.hexdigest() != digest:
        raise Unavailable(
            f"the content {digest[:12]}… is damaged; the backup would not be whole", code="damaged_blob",
            hint="Take it from an older backup first: yard fsck --repair --from PATH",
        )  # fmt: skip


def _add_bytes(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def _digests_in(database: Path) -> set[str]:
    connection = sqlite3.connect(database)
    try:
        return {row[0] for row in connection.execute("SELECT DISTINCT digest FROM files")}
    finally:
        connection.close()

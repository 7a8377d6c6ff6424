"""Backup, restore, fsck and gc of a whole yard: what an operator does beside the running server.

A backup is one tar file: `manifest.json`, the database (SQLite's online copy, or what pg_dump wrote), the keys, and every blob the
database refers to. The database is copied first and blobs are never changed, so that the two fit together while the yard runs.
"""

from __future__ import annotations

import functools
import io
import json
import os
import shutil
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

from . import __version__
from .core import trees
from .core.errors import Conflict, Invalid, Unavailable
from .core.files import write_whole
from .core.home import Home
from .drivers.objects.local import LocalObjects
from .settings import Settings
from .storage import postgres_copy as postgres

KEYS = ("master.key", "admin.token", "node", "ports.json")
FSCK_OK, FSCK_STRUCTURE, FSCK_DATA = 0, 10, 11
"""Exit codes of fsck: all well; something is missing or the database is damaged; stored bytes differ from their digest."""


def backup(home: Home, settings: Settings, target: Path) -> int:
    from .app import open_home_database

    db = open_home_database(home, settings, upgrade=False)
    copy = home.tmp / f"backup-{os.getpid()}"
    partial = target.with_name(target.name + ".partial")
    try:
        digests = _copy_sqlite(home, copy) if db.dialect == "sqlite" else postgres.dump(db, copy)
        manifest = {"version": __version__, "time": time.time(), "blobs": len(digests), "database": db.dialect}
        with tarfile.open(partial, "w") as tar:
            _add_bytes(tar, "manifest.json", json.dumps(manifest).encode())
            tar.add(copy, f"control/{'yard.db' if db.dialect == 'sqlite' else postgres.DUMP}")
            for name in KEYS:
                if (home.control / name).exists():
                    tar.add(home.control / name, f"control/{name}")
            _add_blobs(tar, home, digests)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.chmod(0o600)
        partial.replace(target)
    finally:
        db.close()
        copy.unlink(missing_ok=True)
        partial.unlink(missing_ok=True)
    _say(
        f"backed up {len(digests)} files and the database into {target} ({target.stat().st_size:,} bytes). It holds the yard's keys: keep it safe."
    )
    return 0


def _copy_sqlite(home: Home, copy: Path) -> set[str]:
    """A copy of the database, and the digests that the copy refers to."""
    from .storage.migrate import copy_sqlite

    copy_sqlite(home.database, copy)
    return _digests_in(copy)


def _add_blobs(tar: tarfile.TarFile, home: Home, digests: set[str]) -> None:
    objects = LocalObjects(home.blobs)
    for number, digest in enumerate(sorted(digests), 1):
        if not objects.has(digest):
            raise Unavailable(
                f"the content {digest[:12]}… is missing; the backup would not be whole", code="missing_blob", hint="Run yard fsck."
            )
        tar.add(home.blobs / digest[:2] / digest[2:], f"blobs/{digest[:2]}/{digest[2:]}")
        _progress("backup", number, len(digests))


def _add_bytes(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def restore(home: Home, source: Path, force: bool, database_url: str) -> int:
    """`database_url`: the empty database that the backup of a yard on PostgreSQL goes into."""
    if (home.database.exists() or home.database_record.exists()) and not force:
        raise Conflict(
            f"there is a yard at {home.root} already", code="home_not_empty", hint="Choose an empty YARD_HOME, or --force to replace it."
        )
    staged = home.root.with_name(home.root.name + ".restoring")
    shutil.rmtree(staged, ignore_errors=True)
    try:
        with tarfile.open(source) as tar:
            if "manifest.json" not in tar.getnames():
                raise Invalid(f"{source} is not a backup of a yard", code="not_a_backup")
            tar.extractall(staged, filter="data")
    except (tarfile.TarError, OSError, EOFError) as error:
        shutil.rmtree(staged, ignore_errors=True)
        raise Invalid(f"{source} cannot be read as a backup: {error}", code="not_a_backup") from None
    damaged = [digest for digest, ok in _read_all(staged / "blobs") if not ok]
    if damaged:
        shutil.rmtree(staged, ignore_errors=True)
        raise Invalid(
            f"{len(damaged)} files of the backup are damaged, {damaged[0][:12]}… first; nothing was changed", code="damaged_backup"
        )
    restored = Home(staged)
    restored.prepare()
    try:
        _restore_database(restored, database_url)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    for name in ("master.key", "admin.token"):
        if (restored.control / name).exists():
            (restored.control / name).chmod(0o600)
    old = home.root.with_name(home.root.name + ".replaced")
    if home.root.exists():
        shutil.rmtree(old, ignore_errors=True)
        home.root.rename(old)
    staged.rename(home.root)
    shutil.rmtree(old, ignore_errors=True)
    _say(f"restored the yard into {home.root}; start it with `yard up`")
    return 0


def _restore_database(restored: Home, url: str) -> None:
    dump = restored.control / postgres.DUMP
    if dump.exists() != bool(url):
        kind, how = ("PostgreSQL", "Name an empty database: yard restore FILE --database-url postgresql://…") if dump.exists() else (
            "SQLite", "Leave database_url out.")  # fmt: skip
        raise Invalid(f"this is the backup of a yard on {kind}; nothing was changed", code="wrong_database", hint=how)
    if url:
        identity = postgres.restore(dump, url)
        write_whole(restored.database_record, json.dumps({"id": identity, "url": url}), 0o600)
        dump.unlink()


def fsck(home: Home, db: Any, read_data: bool) -> int:
    try:
        if db.dialect == "sqlite":
            from .app import check_database

            check_database(home)
        digests = db.read_now(_used)
    finally:
        db.close()
    objects = LocalObjects(home.blobs)
    missing = sorted(digest for digest in digests if not objects.has(digest))
    for digest in missing:
        _say(f"missing: {digest}")
    damaged: list[str] = []
    if read_data:
        for digest, ok in _read_all(home.blobs):
            if not ok:
                damaged.append(digest)
                _say(f"damaged: {digest}")
    _say(f"{len(digests)} files referred to, {len(missing)} missing, {len(damaged) if read_data else 'not looked for'} damaged")
    return FSCK_STRUCTURE if missing else FSCK_DATA if damaged else FSCK_OK


def gc(home: Home, db: Any, older_than_hours: float, deleted_days: float, force: bool) -> int:
    """Remove runs deleted long ago, then blobs that no path holds. What is younger than the limit stays: it may belong to
    an upload under way. Refused when more than half of all content belongs to nothing, unless forced."""
    from .app import Owner

    owner = Owner(home)
    before = time.time() - older_than_hours * 3600
    try:
        from .assets.files import service as files

        if not force:
            _check_share(LocalObjects(home.blobs), db.read_now(_used), before)
        _purge_deleted(home, db, int((time.time() - deleted_days * 86_400) * 1000))
        used = db.write_now(lambda unit: files.used_digests(unit, int(before * 1000)))
    finally:
        db.close()
    objects = LocalObjects(home.blobs)
    removed = freed = 0
    for blob, stored_at in list(objects.digests()):
        if blob.digest not in used and stored_at < before:
            objects.remove(blob.digest)
            removed, freed = removed + 1, freed + blob.size
    for partial in objects.partial.iterdir():
        if partial.stat().st_mtime < before:
            freed += partial.stat().st_size
            partial.unlink()
    for laid_out in home.trees.iterdir():
        if laid_out.is_dir() and laid_out.stat().st_mtime < before and not _in_use(home, laid_out.name):
            _drop(laid_out)
    owner.release()
    _say(f"removed {removed} files, {freed:,} bytes")
    return 0


def _check_share(objects: LocalObjects, used: set[str], before: float) -> None:
    """Raise Conflict when what would go is more than half of all content, by number or by size: more likely a mistake than a wish."""
    kept: list[int] = []
    loose: list[int] = []
    for blob, stored_at in objects.digests():
        (loose if blob.digest not in used and stored_at < before else kept).append(blob.size)
    if len(loose) > len(kept) or sum(loose) > sum(kept):
        raise Conflict(
            f"nothing refers to {len(loose)} of {len(loose) + len(kept)} files, {sum(loose):,} of {sum(loose) + sum(kept):,} bytes: "
            "more than half of what is stored; nothing was removed",
            code="gc_too_much", hint="If that is right: yard gc --force",
        )  # fmt: skip


def _purge_deleted(home: Home, db: Any, before_ms: int) -> None:
    """Runs and experiments whose time to be restored is over. What a model or data asset was made of stays."""
    from .core.actor import SYSTEM
    from .work.jobs import service as jobs
    from .work.jobs import store
    from .work.tracking import service as tracking

    def purge(unit: Any, id: str) -> None:
        if store.get(unit, id) is not None:
            jobs.delete(unit, id)
        else:
            tracking.purge_run(unit, id)

    found = db.read_now(lambda unit: tracking.purge_deleted(unit, before_ms, 1_000_000))
    purged = 0
    for number, (workspace, id) in enumerate(found, 1):
        try:
            db.write_now(functools.partial(purge, id=id), SYSTEM, workspace)
            purged += 1
        except Conflict:
            continue
        finally:
            _progress("deleted runs", number, len(found))
    experiments = db.write_now(lambda unit: tracking.purge_experiments(unit, before_ms))
    known = db.read_now(store.names)
    for folder in home.jobs.iterdir():
        if folder.is_dir() and folder.name not in known:
            _drop(folder)
    if found or experiments:
        _say(f"removed {purged} deleted runs and {experiments} experiments; {len(found) - purged} stay, as something was made of them")


def _drop(folder: Path) -> None:
    try:
        trees.remove(folder)
    except OSError as error:
        _say(f"{folder} could not be removed: {error}")


def _in_use(home: Home, tree: str) -> bool:
    """Whether a process that the supervisor keeps reads this laid-out folder."""
    entries = home.supervisor / "entries"
    return any(tree in file.read_text(errors="replace") for file in entries.glob("*.json")) if entries.exists() else False


def _used(unit: Any) -> set[str]:
    from .assets.files import store

    return store.all_digests(unit)


def _digests_in(database: Path) -> set[str]:
    import sqlite3

    connection = sqlite3.connect(database)
    try:
        return {row[0] for row in connection.execute("SELECT DISTINCT digest FROM files")}
    finally:
        connection.close()


def _read_all(blobs: Path) -> Any:
    import hashlib

    for folder in sorted(blobs.iterdir()) if blobs.exists() else ():
        if len(folder.name) != 2:
            continue
        for path in sorted(folder.iterdir()):
            digest = folder.name + path.name
            with path.open("rb") as file:
                yield digest, hashlib.file_digest(file, "sha256").hexdigest() == digest


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def _progress(what: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{what}: {done}/{total}", end="" if done < total else "\n", file=sys.stderr, flush=True)  # noqa: T201

"""A yard from a backup: everything is read and checked beside the home first, then moved into it at once."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

from modelyard_runtime.files import write_whole

from ...core.errors import Conflict, Invalid
from ...core.home import Home
from ...storage import postgres_copy as postgres
from .report import read_all, say


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
    damaged = [digest for digest, ok in read_all(staged / "blobs") if not ok]
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
    for path in (*restored.control.iterdir(), *restored.audit.iterdir()):
        if path.is_file() and path.name not in ("node", "ports.json"):
            path.chmod(0o600)
    old = home.root.with_name(home.root.name + ".replaced")
    if home.root.exists():
        shutil.rmtree(old, ignore_errors=True)
        home.root.rename(old)
    staged.rename(home.root)
    shutil.rmtree(old, ignore_errors=True)
    say(f"restored the yard into {home.root}; start it with `yard up`")
    return 0


def _restore_database(restored: Home, url: str) -> None:
    dump = restored.control / postgres.DUMP
    if dump.exists() != bool(url):
        kind, how = ("PostgreSQL", "Name an empty database: yard restore FILE --database-url postgresql://…") if dump.exists() else (
            "SQLite", "Leave database_url out.")  # fmt: skip
        raise Invalid(f"this is the backup of a yard on {kind}; nothing was changed", code="wrong_database", hint=how)
    if url:
        identity = postgres.restore(dump, url)
        write_whole(restored.database_record, json.dumps({"id": identity, "url": url}), 0o600, durable=True)
        dump.unlink()

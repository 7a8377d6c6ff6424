"""Whether an SQLite database can be served: a cheap look at every start, all of it after an unclean stop, and in the background.

A clean stop leaves a mark that says what the file was then. Without it, or when it says otherwise, the whole file is checked before anything is
served. With it, the header and the small tables are; the rest, which may be gigabytes, is checked while the yard serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import sqlite3
import struct
from pathlib import Path

from modelyard_runtime.files import write_whole

from ..core.errors import Unavailable
from ..core.home import Home
from ..engine.yard import Yard

log = logging.getLogger(__name__)
MAGIC = b"SQLite format 3\0"
HEADER = 100
"""Bytes."""
DIGESTED = 64 * 2**20
"""Bytes. Up to here the mark knows the whole file, beyond its header and size."""
SMALL_TABLE = 20_000
"""Rows. Up to here a table is checked at every start."""
DAMAGED, CHANGED = "database_damaged", "database_changed"


def check_at_start(home: Home) -> bool:
    """Refuse a damaged database. False when it is sound, and yet not the file that the last clean stop left.

    Raises Unavailable with the way to restore.
    """
    verdict = _header_verdict(home.database)
    if verdict is not None:
        raise damaged(home, verdict)
    mark, now = read_mark(home), None
    if mark is not None:
        now = describe(home.database)
    if mark is None or mark != now:
        check_all(home)
        return mark is None
    _check(home, small_only=True)
    return True


def check_all(home: Home) -> None:
    """Raises Unavailable for a database that is damaged anywhere."""
    _check(home, small_only=False)


def damaged(home: Home, verdict: str) -> Unavailable:
    return Unavailable(
        f"the database {home.database} is damaged ({verdict}) and is not served",
        code=DAMAGED,
        hint="Restore a backup: yard restore FILE",
    )


def _check(home: Home, *, small_only: bool) -> None:
    verdict = verdict_on(home.database, small_only=small_only)
    if verdict is not None:
        raise damaged(home, verdict)


def verdict_on(database: Path, *, small_only: bool) -> str | None:
    """What is wrong with it, None when nothing is. Table by table, so that no long transaction keeps the log from being written back."""
    try:
        with contextlib.closing(sqlite3.connect(database, timeout=20)) as connection:
            tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")]
            for table in tables:
                name = '"' + table.replace('"', '""') + '"'
                if (
                    small_only
                    and connection.execute(f"SELECT count(*) FROM (SELECT 1 FROM {name} LIMIT {SMALL_TABLE + 1})").fetchone()[0]
                    > SMALL_TABLE
                ):
                    continue
                verdict = connection.execute(f"PRAGMA quick_check({name})").fetchone()[0]
                if verdict != "ok":
                    return str(verdict)
            if not small_only and (verdict := connection.execute("PRAGMA quick_check").fetchone()[0]) != "ok":
                return str(verdict)
    except sqlite3.DatabaseError as error:
        return str(error)
    return None


def _header_verdict(database: Path) -> str | None:
    """What the first page says that cannot be (SQLite's file format, section 1.3)."""
    with database.open("rb") as file:
        header = file.read(HEADER)
        size = file.seek(0, 2)
    if size == 0:
        return None  # nothing was ever written; that it is empty is said elsewhere
    if len(header) < HEADER or not header.startswith(MAGIC):
        return "it does not begin as an SQLite database does"
    (page,) = struct.unpack_from(">H", header, 16)
    page = 65536 if page == 1 else page
    if page < 512 or page & (page - 1):
        return f"its page size is said to be {page}"
    changes, pages, valid_for = (struct.unpack_from(">I", header, at)[0] for at in (24, 28, 92))
    log_file = database.with_name(database.name + "-wal")
    if log_file.exists() and log_file.stat().st_size:
        return None  # pages may be in the log still
    if changes == valid_for and pages * page != size:
        return f"it has {size:,} bytes, and {pages:,} pages of {page:,} are said to be in it"
    return None


async def say_changed(yard: Yard) -> None:
    """It may have been an operator, or a disk that changed what no structure shows: somebody must look."""
    yard.alarms.sound(
        CHANGED, "yard.db", "it was changed between the last stop and this start, by something else; it is sound as a database"
    )
    await yard.db.write(lambda unit: unit.record("database.changed", "yard.db"))


# The mark of a clean stop


def describe(database: Path) -> dict[str, object]:
    """What the mark says of the file: its size, and a digest of all of it or, when it is large, of its header."""
    size = database.stat().st_size
    with database.open("rb") as file:
        if size <= DIGESTED:
            return {"size": size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
        return {"size": size, "header_sha256": hashlib.sha256(file.read(HEADER)).hexdigest()}


def write_mark(home: Home) -> None:
    """After the database was closed; none when something still has it open, so that not all of it is in the file."""
    log_file = home.database.with_name(home.database.name + "-wal")
    if not home.database.exists():
        write_whole(home.clean_mark, b"", 0o644, durable=True)
    elif not (log_file.exists() and log_file.stat().st_size):
        body = json.dumps(describe(home.database), sort_keys=True)
        write_whole(home.clean_mark, json.dumps({"mark": body, "sha256": _digest(body)}), 0o644, durable=True)


def read_mark(home: Home) -> dict[str, object] | None:
    """None when there is none, or it is not whole; an empty one of an earlier version says nothing of the file, and counts as none."""
    try:
        document = json.loads(home.clean_mark.read_bytes())
        body = document["mark"]
        return dict(json.loads(body)) if document["sha256"] == _digest(body) else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class DatabaseCheck:
    """All of the database, checked while the yard serves: after its start, then daily. PostgreSQL looks after its own pages."""

    name = "database-check"
    topics: tuple[str, ...] = ()
    every = 86_400.0
    exclusive = False

    def __init__(self, yard: Yard) -> None:
        self.yard = yard

    async def turn(self) -> None:
        if self.yard.db.dialect != "sqlite":
            return
        verdict = await asyncio.to_thread(verdict_on, self.yard.home.database, small_only=False)
        if verdict is None:
            self.yard.alarms.end(DAMAGED)
        elif self.yard.alarms.sound(DAMAGED, "yard.db", f"{verdict}; stop the yard, and restore a backup: yard restore FILE"):
            await self.yard.db.write(lambda unit: unit.record("database.damaged", "yard.db", found=verdict[:500]))

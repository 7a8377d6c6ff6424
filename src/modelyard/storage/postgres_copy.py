"""Copies of a PostgreSQL database by its own tools, `pg_dump` and `pg_restore`, where they are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import sqlalchemy as sa

from ..core.errors import Conflict, Unavailable
from .migrate import current_revision, identity_of
from .open import open_database
from .postgres import PostgresDatabase

DUMP = "database.dump"
"""The name of a dump inside a backup; pg_dump's custom format."""


def dump(db: PostgresDatabase, target: Path) -> set[str]:
    """Write the database to `target`, as of one instant; the digests of content that it refers to at that instant."""
    with db.write_engine.connect().execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True) as connection:
        snapshot = connection.execute(sa.text("SELECT pg_export_snapshot()")).scalar()
        _run("pg_dump", db.address, "--format=custom", "--no-owner", "--no-privileges", f"--snapshot={snapshot}", f"--file={target}")
        return {row.digest for row in connection.execute(sa.text("SELECT DISTINCT digest FROM files"))}


def restore(source: Path, url: str) -> str:
    """Fill the empty database at `url`, all of it or nothing; its identity. Raises Conflict for one that is not empty."""
    db = open_database(url)
    try:
        with db.write_engine.connect() as connection:
            tables = sa.inspect(connection).get_table_names()
        if tables:
            raise Conflict(
                f"the database is not empty: it has the table {tables[0]}; nothing was changed", code="database_not_empty",
                hint="Make a new one with createdb, and name that.",
            )  # fmt: skip
        _run("pg_restore", url, "--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges", "--dbname=", str(source))
        assert current_revision(db) is not None
        return str(identity_of(db))
    finally:
        db.close()


def _run(tool: str, url: str, *arguments: str) -> None:
    """Run one of PostgreSQL's tools. Where to connect, and the password, reach it by environment: a command line is for all to read."""
    from psycopg import pq

    parts = pq.Conninfo.parse(url.replace("postgres://", "postgresql://", 1).encode())
    environment = {part.envvar.decode(): part.val.decode() for part in parts if part.envvar and part.val}
    done = subprocess.run([_find(tool), "--no-password", *arguments], env={**os.environ, **environment}, capture_output=True, text=True)
    if done.returncode != 0:
        raise Unavailable(f"{tool} failed:\n{done.stderr.strip()[-2000:]}", code="backup_failed")


def _find(tool: str) -> str:
    """The newest of the machine: a tool reads servers of its own version and of older ones."""
    installed = sorted(
        Path("/usr/lib/postgresql").glob(f"*/bin/{tool}"), key=lambda path: int(path.parts[-3]) if path.parts[-3].isdigit() else 0
    )
    program = str(installed[-1]) if installed else shutil.which(tool)
    if program is None:
        raise Unavailable(
            f"{tool} is not on this machine",
            code="missing_tool",
            hint="Install PostgreSQL's client programs (Debian: apt-get install postgresql-client).",
        )
    return program

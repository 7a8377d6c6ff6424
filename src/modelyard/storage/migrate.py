"""Bring the schema up to date: by itself at start, after a backup, each step in one transaction.

A kill at any statement leaves the revision before it; the next start resumes there. A database that is newer than
the program is refused: going back means restoring the backup that the newer program took.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import sqlalchemy as sa

from modelyard_runtime.files import rename_durably

from ..core.errors import Unavailable
from .database import Database
from .migrations import HEAD
from .sqlite import SqliteDatabase

LOCATION = Path(__file__).parent / "migrations"


def current_revision(db: Database) -> str | None:
    """The schema's revision; None for a database that no yard has used. Raises Unavailable when it cannot be reached."""
    return _value_of(db, "alembic_version", "version_num")


def identity_of(db: Database) -> str | None:
    """What tells this database from any other; None when no yard, or only one before revision 0005, has used it."""
    return _value_of(db, "identity", "id")


def _value_of(db: Database, table: str, column: str) -> str | None:
    try:
        with db.write_engine.connect() as connection:
            if not sa.inspect(connection).has_table(table):
                return None
            value: str | None = connection.execute(sa.select(sa.column(column)).select_from(sa.table(table))).scalar()
            return value
    except sa.exc.DBAPIError as error:
        raise Unavailable(f"the database cannot be reached: {error.orig}", code="database_unavailable", transient=True) from None


def migrate(db: Database, backups: Path) -> bool:
    """Upgrade to HEAD if needed; True when it was. Raises Unavailable for a database from a newer program."""
    revision = current_revision(db)
    if revision == HEAD:
        return False
    if revision is not None and revision > HEAD:
        raise Unavailable(
            f"this database is at schema {revision}, newer than this program's {HEAD}",
            code="database_too_new",
            hint=f"Install the newer modelyard again, or restore a backup made before: yard restore {backups}/…",
        )
    if revision is not None and isinstance(db, SqliteDatabase):
        backups.mkdir(parents=True, exist_ok=True)
        copy_sqlite(db.path, backups / f"before-{HEAD}-from-{revision}.db")
    _upgrade(db)
    return True


def _upgrade(db: Database) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(LOCATION).replace("%", "%%"))  # the value is one of an INI file
    with db.write_engine.connect() as connection:
        if db.dialect == "postgresql":
            # Two servers may start on one database at the same time; the second waits, then finds nothing to do.
            connection.execute(sa.text("SELECT pg_advisory_lock(7237)"))
            connection.commit()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()


def copy_sqlite(source: Path, target: Path) -> None:
    """A consistent copy of a live SQLite database (its online-backup interface), complete before it gets its name."""
    partial = target.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    with sqlite3.connect(source) as live, sqlite3.connect(partial) as copy:
        live.backup(copy)
    live.close()
    copy.close()
    rename_durably(partial, target)

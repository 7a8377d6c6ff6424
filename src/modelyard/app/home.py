"""Opening a home: one process owns it, it belongs to one database, and its first start creates the workspace, experiment and owner that every yard has."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import secrets
import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from modelyard_runtime.files import write_whole

from ..core.actor import SYSTEM
from ..core.errors import Conflict, Invalid, Unavailable
from ..core.home import Home
from ..engine.yard import Yard
from ..settings import Settings
from ..spec.workspace import Workspace
from ..storage import high_water
from ..storage.database import Database
from ..storage.migrate import current_revision, identity_of, migrate
from ..storage.open import open_database, shown
from ..storage.unit import Unit
from ..tenancy.access import service as access
from ..tenancy.workspaces import service as workspaces
from ..work.tracking import service as tracking
from .soundness import check_at_start

log = logging.getLogger(__name__)


class Owner:
    """The lock on a home. Raises Conflict naming the process that holds it."""

    def __init__(self, home: Home) -> None:
        self._file: TextIO = (home.control / "lock").open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.seek(0)
            pid = self._file.read().strip() or "unknown"
            self._file.close()
            raise Conflict(
                f"the yard at {home.root} is in use by process {pid}",
                code="home_in_use",
                hint="Stop that one first (`yard down`), or set YARD_HOME.",
            ) from None
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def release(self) -> None:
        self._file.close()


def node_name(home: Home) -> str:
    """This machine's name among those that run jobs of the same database; generated once."""
    path = home.control / "node"
    if not path.exists():
        write_whole(path, f"{socket.gethostname()}-{secrets.token_hex(4)}", 0o644, durable=True)
    return path.read_text().strip()


def _say_changed() -> None:
    log.critical("the database is sound, but was changed since the yard was stopped, by something else")


def open_home_database(
    home: Home, settings: Settings, *, create: bool = False, upgrade: bool = True, changed: Callable[[], None] = _say_changed
) -> Database:
    """Open the database that this home belongs to, and no other.

    A home remembers its database by identity and address from the first start on. Only the server makes a new one (`create`), and only
    for a home that has none. With `upgrade` SQLite is checked first, all of it after an unclean stop, and the schema is brought up to
    date: damage is refused with the way to restore. `changed` is called for a file that is sound, and not the one of the last clean stop.
    """
    record = read_database_record(home)
    url = settings.database_url or record.get("url", "")
    new = create and not record
    _check_database_location(home, record, url, new)
    if upgrade and not url and home.database.exists() and not check_at_start(home):
        changed()
    db = open_database(url or f"sqlite:///{home.database}")
    try:
        empty = current_revision(db) is None
        if not new and empty and (not record or url == record["url"]):
            raise Unavailable(
                f"the database of the yard at {home.root} is empty", code="database_missing", hint="Restore a backup: yard restore FILE"
            )
        if record and identity_of(db) != record["id"]:
            raise Conflict(
                f"the database at hand is not the one of the yard at {home.root}", code="another_database",
                hint="Name the address under which the yard's own database is reached, or set YARD_HOME to the home of that other one.",
            )  # fmt: skip
        if upgrade:
            migrate(db, home.backups)
            identity = {"id": identity_of(db), "url": url}
            if identity != record:
                write_whole(home.database_record, json.dumps(identity), 0o600, durable=True)
            home.clean_mark.unlink(missing_ok=True)
    except BaseException:
        db.close()
        raise
    return db


def read_database_record(home: Home) -> dict[str, str]:
    """`id` and `url` of the home's database, `url` empty for SQLite; nothing for a home that never started."""
    try:
        return dict(json.loads(home.database_record.read_text()))
    except FileNotFoundError:
        return {}
    except ValueError:
        raise Unavailable(
            f"{home.database_record} cannot be read",
            code="home_damaged",
            hint="Delete it, and start once with the --database-url of before.",
        ) from None


def _check_database_location(home: Home, record: dict[str, str], url: str, new: bool) -> None:
    """Raise for a home without a yard, whose database is gone, or whose data lies elsewhere than `url` says."""
    in_use = record.get("url") == "" or (not record and holds_yard(home.database))
    if url and in_use:
        raise Conflict(
            f"the data of the yard at {home.root} lies in {shown('')}, not in {shown(url)}", code="another_database",
            hint="Leave --database-url out, or choose an empty YARD_HOME for a yard on PostgreSQL.",
        )  # fmt: skip
    if not url and not record and not home.database.exists() and home.master_key.exists():
        raise Conflict(
            f"the yard at {home.root} belongs to a database that it does not remember", code="database_unknown",
            hint="Name it once: yard up --database-url postgresql://…",
        )  # fmt: skip
    if not url and not home.database.exists() and not new:
        if not record:
            raise Invalid(f"there is no yard at {home.root}", code="no_yard", hint="Set YARD_HOME, or start one with `yard up`.")
        raise Unavailable(f"the database {home.database} is gone", code="database_missing", hint="Restore a backup: yard restore FILE")


def holds_yard(database: Path) -> bool:
    """Whether a SQLite file has the data of a yard: earlier programs left an empty one beside a PostgreSQL database."""
    if not database.exists():
        return False
    try:
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            return bool(connection.execute("SELECT count(*) FROM principals").fetchone()[0])
    except sqlite3.OperationalError as error:
        return "no such table" not in str(error)
    except sqlite3.DatabaseError:
        return True


async def first_start(yard: Yard) -> None:
    """The workspace `default`, its Default experiment, and the first owner with a token in a 0600 file."""

    yard.db.expiry.raise_to(await yard.db.read(high_water.reached))

    def prepare(unit: Unit) -> str | None:
        if not workspaces.exists(unit, workspaces.DEFAULT):
            workspaces.create_or_update(unit, Workspace(name=workspaces.DEFAULT, description="Made with the yard."))
        workspaces.set_default_quota(unit, yard.settings.workspace_quota_bytes)
        tracking.ensure_default_experiment(unit)
        return access.ensure_admin(unit, yard.vault, has_token=yard.home.admin_token.exists())

    token = await yard.db.write(prepare, SYSTEM, workspaces.DEFAULT)
    if token is not None:
        write_whole(yard.home.admin_token, token + "\n", 0o600, durable=True)

"""Which database an address means."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from ..core.clock import Clock, elapsed_ms, now_ms
from ..core.errors import Invalid
from .database import Database
from .postgres import PostgresDatabase
from .sqlite import SqliteDatabase


def open_database(url: str, *, clock: Clock = now_ms, elapsed: Clock = elapsed_ms, readers: int = 4) -> Database:
    """Open `sqlite:///PATH` or `postgresql://…`. Raises Unavailable with the install line when a driver is missing."""
    if url.startswith("sqlite:///"):
        return SqliteDatabase(Path(url.removeprefix("sqlite:///")), clock, readers, elapsed)
    if url.startswith(("postgresql://", "postgres://", "postgresql+psycopg://")):
        return PostgresDatabase(url, clock, readers, elapsed)
    raise Invalid(f"{url.split(':')[0]}: is not a database this yard knows; use sqlite:///PATH or postgresql://…")


def shown(url: str) -> str:
    """A database's address without its password; the plain words for SQLite in the home."""
    if not url:
        return "SQLite in its own folder"
    parts = urlsplit(url)  # not `make_url`, which knows one host only
    user, at, hosts = parts.netloc.rpartition("@")
    name, colon, _ = user.partition(":")
    return f"{parts.scheme}://{name}{':***' if colon else ''}{at}{hosts}{parts.path}"

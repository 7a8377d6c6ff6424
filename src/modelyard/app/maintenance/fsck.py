"""Whether the database is sound, and everything that it refers to is stored as it was."""

from __future__ import annotations

from ...core.home import Home
from ...drivers.objects.local import LocalObjects
from ...settings import Settings
from ..home import check_database, open_home_database
from .report import read_all, say, used_digests

FSCK_OK, FSCK_STRUCTURE, FSCK_DATA = 0, 10, 11
"""Exit codes: sound; content missing or the database damaged; stored bytes differ from their digest."""


def fsck(home: Home, settings: Settings, read_data: bool) -> int:
    """Returns one of the exit codes above."""
    db = open_home_database(home, settings)
    try:
        if db.dialect == "sqlite":
            check_database(home)
        digests = db.read_now(used_digests)
    finally:
        db.close()
    objects = LocalObjects(home.blobs)
    missing = sorted(digest for digest in digests if not objects.has(digest))
    for digest in missing:
        say(f"missing: {digest}")
    damaged: list[str] = []
    if read_data:
        for digest, ok in read_all(home.blobs):
            if not ok:
                damaged.append(digest)
                say(f"damaged: {digest}")
    say(f"{len(digests)} files referred to, {len(missing)} missing, {len(damaged) if read_data else 'not looked for'} damaged")
    return FSCK_STRUCTURE if missing else FSCK_DATA if damaged else FSCK_OK

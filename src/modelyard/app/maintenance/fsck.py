"""Whether the database is sound, and everything that it refers to is stored as it was; and putting right what another copy has."""

from __future__ import annotations

from pathlib import Path

from ...assets.files import service as files
from ...core.home import Home
from ...drivers.objects.local import LocalObjects
from ...settings import Settings
from ...storage.database import Database
from ..home import open_home_database
from ..soundness import check_all
from .replicas import Replicas
from .report import progress, say

FSCK_OK, FSCK_STRUCTURE, FSCK_DATA = 0, 10, 11
"""Exit codes: sound; content missing or the database damaged; stored bytes differ from their digest."""


def fsck(home: Home, settings: Settings, read_data: bool, repair: bool = False, sources: tuple[Path, ...] = ()) -> int:
    """Returns one of the exit codes above, for what is so in the end.

    `repair` reads all data, takes what is missing or damaged from `sources` (homes, backups, folders of backups), each copy checked first,
    and moves damaged bytes aside. Sizes that the database has wrong are corrected.
    """
    db = open_home_database(home, settings)
    try:
        if db.dialect == "sqlite":
            check_all(home)
        return _check_content(db, LocalObjects(home.blobs), read_data or repair, repair, sources)
    finally:
        db.close()


def _check_content(db: Database, objects: LocalObjects, read_data: bool, repair: bool, sources: tuple[Path, ...]) -> int:
    noted = db.read_now(files.sizes_noted)
    used = {digest for digest, _ in noted}
    stored = {blob.digest: blob.size for blob, _ in objects.digests()}
    missing = used - stored.keys()
    damaged = _damaged(objects, stored) if read_data else set()
    wrong = {digest for digest, size in noted if digest not in damaged and stored.get(digest, size) != size}
    _report("missing", missing)
    _report("damaged", damaged)
    _report("of another size than the database says", wrong)
    if repair:
        for digest in wrong:
            db.write_now(lambda unit, digest=digest: files.correct_size(unit, digest, stored[digest]))  # type: ignore[misc]
        mended = _repair(objects, missing, damaged, used, Replicas(sources))
        missing, damaged = missing - mended, damaged - mended
        missing, damaged, wrong = missing | (damaged & used), set(), set()
    say(f"{len(used)} files referred to, {len(missing)} missing, {len(damaged) if read_data else 'not looked for'} damaged")
    return FSCK_STRUCTURE if missing or wrong else FSCK_DATA if damaged else FSCK_OK


def _damaged(objects: LocalObjects, stored: dict[str, int]) -> set[str]:
    """Those whose bytes differ from their digest: the running yard hears of them, and takes them again from whoever has them."""
    damaged = set()
    for number, digest in enumerate(sorted(stored), 1):
        if objects.is_whole(digest):
            objects.mark_whole(digest)
        else:
            damaged.add(digest)
            objects.mark_damaged(digest)
        progress("content", number, len(stored))
    return damaged


def _repair(objects: LocalObjects, missing: set[str], damaged: set[str], used: set[str], replicas: Replicas) -> set[str]:
    """What was taken from another copy. The bytes of damaged content are kept aside, for who wants to look at them."""
    mended = set()
    for digest in sorted(missing | damaged):
        if digest in damaged:
            say(f"put aside: {objects.put_aside(digest)}")
        if digest not in used:
            continue
        with replicas.open(digest) as copy:
            if copy is None:
                objects.mark_damaged(digest)
                continue
            objects.put_open(copy)
            mended.add(digest)
            say(f"repaired: {digest}")
    return mended


def _report(what: str, digests: set[str]) -> None:
    for digest in sorted(digests):
        say(f"{what}: {digest}")

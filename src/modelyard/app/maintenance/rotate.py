"""New keys in place of old ones: the master key while the yard is stopped, the key of the audit log at any time."""

from __future__ import annotations

from ...core.errors import Conflict
from ...core.home import Home
from ...drivers.vault.local import MasterKeyRotation
from ...settings import Settings
from ...storage.database import Database
from ...tenancy.audit.files import LedgerFiles
from ...tenancy.secrets import service as secrets
from ..home import Owner, open_home_database
from .report import say

BATCH = 100
"""Secrets that are sealed anew in one transaction."""


def rotate_master(home: Home, settings: Settings) -> int:
    """Seal every secret with a new master key. It can be killed at any instant: every secret stays readable, and the next call goes on.

    Raises Conflict while the yard runs: the server would go on with the old key.
    """
    owner = Owner(home)
    db = open_home_database(home, settings)
    try:
        if not home.master_key.exists():
            raise Conflict(f"the yard at {home.root} has no master key", code="master_key_missing", hint="Start it once: yard up")
        rotation = MasterKeyRotation(home.master_key)
        if rotation.resumed:
            say("going on with a rotation that was not finished")
        count = _reseal_all(db, rotation)
        rotation.finish()
        db.write_now(lambda unit: unit.record("key.rotated", "master", secrets=count))
    finally:
        db.close()
        owner.release()
    say(f"the master key is a new one; {count} secrets were sealed with it. Backups from before hold the old one, and what it opens.")
    return 0


def _reseal_all(db: Database, rotation: MasterKeyRotation) -> int:
    """How many secrets had the old key."""
    count = 0

    def resealed(sealed: bytes, bound_to: str) -> bytes | None:
        nonlocal count
        value = rotation.resealed(sealed, bound_to)
        count += value is not None
        return value

    position: tuple[str, str] | None = ("", "")
    while position is not None:
        position = db.write_now(lambda unit, after=position: secrets.reseal(unit, resealed, after, BATCH))  # type: ignore[misc]
    return count


def rotate_audit(home: Home, settings: Settings) -> int:
    """A new key for audit rows from now on. A running yard takes it within seconds; its next anchor vouches for what was sealed before."""
    db = open_home_database(home, settings, upgrade=False)
    try:
        files = LedgerFiles(home.audit)
        keys = files.keys().rotated()
        files.write_keys(keys)
        db.write_now(lambda unit: unit.record("key.rotated", "audit", key=keys.current))
        home.clean_mark.unlink(missing_ok=True)  # what it says of the database is so no more
    finally:
        db.close()
    say(f"audit rows are sealed with the key {keys.current} from now on; those before are verified with the keys they have")
    return 0

"""Removes what was deleted long ago, and stored content that nothing refers to."""

from __future__ import annotations

import functools
import time
from pathlib import Path

from ...assets.files import service as files
from ...core import trees
from ...core.actor import SYSTEM
from ...core.errors import Conflict
from ...core.home import Home
from ...drivers.objects.local import LocalObjects
from ...settings import Settings
from ...storage import high_water
from ...storage.database import Database
from ...storage.unit import Unit
from ...work.jobs import service as jobs
from ...work.tracking import service as tracking
from ..compose import compose
from ..features import FEATURES
from ..home import Owner, open_home_database
from .report import progress, say, used_digests


def gc(home: Home, settings: Settings, older_than_hours: float, deleted_days: float, force: bool) -> int:
    """Remove runs deleted long ago, then blobs that no path holds. What is younger than the limit stays: it may belong to
    an upload in flight. Raises Conflict when more than half of all content is unreferenced, unless forced."""
    db = open_home_database(home, settings)
    owner = Owner(home)
    compose(FEATURES)  # deleting a job asks every feature to forget it
    before = time.time() - older_than_hours * 3600
    try:
        if not force:
            _check_share(LocalObjects(home.blobs), db.read_now(used_digests), before)
        db.expiry.raise_to(db.read_now(high_water.reached))
        _purge_deleted(home, db, db.expiry.at(db.clock()) - int(deleted_days * 86_400_000))
        used = db.write_now(lambda unit: files.used_digests(unit, int(before * 1000)))
    finally:
        db.close()
    objects = LocalObjects(home.blobs)
    removed = freed = 0
    for blob, stored_at in list(objects.digests()):
        if blob.digest not in used and stored_at < before:
            objects.remove(blob.digest)
            removed, freed = removed + 1, freed + blob.size
    for partial in list(objects.partials()):
        if partial.stat().st_mtime < before:
            freed += partial.stat().st_size
            partial.unlink()
    for laid_out in home.trees.iterdir():
        if laid_out.is_dir() and laid_out.stat().st_mtime < before and not _in_use(home, laid_out.name):
            _drop(laid_out)
    owner.release()
    say(f"removed {removed} files, {freed:,} bytes")
    return 0


def _check_share(objects: LocalObjects, used: set[str], before: float) -> None:
    """Raise Conflict when more than half of all content would be removed, by number or by size: that is probably a mistake."""
    used_sizes: list[int] = []
    loose: list[int] = []
    for blob, stored_at in objects.digests():
        (loose if blob.digest not in used and stored_at < before else used_sizes).append(blob.size)
    if len(loose) > len(used_sizes) or sum(loose) > sum(used_sizes):
        raise Conflict(
            f"nothing refers to {len(loose)} of {len(loose) + len(used_sizes)} files, {sum(loose):,} of {sum(loose) + sum(used_sizes):,} bytes: "
            "more than half of what is stored; nothing was removed",
            code="gc_too_much", hint="If that is right: yard gc --force",
        )  # fmt: skip


def _purge_deleted(home: Home, db: Database, before_ms: int) -> None:
    """Purge runs and experiments whose retention is over. Those that a model or data asset holds stay."""

    def purge(unit: Unit, id: str) -> None:
        if jobs.record_of(unit, id) is not None:
            jobs.delete(unit, id)
        else:
            tracking.purge_run(unit, id)

    runs = db.read_now(lambda unit: tracking.purge_deleted(unit, before_ms, 1_000_000))
    purged = 0
    for number, (workspace, id) in enumerate(runs, 1):
        try:
            db.write_now(functools.partial(purge, id=id), SYSTEM, workspace)
            purged += 1
        except Conflict:
            continue
        finally:
            progress("deleted runs", number, len(runs))
    experiments = db.write_now(lambda unit: tracking.purge_experiments(unit, before_ms))
    known = db.read_now(jobs.names)
    for folder in home.jobs.iterdir():
        if folder.is_dir() and folder.name not in known:
            _drop(folder)
    if runs or experiments:
        say(f"removed {purged} deleted runs and {experiments} experiments; {len(runs) - purged} stay, as something was made of them")


def _drop(folder: Path) -> None:
    try:
        trees.remove(folder)
    except OSError as error:
        say(f"{folder} could not be removed: {error}")


def _in_use(home: Home, tree: str) -> bool:
    """Whether a process that the supervisor keeps reads this laid-out folder."""
    entries = home.supervisor / "entries"
    return any(tree in file.read_text(errors="replace") for file in entries.glob("*.json")) if entries.exists() else False

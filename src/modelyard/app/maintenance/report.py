"""Reporting of the maintenance commands, and the content checks that they share."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

from ...assets.files import service as files
from ...storage.unit import Unit


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def progress(what: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{what}: {done}/{total}", end="" if done < total else "\n", file=sys.stderr, flush=True)  # noqa: T201


def used_digests(unit: Unit) -> set[str]:
    """Every digest that the database refers to."""
    return files.all_digests(unit)


def read_all(blobs: Path) -> Iterator[tuple[str, bool]]:
    """Every stored blob, read whole: (digest, whether its bytes have it)."""
    for folder in sorted(blobs.iterdir()) if blobs.exists() else ():
        if len(folder.name) != 2:
            continue
        for path in sorted(folder.iterdir()):
            digest = folder.name + path.name
            with path.open("rb") as file:
                yield digest, hashlib.file_digest(file, "sha256").hexdigest() == digest

"""Files of the yard's own folders and of its client that appear whole or not at all. What user code can write: `trees`."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from . import ids


def write_whole(path: Path, data: bytes | str, mode: int = 0o644) -> None:
    """Replace `path` by `data`, durably: after a kill or a power cut it holds the old content or the new, never a part.

    The file has `mode` from its first byte on, so that a secret (0o600) is never readable by others.
    """
    partial = path.with_name(f".{path.name}.{ids.hex32()}")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

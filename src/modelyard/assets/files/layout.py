"""Files laid out as folders for processes to read: shared, read-only, one folder per tree digest."""

from __future__ import annotations

from pathlib import Path

from ...core import ids, trees
from ...core.names import safe_path
from ...engine.yard import Yard
from .model import Tree


def lay_out(yard: Yard, tree: Tree) -> Path:
    """A read-only folder with the files of `tree`, shared by everything that reads the same content.

    It appears whole or not at all. Not synced: after a power cut the folders are made anew (`forget_after_boot`).
    """
    target = yard.home.trees / tree.digest
    if target.is_dir():
        return target
    partial = yard.home.tmp / f"tree-{ids.hex32()}"
    try:
        copy_out(yard, tree, partial, 0o444)
        try:
            partial.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        trees.remove(partial)
    return target


def copy_out(yard: Yard, tree: Tree, target: Path, mode: int = 0o644, programs: tuple[str, ...] = ()) -> None:
    """Copy the files of `tree` into the folder `target` (0755, made when it is missing). `programs`: endings of files to be run (0755)."""
    trees.make(target, 0o755)
    with trees.Folder(target) as folder:
        for file in tree.files:
            with folder.create(safe_path(file.path), 0o755 if file.path.endswith(programs) else mode) as written:
                yard.objects.copy_to(file.digest, written)


def forget_after_boot(yard: Yard) -> None:
    """Drop laid-out folders that an earlier boot of this machine wrote: they were never synced."""
    mark = yard.home.trees / ".boot"
    boot = boot_id()
    if mark.exists() and mark.read_text() == boot:
        return
    for folder in yard.home.trees.iterdir():
        if folder.is_dir():
            trees.remove(folder)
    mark.write_text(boot)


def boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"

"""Trees laid out as folders for processes of this machine to read: shared, read-only, one folder per digest."""

from __future__ import annotations

from pathlib import Path

from modelyard_runtime.supervision.processes import boot_id

from ...core import ids, trees
from ...core.names import safe_path
from ...ports.objects import ObjectStore, Tree


class LocalLayout:
    """Implements TreeLayout. Folders are made in `tmp` and get their name in `root`, which lies on the same file system."""

    def __init__(self, objects: ObjectStore, root: Path, tmp: Path) -> None:
        self._objects = objects
        self._root = root
        self._tmp = tmp

    def lay_out(self, tree: Tree) -> Path:
        """It appears whole or not at all. Not synced: after a power cut the folders are made anew (`forget_after_boot`)."""
        target = self._root / tree.digest
        if target.is_dir():
            return target
        partial = self._tmp / f"tree-{ids.hex32()}"
        try:
            self.copy_out(tree, partial, 0o444)
            try:
                partial.rename(target)
            except OSError:
                if not target.is_dir():
                    raise
        finally:
            trees.remove(partial)
        return target

    def copy_out(self, tree: Tree, target: Path, mode: int = 0o644, programs: tuple[str, ...] = ()) -> None:
        """Folders and `programs` get the mode 0755."""
        trees.make(target, 0o755)
        with trees.Folder(target) as folder:
            for file in tree.files:
                with folder.create(safe_path(file.path), 0o755 if file.path.endswith(programs) else mode) as written:
                    self._objects.copy_to(file.digest, written)

    def forget_after_boot(self) -> None:
        """Drop laid-out folders that an earlier boot of this machine wrote: they were never synced."""
        mark = self._root / ".boot"
        boot = boot_id()
        if mark.exists() and mark.read_text() == boot:
            return
        for folder in self._root.iterdir():
            if folder.is_dir():
                trees.remove(folder)
        mark.write_text(boot)

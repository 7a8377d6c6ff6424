"""Pages for builders, whose Python blocks are code: written to a folder and imported as if they stood in the program."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

from modelyard.engine.feature import compose, composed
from modelyard.storage.tables import metadata

PAGES = Path(__file__).parents[1] / "docs/extend"


def write_blocks(page: str, folder: Path) -> Path:
    """A folder like `src/modelyard` with the Python blocks of a page; the first line of each names its file."""
    text = (PAGES / page).read_text()
    blocks = re.findall(r"```python\n# (\S+)\n(.*?)```", text, re.DOTALL)
    assert blocks and len(blocks) == text.count("```python"), "a block does not say which file it is"
    for name, code in blocks:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
    return folder


@contextmanager
def grafted(monkeypatch: pytest.MonkeyPatch, package: ModuleType, folder: Path, name: str) -> Iterator[None]:
    """`package.name` is imported from a folder, and forgotten afterwards with its tables."""
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    tables, modules, composition = set(metadata.tables), set(sys.modules), composed()
    try:
        yield
    finally:
        for table in set(metadata.tables) - tables:
            metadata.remove(metadata.tables[table])
        for module in set(sys.modules) - modules:
            if module.startswith(f"{package.__name__}.{name}"):
                del sys.modules[module]
        vars(package).pop(name, None)
        compose(composition.features)

"""The executor that `docs/extend/driver.md` tells builders to write passes the suite of its port, and a yard can choose it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest

import modelyard.drivers.executor
from modelyard.core.home import Home
from modelyard.drivers import table
from modelyard.drivers.table import Parts, make_executor
from modelyard.testing.memory.builder import MemoryBuilder
from modelyard.testing.memory.objects import MemoryObjects
from pages import grafted, write_blocks


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return write_blocks("driver.md", tmp_path / "page")


def test_the_executor_of_the_page_passes_the_suite(written: Path) -> None:
    folder = str(written / "drivers/executor")
    (written / "conftest.py").write_text(f"import modelyard.drivers.executor\nmodelyard.drivers.executor.__path__.append({folder!r})\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "tests/drivers/test_plain.py"]
    done = subprocess.run(command, cwd=written, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and " passed" in done.stdout and "1 skipped" in done.stdout, done.stdout[-3000:] + done.stderr[-1000:]


def test_it_is_chosen_by_its_row_in_the_table(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = next(
        line for line in (Path(__file__).parents[2] / "docs/extend/driver.md").read_text().splitlines() if line.startswith('    "plain"')
    )
    name, _, where = row.strip().rstrip(",").partition(": ")
    monkeypatch.setitem(table.EXECUTORS, name.strip('"'), where.strip('"'))
    parts = Parts(Home(tmp_path), *(cast(object, None),) * 3, MemoryObjects(), cast(object, None), MemoryBuilder())  # type: ignore[arg-type]
    with grafted(monkeypatch, modelyard.drivers.executor, written / "drivers/executor", "plain"):
        assert type(make_executor("plain", parts)).__name__ == "PlainExecutor"

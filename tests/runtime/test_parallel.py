"""The driver of a parallel step, run as the program that it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from modelyard_runtime import files

RUNTIME = files.RUNTIME
FAILS = "def run(batch):\n    raise ValueError('no')\n"
RETURNS_NONE = "def run(batch):\n    return []\n"
GOOD = "def run(batch):\n    return [1 for _ in batch]\n"
ONE = "import os\ndef run(batch):\n    return [1 for path in batch if os.path.basename(path) == '0']\n"


def drive(tmp_path: Path, script: str, items: int, *options: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "in").mkdir()
    for number in range(items):
        (tmp_path / "in" / str(number)).write_text("x")
    (tmp_path / "entry.py").write_text(script)
    words = ["--script", "entry.py", "--input", "in", "--size", "1", "--workers", "1", "--retries", "0", "--append-to", "out.txt", *options]
    command = [sys.executable, "-I", str(RUNTIME), "parallel", *words, "--"]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("script", "items", "says"),
    [(GOOD, 0, "the input has no items"), (FAILS, 2, "every mini batch failed"), (RETURNS_NONE, 2, "no item succeeded")],
)
def test_nothing_done_is_a_failure_whatever_the_thresholds_are(tmp_path: Path, script: str, items: int, says: str) -> None:
    done = drive(tmp_path, script, items, "--error-threshold", "-1", "--batch-error-threshold", "-1")
    assert done.returncode == 1 and says in done.stdout, done
    assert not (tmp_path / "out.txt").exists()


@pytest.mark.parametrize(("script", "items"), [(GOOD, 0), (RETURNS_NONE, 2)])
def test_it_may_be_none_where_the_step_says_so(tmp_path: Path, script: str, items: int) -> None:
    assert drive(tmp_path, script, items, "--allow-empty").returncode == 0


def test_one_item_that_succeeds_is_enough_without_a_threshold(tmp_path: Path) -> None:
    done = drive(tmp_path, ONE, 3)
    assert done.returncode == 0 and "1 rows, 2 items failed" in done.stdout

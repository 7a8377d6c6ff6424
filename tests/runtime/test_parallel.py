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


TOLD = """
import os
import sys

def init():
    open("ended", "a").close()

def run(batch, context):
    names = [os.path.basename(path) for path in batch]
    about = (context.minibatch_index, context.minibatch_size, context.global_row_index_lower_bound, context.global_row_index_upper_bound)
    return [(names, *about, context.partition_key_value)] * len(batch)

def shutdown():
    with open("ended", "a") as file:
        file.write("ended\\n")
"""


def test_a_script_that_asks_for_it_is_told_of_its_batch_and_of_the_end(tmp_path: Path) -> None:
    done = drive(tmp_path, TOLD, 3, "--size", "2", "--workers", "2")
    assert done.returncode == 0, done
    assert (tmp_path / "out.txt").read_text().splitlines() == [
        "(['0', '1'], 0, 2, 0, 1, None)", "(['0', '1'], 0, 2, 0, 1, None)", "(['2'], 1, 1, 2, 2, None)",
    ]  # fmt: skip
    assert set((tmp_path / "ended").read_text().split()) == {"ended"}


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ("batch", False),
        ("batch, size=3", False),
        ("batch, context=None", True),
        ("batch, *more", True),
        ("batch, *, mini_batch_context", True),
        ("batch, **more", False),
    ],
)
def test_only_a_second_parameter_gets_the_context(tmp_path: Path, parameters: str, told: bool) -> None:
    body = f"def run({parameters}):\n    values = [value for name, value in locals().items() if name != 'batch']\n    return ['Context' in str(values)]\n"
    done = drive(tmp_path, body, 1)
    assert done.returncode == 0 and (tmp_path / "out.txt").read_text() == f"{told}\n", done


def test_files_of_a_partition_travel_together_and_one_of_none_is_named(tmp_path: Path) -> None:
    for part in ("region=eu/month=1", "region=eu/month=2", "region=us/month=1"):
        (tmp_path / "in" / part).mkdir(parents=True)
        for name in "ab":
            (tmp_path / "in" / part / name).write_text("x")
    (tmp_path / "entry.py").write_text("def run(batch, context):\n    return [(len(batch), context.partition_key_value)] * len(batch)\n")
    command = [sys.executable, "-I", str(RUNTIME), "parallel", "--script", "entry.py", "--input", "in", "--append-to", "out.txt", "--keys"]
    done = subprocess.run([*command, "region", "--"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done
    assert sorted(set((tmp_path / "out.txt").read_text().splitlines())) == ["(2, {'region': 'us'})", "(4, {'region': 'eu'})"]
    done = subprocess.run([*command, "region,day", "--"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "partition key day: 'region=eu/month=1/a' lies in no folder day=VALUE" in done.stderr


def test_rows_with_line_breaks_of_any_kind_stay_as_they_are(tmp_path: Path) -> None:
    done = drive(tmp_path, "def run(batch):\n    return ['a\\u2028b\\x0bc']\n", 1)
    assert done.returncode == 0 and (tmp_path / "out.txt").read_text() == "a\u2028b\x0bc\n"


def test_a_script_logs_through_azures_own_name(tmp_path: Path) -> None:
    script = (
        "from azureml_user.parallel_run import EntryScript\n"
        "entry = EntryScript()\n"
        "def run(batch):\n    entry.logger.info('a batch of %d', len(batch))\n    return [entry.output_dir.rpartition('/')[2] for _ in batch]\n"
    )
    done = drive(tmp_path, script, 1)
    assert done.returncode == 0 and (tmp_path / "out.txt").read_text() == "outputs\n" and "INFO a batch of 1" in done.stderr, done

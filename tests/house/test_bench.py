"""The parts of the benchmarks that are no measurement: tables, medians, and the sections of RESULTS.md."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).parents[2] / "bench"


def program(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"bench_{name}", BENCH / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


measure, run = program("measure"), program("run")


def test_a_table_is_markdown_with_every_cell_in_its_column(capsys: pytest.CaptureFixture[str]) -> None:
    table = measure.Table("what", "CPU ms", "ratio")
    table.add("a | b\nc", 3.5, "2x")
    table.add("idle")
    assert str(table).splitlines() == ["| what | CPU ms | ratio |", "|---|---|---|", "| a \\| b c | 3.5 | 2x |", "| idle |  |  |"]
    assert capsys.readouterr().out == "", "rows are shown on stderr; stdout is for the results"
    with pytest.raises(ValueError, match="4 cells"):
        table.add(1, 2, 3, 4)


def test_the_median_of_usages_is_taken_of_cpu_and_wall_apart() -> None:
    usages = [measure.Usage(1, 30), measure.Usage(3, 10), measure.Usage(2, 20)]
    assert measure.median_usage(usages) == measure.Usage(2, 20)


@pytest.mark.parametrize(("count", "expected"), [(1, 0), (2, 0), (100, 98), (400, 395)])
def test_a_percentile_is_one_of_the_values(count: int, expected: int) -> None:
    assert measure.percentile(range(count), 0.99) == expected


def test_cpu_of_a_child_is_counted_once_it_was_waited_for() -> None:
    busy = [sys.executable, "-c", "import time\nwhile time.process_time() < 0.1: pass"]
    used = measure.measured(lambda: subprocess.run(busy, check=True), measure.cpu_seconds_of_own_children)
    assert used.cpu >= 0.1 and used.wall >= 0.1


def test_a_process_tree_begins_with_its_root_and_holds_its_children() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        pids = measure.process_tree(os.getpid())
        assert pids[0] == os.getpid() and child.pid in pids
        assert measure.resident_mb([child.pid]) > 0
    finally:
        child.communicate(b"\n")
    assert measure.cpu_seconds([child.pid]) == 0, "a process that is gone counts nothing"


TEXT = "before\n<!-- begin a -->\nold\n<!-- end a -->\nbetween\n<!-- begin b -->\n<!-- end b -->\nafter\n"


def test_a_section_is_replaced_and_the_prose_stays() -> None:
    changed = run.with_section(TEXT, "a", "| new \\1 |\n\n")
    assert changed == TEXT.replace("old", "| new \\1 |")
    assert run.with_section(changed, "a", "old") == TEXT


@pytest.mark.parametrize("text", ["", TEXT.replace("<!-- end a -->", ""), TEXT + TEXT, "<!-- end a --> <!-- begin a -->"])
def test_a_text_without_the_section_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no single section"):
        run.with_section(text, "a", "new")


def test_every_benchmark_has_a_section_in_the_results() -> None:
    text = (BENCH / "RESULTS.md").read_text()
    for name in run.QUICK:
        assert (BENCH / f"{name}.py").exists()
        assert run.with_section(text, name, "new") != text
    assert set(re.findall(r"<!-- begin (\w+) -->", text)) == set(run.QUICK)


@pytest.mark.parametrize(("arguments", "message"), [(["trackin"], "no benchmark 'trackin'"), (["--rounds", "0"], "1 or more")])
def test_what_cannot_be_run_is_refused_before_anything_runs(arguments: list[str], message: str) -> None:
    done = subprocess.run([sys.executable, BENCH / "run.py", *arguments], capture_output=True, text=True)
    assert done.returncode == 2 and message in done.stderr

"""What the benchmarks measure with: CPU of process trees, wall time, medians, and the tables that come of them."""

from __future__ import annotations

import argparse
import os
import platform
import resource
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

TICK = os.sysconf("SC_CLK_TCK")
_USER, _SYSTEM, _CHILDREN_USER, _CHILDREN_SYSTEM = 11, 12, 13, 14
"""Positions in /proc/PID/stat behind the command's name (proc(5))."""


def options(description: str | None, rounds: int) -> argparse.ArgumentParser:
    """The options that every benchmark takes; each adds its own."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=rounds, help=f"measure each row so many times and take the median (default {rounds})")
    parser.add_argument("--work", type=Path, default=Path("/tmp/modelyard-bench"), help="folder for homes, peers and data; kept")
    return parser


class Usage(NamedTuple):
    """Seconds."""

    cpu: float
    wall: float


def measured(action: Callable[[], object], cpu: Callable[[], float]) -> Usage:
    """What `action` takes; `cpu` reads a counter of CPU seconds."""
    before, began = cpu(), time.perf_counter()
    action()
    wall = time.perf_counter() - began
    return Usage(cpu() - before, wall)


def median_usage(usages: Iterable[Usage]) -> Usage:
    """CPU and wall time each by itself."""
    cpu, wall = zip(*usages, strict=True)
    return Usage(statistics.median(cpu), statistics.median(wall))


def percentile(values: Sequence[float], share: float) -> float:
    """The value at rank `share` (0 to 1) times their number, rounded down, of the sorted values."""
    return sorted(values)[max(0, int(len(values) * share) - 1)]


# Processes


def process_tree(pid: int) -> list[int]:
    """A process and everything below it, parents first."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (stat := _stat(int(name))):
            children.setdefault(int(stat[1]), []).append(int(name))
    pids = [pid]
    for parent in pids:
        pids += children.get(parent, [])
    return pids


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of these processes; one that is gone counts nothing."""
    return sum(_ticks(pid, _USER, _SYSTEM) for pid in pids) / TICK


def cpu_seconds_of_children(pid: int) -> float:
    """User and system time of the children that a process has waited for, and of theirs."""
    return _ticks(pid, _CHILDREN_USER, _CHILDREN_SYSTEM) / TICK


def cpu_seconds_of_own_children() -> float:
    """The same of this process, in microseconds and not in ticks."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def resident_mb(pids: Iterable[int]) -> float:
    """Resident memory in MiB; pages that processes share are counted once for each."""
    pages = 0
    for pid in pids:
        try:
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except OSError:
            continue
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the command's name; none for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return []


def _ticks(pid: int, *fields: int) -> int:
    stat = _stat(pid)
    return sum(int(stat[field]) for field in fields) if stat else 0


# Tables


class Table:
    """A Markdown table. Each row is also printed to stderr as soon as it is measured."""

    def __init__(self, *columns: str) -> None:
        self.columns = columns
        self.rows: list[tuple[str, ...]] = []

    def add(self, *cells: object) -> None:
        """A row; cells that are missing at its end stay empty. Raises ValueError for too many."""
        if len(cells) > len(self.columns):
            raise ValueError(f"{len(cells)} cells do not fit {len(self.columns)} columns")
        texts = [str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells]
        self.rows.append((*texts, *[""] * (len(self.columns) - len(cells))))
        progress(" | ".join(texts))

    def __str__(self) -> str:
        return "\n".join((_row(self.columns), "|" + "---|" * len(self.columns), *(_row(row) for row in self.rows)))


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def circumstances(*facts: str) -> str:
    """One sentence that a figure cannot be read without: the command, versions, the machine."""
    system = f"{os.cpu_count()} cores ({platform.machine()}), {_memory_gib():.0f} GiB of memory, {platform.system()}"
    python = f"Python {platform.python_version()}"
    parts = (f"`{_command()}`", f"modelyard {metadata.version('modelyard')}", *facts, python, system)
    return ", ".join(parts) + "."


def _command() -> str:
    program = Path(sys.argv[0])
    return shlex.join(["python", f"{program.parent.name}/{program.name}", *sys.argv[1:]])


def _memory_gib() -> float:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30

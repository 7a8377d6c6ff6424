"""Run benchmarks one after the other and write their tables into RESULTS.md, between their marks; the prose around them stays.

    python bench/run.py [tracking jobs workflows tracking_large cli serving serving_peers] [--rounds N] [--quick]

Each benchmark prints what it ran on and its tables. With --quick every one runs with small counts, to see that it works; such figures say
nothing, so they are printed and not written.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "RESULTS.md"
QUICK = {
    "tracking": ["--requests", "16", "--clients", "4"],
    "jobs": ["--jobs", "2"],
    "workflows": ["--rounds", "1", "--without-peers"],
    "tracking_large": ["--runs", "200", "--rounds", "1"],
    "cli": ["--rounds", "1"],
    "serving": ["--seconds", "1", "--models", "numbers,frame", "--without-peer"],
    "serving_peers": ["--seconds", "1", "--models", "linear", "--without-peers"],
}
"""Benchmark → its arguments for a quick run."""


def main() -> None:
    arguments = parsed()
    failed = []
    for name in arguments.names or QUICK:
        print(f"== {name}", file=sys.stderr, flush=True)
        more = QUICK[name] if arguments.quick else ["--rounds", str(arguments.rounds)] if arguments.rounds else []
        done = subprocess.run([sys.executable, FOLDER / f"{name}.py", *more], stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            failed.append(name)
            continue
        print(done.stdout)
        if not arguments.quick:
            write_whole(RESULTS, with_section(RESULTS.read_text(), name, done.stdout))
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}; what they measured is not kept")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(QUICK)} (default: all)")
    parser.add_argument("--rounds", type=int, help="how often each row is measured (default: each benchmark's own)")
    parser.add_argument("--quick", action="store_true", help="small counts; print the tables and leave RESULTS.md alone")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in QUICK]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(QUICK)}")
    if arguments.rounds is not None and arguments.rounds < 1:
        parser.error("--rounds takes 1 or more")
    return arguments


def with_section(text: str, name: str, body: str) -> str:
    """`text` with `body` between the marks of `name`. Raises ValueError unless each mark is there once, in order."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    sections = re.findall(f"{re.escape(begin)}.*?{re.escape(end)}", text, re.DOTALL)
    if len(sections) != 1 or text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"the text has no single section between {begin} and {end}")
    return text.replace(sections[0], f"{begin}\n{body.strip()}\n{end}")


def write_whole(path: Path, text: str) -> None:
    """A reader, and a kill, see the old text or the new one."""
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    os.replace(partial, path)


if __name__ == "__main__":
    main()

"""How many environments of the kind that people bring can be resolved, with their own pins.

    python bench/environments.py [FILE.jsonl …] [--only TEXT]

Each line of a file is {"name", "conda": a conda file's document} or {"python", "dependencies": pip's requirements}. Without a file,
the rows of `bench/environments.jsonl` are taken, and `../shared/data/environments.jsonl` where it is there. Nothing is built. A row with
"refused": true can be resolved by nobody; it stands for what is said of it.

A row is resolved with its *own pins* when every version in the lock is one that the file allows; *relaxed* when the builder took others
and said so; else *refused*. Refused rows are printed first.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.assets.environments.model import relaxed, wanted_by
from modelyard.core.errors import YardError
from modelyard.drivers.builder.venv import VenvBuilder
from modelyard.drivers.isolation import detect
from modelyard.spec.environment import Environment

HERE = Path(__file__).parent
OUTCOMES = ("refused", "relaxed", "own pins")


@dataclass(frozen=True)
class Row:
    name: str
    outcome: str
    seconds: float
    lines: tuple[str, ...]


def environment(row: dict[str, Any]) -> Environment:
    if "conda" in row:
        return Environment(conda_file=row["conda"])
    return Environment(conda_file={"dependencies": [f"python={row['python']}", "pip", {"pip": row["dependencies"]}]})


def resolved(builder: VenvBuilder, name: str, row: dict[str, Any]) -> Row:
    began = time.monotonic()
    try:
        wanted = wanted_by(environment(row))
        lock = builder.lock(wanted.requirements, lambda line: None)
    except YardError as error:
        return Row(name, "refused", time.monotonic() - began, tuple(str(error).splitlines()))
    outcome = "relaxed" if relaxed(wanted.requirements, lock) else "own pins"
    facts = (f"Python {lock.python}, {len(lock.packages.splitlines())} packages", *wanted.notes, *lock.notes)
    return Row(name, outcome, time.monotonic() - began, facts)


def rows(files: list[Path]) -> list[tuple[str, dict[str, Any]]]:
    documents = [(file, number, json.loads(line)) for file in files for number, line in enumerate(file.read_text().splitlines(), 1) if line]
    return [(str(row.get("name") or f"{file.parent.name}/{file.stem}:{number}"), row) for file, number, row in documents]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--only", default="", help="rows whose name holds this text")
    arguments = parser.parse_args()
    shared = HERE.parent.parent / "shared/data/environments.jsonl"
    files = arguments.files or [HERE / "environments.jsonl", *([shared] if shared.exists() else [])]
    chosen = [(name, row) for name, row in rows(files) if arguments.only in name]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        builder = VenvBuilder(root, detect(root, "auto"))
        with ThreadPoolExecutor(2) as pool:
            done = list(pool.map(lambda item: resolved(builder, *item), chosen))
    for outcome in OUTCOMES:
        for row in done:
            if row.outcome == outcome:
                print(f"{outcome:<9} {row.seconds:5.1f} s  {row.name}", *row.lines, sep="\n    ")
    counts = Counter(row.outcome for row in done)
    print("\n" + ", ".join(f"{counts[outcome]} {outcome}" for outcome in reversed(OUTCOMES)) + f", of {len(done)}")
    return 0 if counts["refused"] == sum(bool(row.get("refused")) for _, row in chosen) else 1


if __name__ == "__main__":
    sys.exit(main())

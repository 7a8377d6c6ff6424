"""Runs a script's `init()` and `run(mini_batch)` over files or rows in several processes: the driver of a parallel step.

`run` gets a list of paths, or a pandas DataFrame when the input is tabular, and returns a row for each item it managed; a `run` with a
second parameter gets the batch's `Context` too. `shutdown()`, where there is one, ends a process of the script. A batch that raises, dies
or takes too long is tried again in a fresh process; items without a row count as failed. Rows are written in the order of the batches,
whatever order they ended in. The contract is Azure's (`ParallelRunStep`).

python …/modelyard_runtime parallel --script FILE --input PATH [--size N|10kb] [--workers N] [--append-to FILE] … -- ARGUMENTS OF THE SCRIPT
"""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import itertools
import multiprocessing
import os
import re
import sys
import time
import traceback
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any

SHIMS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "shims")
"""Azure's packages for scripts that import them; those of the environment win."""
SHUTDOWN_S = 10.0
"""Seconds that a script's `shutdown()` may take."""
UNITS = {"b": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30}


@dataclass
class Batch:
    items: Any
    """A list of paths, or a DataFrame."""
    count: int
    keys: dict[str, Any] | None = None
    """The values of the partition keys, which all its items share."""


@dataclass(frozen=True)
class Context:
    """What `run(mini_batch, context)` is told of its batch, under Azure's names."""

    minibatch_index: int
    minibatch_size: int
    global_row_index_lower_bound: int
    """Items before the first of this batch, in all batches."""
    global_row_index_upper_bound: int
    """That of the last item."""
    partition_key_value: dict[str, Any] | None


def main(arguments: list[str]) -> int:
    own, theirs = (arguments[: arguments.index("--")], arguments[arguments.index("--") + 1 :]) if "--" in arguments else (arguments, [])
    parser = argparse.ArgumentParser(prog="parallel")
    parser.add_argument("--script", required=True)
    parser.add_argument("--input", required=True)
    parser.add_argument("--size", default="")
    parser.add_argument("--keys", default="")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--append-to", default="")
    parser.add_argument("--error-threshold", type=int, default=-1)
    parser.add_argument("--batch-error-threshold", type=int, default=-1)
    parser.add_argument("--retries", type=int, default=3)
    parser.add_argument("--timeout", type=float, default=60)
    parser.add_argument("--allow-empty", action="store_true")
    options = parser.parse_args(own)
    sys.argv = [options.script, *theirs]
    batches = make_batches(options.input, options.size, [key for key in options.keys.split(",") if key])
    workers = min(max(1, options.workers or os.cpu_count() or 1), max(1, len(batches)))
    say(f"{sum(batch.count for batch in batches)} items in {len(batches)} mini batches, {workers} processes")
    if not batches and not options.allow_empty:
        say(f"the input has no items: nothing was done. Steps that may have none say properties: {{allow_empty: true}} ({options.input})")
        return 1
    return Run(options, batches, workers).drive()


def say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, flush=True)


def make_batches(path: str, size: str, keys: list[str]) -> list[Batch]:
    if os.path.isfile(os.path.join(path, "MLTable")):
        frame = read_table(path)
        return path_batches(frame, size, keys) if names_files(path, frame) else table_batches(frame, size, keys)
    if os.path.isfile(path):
        files = [path]
    else:
        files = sorted(os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names)
    if keys:
        groups: dict[tuple[str, ...], list[str]] = {}
        for file in files:
            groups.setdefault(tuple(part_of(file, path, key) for key in keys), []).append(file)
        return [Batch(group, len(group), dict(zip(keys, values))) for values, group in sorted(groups.items())]
    return cut(files, size)


def cut(files: list[str], size: str) -> list[Batch]:
    amount, unit = read_size(size, "10")
    if unit:
        return by_bytes(files, amount * unit)
    return [of_files(files[start : start + amount]) for start in range(0, len(files), amount)]


def of_files(files: list[str]) -> Batch:
    return Batch(files, len(files))


def part_of(file: str, root: str, key: str) -> str:
    """`2` of …/month=2/x.csv for `month`. Exits where a path has no such part: its files would be mixed with others'."""
    match = re.search(r"(?:^|/)" + re.escape(key) + r"=([^/]*)/", os.path.relpath(file, root))
    if match is None:
        raise SystemExit(f"partition key {key}: {os.path.relpath(file, root)!r} lies in no folder {key}=VALUE")
    return match.group(1)


def by_bytes(files: list[str], most: int) -> list[Batch]:
    batches: list[Batch] = []
    batch: list[str] = []
    total = 0
    for file in files:
        size = os.path.getsize(file)
        if batch and total + size > most:
            batches.append(of_files(batch))
            batch, total = [], 0
        batch.append(file)
        total += size
    return batches + ([of_files(batch)] if batch else [])


def read_size(text: str, default: str) -> tuple[int, int]:
    """(number, bytes of its unit or 0 for plain items)"""
    match = re.match(r"^\s*(\d+)\s*([a-zA-Z]*)\s*$", text or default)
    if not match or (match.group(2) and match.group(2).lower() not in UNITS) or int(match.group(1)) < 1:
        raise SystemExit(f"mini_batch_size {text!r} is not a number of items, or of bytes such as 10kb or 1MB")
    return int(match.group(1)), UNITS.get(match.group(2).lower(), 0)


def read_table(folder: str) -> Any:
    """The DataFrame that an MLTable file stands for."""
    import mltable

    return mltable.load(folder).to_pandas_dataframe()


def names_files(folder: str, frame: Any) -> bool:
    """Whether a table reads nothing and lists files: they are the items then, by their paths."""
    import yaml

    with open(os.path.join(folder, "MLTable"), encoding="utf-8") as file:
        steps = yaml.safe_load(file).get("transformations") or []
    reads = any(str(next(iter(step)) if isinstance(step, dict) else step).startswith("read_") for step in steps)
    return not reads and list(frame.columns)[:1] == ["Path"]


def path_batches(frame: Any, size: str, keys: list[str]) -> list[Batch]:
    if keys:
        return [Batch(list(batch.items["Path"]), batch.count, batch.keys) for batch in table_batches(frame, size, keys)]
    return cut(list(frame["Path"]), size)


def table_batches(frame: Any, size: str, keys: list[str]) -> list[Batch]:
    """Rows of each value of the keys, or as many as have about `size` bytes as text; a plain number is one of bytes, as in Azure."""
    missing = [key for key in keys if key not in frame.columns]
    if missing:
        raise SystemExit(f"partition key {missing[0]}: the table has no such column; it has {', '.join(map(str, frame.columns))}")
    if keys:
        groups = frame.groupby(keys[0] if len(keys) == 1 else keys, sort=True, dropna=False)
        return [
            Batch(group.reset_index(drop=True), len(group), dict(zip(keys, map(plain, values if isinstance(values, tuple) else (values,)))))
            for values, group in groups
        ]
    amount, unit = read_size(size, "1mb")
    rows = max(1, int(amount * (unit or 1) / bytes_of_row(frame)))
    parts = (frame.iloc[start : start + rows].reset_index(drop=True) for start in range(0, len(frame), rows))
    return [Batch(part, len(part)) for part in parts]


def bytes_of_row(frame: Any) -> float:
    """About how many bytes a row has as text, by the first of them."""
    sample = frame.head(1000)
    return max(1.0, len(sample.to_csv(index=False, header=False).encode()) / max(1, len(sample)))


def plain(value: Any) -> Any:
    """A value of a table as Python's own type."""
    return value.item() if hasattr(value, "item") else value


def work(pipe: Any, script: str) -> None:
    """A worker process: load the script, then a batch after the other."""
    sys.path.insert(0, os.path.dirname(os.path.abspath(script)))
    sys.path.append(SHIMS)
    try:
        spec = importlib.util.spec_from_file_location("entry_script", script)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        if hasattr(module, "init"):
            module.init()
    except BaseException:
        pipe.send(("broken", traceback.format_exc()))
        return
    pipe.send(("ready", None))
    while (task := pipe.recv()) is not None:
        answer: tuple[str, Any]
        try:
            answer = ("done", rows_of(call(module.run, *task)))
        except BaseException:
            answer = ("failed", traceback.format_exc())
        pipe.send(answer)
    if hasattr(module, "shutdown"):
        try:
            module.shutdown()
        except BaseException:
            say(f"shutdown() failed, which changes nothing:\n{traceback.format_exc()}")


def call(run: Any, items: Any, context: Context) -> Any:
    """With the context as well when there is a parameter for it."""
    try:
        parameters = [parameter for parameter in inspect.signature(run).parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    except (TypeError, ValueError):
        return run(items)
    second = parameters[1] if len(parameters) > 1 else None
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters[:2]):
        return run(items, context)
    if second is None or (second.default is not second.empty and "context" not in second.name):
        return run(items)
    return run(items, **{second.name: context}) if second.kind is second.KEYWORD_ONLY else run(items, context)


def rows_of(result: Any) -> tuple[int, str]:
    """How many rows `run` returned, and their text as Azure appends it: items of a list a line each, a table with spaces between its columns."""
    if result is None:
        return 0, ""
    if hasattr(result, "to_csv"):
        frame = result.to_frame() if not hasattr(result, "columns") else result
        return len(frame), frame.to_csv(sep=" ", header=False, index=False)
    if isinstance(result, (str, bytes)) or not hasattr(result, "__iter__"):
        raise TypeError(f"run() returns a list, an array or a DataFrame with a row for each item, not {type(result).__name__}")
    lines = [f"{row}\n" for row in result]
    return len(lines), "".join(lines)


class Worker:
    def __init__(self, script: str) -> None:
        self.pipe, theirs = multiprocessing.Pipe()
        # Forked before the driver has threads or the script's modules; the script is loaded in the child.
        self.process = multiprocessing.get_context("fork").Process(target=work, args=(theirs, script), daemon=True)
        self.process.start()
        theirs.close()
        self.ready = False
        self.batch: int | None = None
        self.deadline: float | None = None

    def give(self, batch: Batch, context: Context, timeout: float) -> None:
        self.batch, self.deadline = context.minibatch_index, time.monotonic() + timeout
        self.pipe.send((batch.items, context))

    def dismiss(self, deadline: float) -> None:
        """Let an idle process shut its script down."""
        try:
            self.pipe.send(None)
        except OSError:
            return
        self.process.join(max(0.0, deadline - time.monotonic()))

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


class Run:
    def __init__(self, options: argparse.Namespace, batches: list[Batch], count: int) -> None:
        self.options, self.batches, self.count = options, batches, count
        self.first = [0, *itertools.accumulate(batch.count for batch in batches)]
        self.waiting = list(range(len(batches)))
        self.tries = dict.fromkeys(self.waiting, 0)
        self.rows: dict[int, tuple[int, str]] = {}
        self.lost: set[int] = set()
        self.failed_items = 0
        self.broken = ""

    def drive(self) -> int:
        workers = [Worker(self.options.script) for _ in range(self.count)] if self.batches else []
        try:
            while len(self.rows) + len(self.lost) < len(self.batches):
                self.turn(workers)
                problem = self.broken or self.too_much()
                if problem:
                    say(problem)
                    return 1
            deadline = time.monotonic() + SHUTDOWN_S
            for worker in workers:
                if worker.ready:
                    worker.dismiss(deadline)
        finally:
            for worker in workers:
                worker.end()
        done = sum(count for count, _ in self.rows.values())
        say(f"done: {done} rows, {self.failed_items} items failed, {len(self.lost)} mini batches lost")
        if self.failed_items and self.failed_items == self.first[-1] and not self.options.allow_empty:
            say("no item succeeded")
            return 1
        self.write()
        return 0

    def context(self, index: int) -> Context:
        batch, first = self.batches[index], self.first[index]
        return Context(index, batch.count, first, first + batch.count - 1, batch.keys)

    def turn(self, workers: list[Worker]) -> None:
        for worker in workers:
            if worker.ready and worker.batch is None and self.waiting:
                index = self.waiting.pop(0)
                self.tries[index] += 1
                try:
                    worker.give(self.batches[index], self.context(index), self.options.timeout)
                except OSError:
                    pass
        soonest = min((worker.deadline for worker in workers if worker.deadline), default=time.monotonic() + 1)
        readable = connection.wait([worker.pipe for worker in workers], max(0.0, min(1.0, soonest - time.monotonic())))
        for number, worker in enumerate(workers):
            if worker.pipe in readable:
                self.hear(workers, number)
            elif worker.deadline and time.monotonic() > worker.deadline:
                self.lose(workers, number, f"took more than {self.options.timeout:g} s")

    def hear(self, workers: list[Worker], number: int) -> None:
        worker = workers[number]
        try:
            kind, value = worker.pipe.recv()
        except (EOFError, OSError):
            if worker.batch is None:
                self.broken = "the script's process ended while it was loaded"
            else:
                self.lose(workers, number, "its process died")
            return
        if kind == "broken":
            self.broken = f"the script could not be loaded:\n{value}"
        elif kind == "ready":
            worker.ready = True
        elif worker.batch is None:
            self.broken = "the script's process answered what it was not asked"
        elif kind == "failed":
            index, worker.batch, worker.deadline = worker.batch, None, None
            self.again(index, value)
        else:
            index, worker.batch, worker.deadline = worker.batch, None, None
            self.rows[index] = value
            missing = max(0, self.batches[index].count - value[0])
            self.failed_items += missing
            self.progress(index, f"{value[0]} rows" + (f", {missing} items failed" if missing else ""))

    def lose(self, workers: list[Worker], number: int, why: str) -> None:
        index = workers[number].batch
        assert index is not None
        workers[number].end()
        workers[number] = Worker(self.options.script)
        self.again(index, why)

    def again(self, index: int, why: str) -> None:
        last = why.strip().splitlines()[-1]
        if self.tries[index] <= self.options.retries:
            say(f"mini batch {index}: {last}; it is tried again")
            self.waiting.append(index)
            return
        say(f"mini batch {index}: {why.strip()}")
        self.lost.add(index)
        self.failed_items += self.batches[index].count
        self.progress(index, f"lost after {self.tries[index]} tries: {last}")

    def progress(self, index: int, text: str) -> None:
        say(f"[{len(self.rows) + len(self.lost)}/{len(self.batches)}] mini batch {index}: {text}")

    def too_much(self) -> str:
        limit = self.options.error_threshold
        if limit >= 0 and self.failed_items > limit:
            return f"{self.failed_items} items failed, more than the error_threshold of {limit}"
        limit = self.options.batch_error_threshold
        if limit >= 0 and len(self.lost) > limit:
            return f"{len(self.lost)} mini batches failed, more than the mini_batch_error_threshold of {limit}"
        if self.batches and len(self.lost) == len(self.batches):
            return "every mini batch failed"
        return ""

    def write(self) -> None:
        target = self.options.append_to
        if not target:
            return
        if os.path.isdir(target):
            target = os.path.join(target, "parallel_run_step.txt")
        with open(target, "w", encoding="utf-8") as file:
            for index in sorted(self.rows):
                file.write(self.rows[index][1])

"""Storing what an ended attempt left: collected from the executor, copied to the folders of this machine that outputs name, with its logs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from modelyard_runtime.protocol import ExitRecord

from ...assets.files import service as files
from ...core import trees
from ...core.errors import NO_ROOM, YardError, disk_full
from ...engine.yard import Yard
from ...ports.executor import Collected
from ...ports.objects import File
from ...spec.inputs import Output
from ...spec.states import JobState
from ...storage.unit import Unit
from .kinds import Execution
from .logs import YardLog
from .model import JobRecord, output_port, output_uri
from .outcome import AttemptResults, Failure, outcome

MOST_NAMED = 10
"""Names in one message."""
TAIL_LINES = 20
TAIL_BYTES = 16_384


async def keep(yard: Yard, record: JobRecord, execution: Execution, exit: ExitRecord, log: YardLog) -> AttemptResults:
    """Store everything the command left; what cannot be stored makes the job fail, with what was stored before. Can be
    repeated, and is when the disk was full."""
    executor, id = yard.executor, record.attempt_id
    targets = await yard.db.lookup(lambda unit: _local_targets(unit, record, execution.outputs), workspace=record.workspace)
    collected = await executor.collect(id, {port: output_port(port, output) for port, output in execution.outputs.items()})
    results = AttemptResults(
        outputs=collected.outputs, unchanged=collected.unchanged, artifacts=[*collected.artifacts, *collected.logs],
        installed=collected.installed,
    )  # fmt: skip
    await asyncio.to_thread(_take_over, yard, execution.outputs, targets, exit, collected, results, log)
    results.samples = (await executor.samples(id, 0))[0]
    results.tail = await _tail(yard, record.name, sum(file.size for file in collected.logs))
    return results


def _take_over(
    yard: Yard,
    outputs: Mapping[str, Output],
    targets: Mapping[str, Path],
    exit: ExitRecord,
    collected: Collected,
    results: AttemptResults,
    log: YardLog,
) -> None:
    try:
        results.problem = _problem(collected, log)
        _store_here(yard, outputs, targets, outcome(outputs, exit, False, results)[0] is JobState.COMPLETED, results, log)
        log.say(f"ended: {exit.message}")
        results.artifacts += log.store(yard.objects)
    except YardError as problem:
        if problem.transient:
            raise
        results.problem = _failure(problem)
    except OSError as problem:
        if problem.errno in NO_ROOM:
            raise disk_full("the outputs are kept as soon as there is room") from problem
        results.problem = {"code": "outputs_not_kept", "message": f"keeping the outputs failed: {problem}"}


def _local_targets(unit: Unit, record: JobRecord, outputs: Mapping[str, Output]) -> dict[str, Path]:
    """port → folder or file of this machine, for outputs that go to a local datastore."""
    targets = {port: files.local_folder(unit, output_uri(record.name, port, output)) for port, output in outputs.items()}
    return {port: target for port, target in targets.items() if target is not None}


def _problem(collected: Collected, log: YardLog) -> Failure | None:
    if collected.left_out:
        log.say(f"not kept: {first_of(collected.left_out)}")
    if collected.stopped is not None:
        return _failure(collected.stopped)
    if not collected.refused:
        return None
    refused = first_of(collected.refused)
    log.say(f"not kept, for which the job fails: {refused}")
    hint = "Write copies instead of links, and plain files; everything else was kept."
    return {"code": "output_not_kept", "message": f"not everything that the job wrote could be kept: {refused}", "hint": hint}


def _failure(error: YardError) -> Failure:
    return {"code": error.code, "message": f"keeping the outputs failed: {error.message}"}


def _store_here(
    yard: Yard, outputs: Mapping[str, Output], targets: Mapping[str, Path], completed: bool, results: AttemptResults, log: YardLog
) -> None:
    """Copy outputs to folders of this machine, name by name. Those of a job that did not complete write nothing over that lies there."""
    for port, target in targets.items():
        _copy_out(yard, results.written(port), target, outputs[port].type == "uri_file", completed)
        if completed and outputs[port].name:
            results.seen[port] = _seen_at(port, target, log)


def _copy_out(yard: Yard, stored: list[File], target: Path, single: bool, completed: bool) -> None:
    for file in stored:
        path = target if single else target / file.path
        if completed or not trees.has(path):
            with trees.Folder(path.parent, make=0o755) as folder:
                folder.replace(path.name, yard.objects.open(file.digest), 0o644)


def _seen_at(port: str, target: Path, log: YardLog) -> str | None:
    """A fingerprint that tells the present files of an output, which becomes an asset, from later ones."""
    try:
        return trees.fingerprint(target)
    except OSError as problem:
        log.say(f"output {port}: a later change at {target} will not be noticed: {problem.strerror}")
        return None


async def _tail(yard: Yard, job: str, size: int) -> list[str]:
    """The last lines of a log of `size` bytes."""
    try:
        data = await yard.executor.read_log(job, max(0, size - TAIL_BYTES), TAIL_BYTES)
    except YardError:
        return []
    return [line[:500] for line in data.decode("utf-8", "replace").splitlines()[-TAIL_LINES:]]


def first_of(lines: list[str]) -> str:
    """The first few of many lines, joined into one."""
    remainder = f" (and {len(lines) - MOST_NAMED} more)" if len(lines) > MOST_NAMED else ""
    return "; ".join(lines[:MOST_NAMED]) + remainder

"""Takes queued jobs when there is room, and drives each from its state to its end.

Every step can be done again: after a crash the next server looks at the state, the attempt's folder and the runner's
record, and goes on from there. Results are applied guarded by the attempt, so that a stale one changes nothing.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from pathlib import Path
from typing import Any

from ...assets.environments import service as environments
from ...assets.files import service as files
from ...assets.files.fetch import fetch
from ...assets.files.model import File, Tree, artifact_place
from ...core.errors import PASSING, Conflict, Invalid, NotFound, YardError
from ...engine.yard import Yard
from ...ports.builder import Built
from ...ports.processes import JobExit, JobRun
from ...spec.inputs import Output
from ...spec.job import CommandJob
from ...spec.references import DatastorePath, JobOutput, WebAddress, parse_reference
from ...storage.unit import Unit
from ...tenancy.access import service as access
from ..compute.model import Share, hardware, machine
from ..tracking import service as tracking
from . import service, store
from .folder import JobFolder
from .model import (
    CANCELED,
    COMPLETED,
    FAILED,
    PREPARING,
    RUNNING,
    JobRecord,
    distributed,
    literal_text,
    output_uri,
    resolve_command,
)

log = logging.getLogger(__name__)
PROGRAM, PROGRAMS = "modelyard.program", ("parallel", "distributed")
"""The property by which a job asks for one of the runtime's programs, and those there are."""
TOKEN_HOURS = 24 * 30


class JobsLoop:
    name = "jobs"
    topics = ("job.submitted", "job.ended", "job.cancel_requested")
    every = 2.0
    exclusive = False

    def __init__(self, yard: Yard) -> None:
        self.yard = yard
        self.machine = machine(yard.settings.cpu_slots)
        self._driving: dict[str, asyncio.Task[None]] = {}

    async def turn(self) -> None:
        active, heads = await self.yard.db.read(self._load)
        for record in active:
            if record.name not in self._driving:
                self._drive(record)
            elif record.cancel_requested and record.state == RUNNING:
                await self.yard.executor.cancel(_attempt_id(record))
        for record in self._choose(active, heads):
            claimed = await self._claim(record, self._free_gpus(active, record.gpus))
            if claimed is not None:
                active.append(claimed)
                self._drive(claimed)

    async def _claim(self, record: JobRecord, gpu_ids: str) -> JobRecord | None:
        """Take the job for this node; None when another server or a cancel was first."""
        claim = functools.partial(_claim, record=record, node=self.yard.node, gpu_ids=gpu_ids)
        try:
            return await self.yard.db.write(claim, workspace=record.workspace)
        except Conflict:
            return None

    def _load(self, unit: Unit) -> tuple[list[JobRecord], dict[str, list[JobRecord]]]:
        return store.active_on(unit, self.yard.node), store.queued_heads(unit, 2 * self.machine.cpus)

    def _choose(self, active: list[JobRecord], heads: dict[str, list[JobRecord]]) -> list[JobRecord]:
        """Fill the free share, always from the workspace that has the least running."""
        free = self.machine
        running: dict[str, int] = {}
        on_compute: dict[tuple[str, str], int] = {}
        for record in active:
            free = free.minus(Share(record.cpus, record.memory, record.gpus))
            running[record.workspace] = running.get(record.workspace, 0) + 1
            place = (record.workspace, record.compute)
            on_compute[place] = on_compute.get(place, 0) + 1
        chosen: list[JobRecord] = []
        waiting = {workspace: list(queue) for workspace, queue in heads.items()}
        while waiting:
            workspace = min(waiting, key=lambda name: running.get(name, 0))
            queue = waiting[workspace]
            if not queue:
                del waiting[workspace]
                continue
            record = queue.pop(0)
            share = Share(record.cpus, record.memory, record.gpus)
            place = (workspace, record.compute)
            if record.max_instances is not None and on_compute.get(place, 0) >= record.max_instances:
                continue
            if not share.fits(free):
                # Nothing smaller overtakes within the workspace: a large job is not starved by small ones.
                del waiting[workspace]
                continue
            free = free.minus(share)
            running[workspace] = running.get(workspace, 0) + 1
            on_compute[place] = on_compute.get(place, 0) + 1
            chosen.append(record)
        return chosen

    def _free_gpus(self, active: list[JobRecord], wanted: int) -> str:
        used = {id for record in active for id in record.gpu_ids.split(",") if id}
        return ",".join([str(id) for id in range(self.machine.gpus) if str(id) not in used][:wanted])

    def _drive(self, record: JobRecord) -> None:
        task = asyncio.create_task(Attempt(self.yard, record, self.machine).drive(), name=f"job:{record.name}")
        self._driving[record.name] = task

        def ended(task: asyncio.Task[None]) -> None:
            self._driving.pop(record.name, None)
            if not task.cancelled() and task.exception() is not None:
                log.error("job %s: the drive failed and is taken up again", record.name, exc_info=task.exception())

        task.add_done_callback(ended)


def _attempt_id(record: JobRecord) -> str:
    return f"job/{record.name}/{record.attempt}"


class Attempt:
    """One attempt of one job, from the state it is found in to its end."""

    def __init__(self, yard: Yard, record: JobRecord, machine: Share) -> None:
        self.yard = yard
        self.record = record
        self.machine = machine
        self.spec = CommandJob.model_validate(record.spec)
        self.folder = JobFolder(yard, record, record.attempt)
        self._local_targets: dict[str, Path] = {}

    async def drive(self) -> None:
        try:
            if self.record.state == PREPARING:
                await self._prepare()
            if self.record.state in (PREPARING, RUNNING):
                exit = await self._wait()
            else:
                exit = await self.yard.executor.wait(_attempt_id(self.record), self.folder.attempt)
            await self._finalize(exit)
        except YardError as error:
            if error.code == "stale_attempt":
                return
            if error.code in PASSING:
                raise  # the next turn of the loop takes the job up where it is
            self.folder.say(f"failed: {error}")
            await self._end(FAILED, {"code": error.code, "message": error.message, **({"hint": error.hint} if error.hint else {})})
        except OSError as error:
            await self._end(FAILED, {"code": "preparation_failed", "message": f"the job could not be prepared: {error}"})
        except Exception:
            log.exception("job %s failed inside the yard", self.record.name)
            await self._end(FAILED, {"code": "internal", "message": "the yard failed at this job; its server log says more"})

    async def _apply(self, fn: Any, *args: Any, **values: Any) -> Any:
        return await self.yard.db.write(lambda unit: fn(unit, *args, **values), workspace=self.record.workspace)

    async def _current(self) -> JobRecord:
        record = await self.yard.db.read(lambda unit: store.get_anywhere(unit, self.record.name))
        if record is None or record.attempt != self.record.attempt:
            raise Conflict("the job has moved on", code="stale_attempt")
        return record

    async def _end(self, state: str, error: dict[str, Any] | None, ended_ms: int | None = None) -> None:
        try:
            await self._apply(service.end, self.record.name, self.record.attempt, state, error, ended_ms)
        except Conflict:
            return
        await asyncio.to_thread(self.folder.clean)

    # Preparing

    async def _prepare(self) -> None:
        if (self.folder.attempt / "running.json").exists():
            return  # the runner was started before a crash: preparing again would pull the ground from under it
        if (await self._current()).cancel_requested:
            await self._end(CANCELED, None)
            raise Conflict("canceled", code="stale_attempt")
        await asyncio.to_thread(self.folder.prepare)
        built = await self._environment()
        places = await self.yard.db.read(lambda unit: service.inputs_of(unit, self.spec), workspace=self.record.workspace)
        inputs = {port: await self._input(port, places) for port in self.spec.inputs}
        outputs = {port: str(await asyncio.to_thread(self.folder.output_path, port, output)) for port, output in self.spec.outputs.items()}
        if self.spec.code is not None:
            place = parse_reference(self.spec.code)
            assert isinstance(place, DatastorePath)
            tree = await self.yard.db.read(lambda unit: files.files_at(unit, place), workspace=self.record.workspace)
            await asyncio.to_thread(self.folder.put_code, tree)
        await asyncio.to_thread(self.folder.make_artifact_folders)
        command = distributed(self.spec, resolve_command(self.spec, inputs, outputs))
        if (await self._current()).cancel_requested:
            await self._end(CANCELED, None)
            raise Conflict("canceled", code="stale_attempt")
        token = await self._apply(access.create_job_token, self.yard.vault, self.record.name, self.record.attempt, TOKEN_HOURS)
        run = JobRun(
            id=_attempt_id(self.record),
            command=command,
            cwd=self.folder.code,
            folder=self.folder.attempt,
            log=self.folder.log,
            environment=await self._variables(built, inputs, outputs),
            secrets={"MLFLOW_TRACKING_TOKEN": token, "YARD_TOKEN": token},
            sandbox=self.folder.sandbox(built.readable, []),
            timeout_s=self.spec.limits.timeout if self.spec.limits else None,
            log_limit=self.yard.settings.job_log_bytes,
            cpus=self.record.cpus,
            sample_s=self.yard.settings.system_metrics_s,
        )
        self.folder.say(f"starting: {command}")
        await self.yard.executor.start(run)

    async def _environment(self) -> Built:
        resolved = await self.yard.db.write(lambda unit: environments.resolve(unit, self.spec.environment), workspace=self.record.workspace)
        built = await environments.prepare(self.yard, self.record.workspace, resolved, self.folder.say)
        await self._apply(service.keep_resolved, self.record.name, environment_key=built.key, machine=hardware())
        return built

    async def _input(self, port: str, places: dict[str, DatastorePath | WebAddress]) -> str | None:
        """What `${{inputs.port}}` becomes: a literal's text, a path, the address itself for `direct`; None when absent."""
        value = self.spec.inputs[port]
        if value.is_literal:
            literal = value.value if value.value is not None else value.default
            return None if literal is None else literal_text(literal)
        place = places.get(port)
        if place is None:
            return None
        if value.mode == "direct":
            return str(place) if isinstance(place, DatastorePath) else place.url
        if isinstance(place, WebAddress):
            self.folder.say(f"downloading {place.url}")
            file = await fetch(self.yard, place.url)
            return str(await asyncio.to_thread(self.folder.put_input, port, Tree((file,)), value.mode, value.type == "uri_file"))
        local = await self.yard.db.read(lambda unit: _local_folder(unit, place), workspace=self.record.workspace)
        if local is not None:
            self.folder.readable.append(local)
            return str(local)
        tree = await self.yard.db.read(lambda unit: files.files_at(unit, place), workspace=self.record.workspace)
        if not tree.files:
            if isinstance(parse_reference(str(value.path)), JobOutput):
                return str(self.folder.empty_input(port))
            raise NotFound(f"input {port}: there is nothing at {place} any more", code="path_not_found")
        names_a_file = len(tree.files) == 1 and place.path.rsplit("/", 1)[-1] == tree.files[0].path
        single = value.type == "uri_file" or (names_a_file and value.type in ("custom_model", "path"))
        if single and len(tree.files) != 1:
            raise Invalid(f"input {port} is a uri_file, but {place} is a folder of {len(tree.files)} files", code="wrong_type")
        return str(await asyncio.to_thread(self.folder.put_input, port, tree, value.mode, single))

    async def _variables(self, built: Built, inputs: dict[str, str | None], outputs: dict[str, str]) -> dict[str, str]:
        """The environment variables a script finds (reference `azure-runtime`)."""
        record, spec = self.record, self.spec
        experiment = await self.yard.db.read(lambda unit: _experiment_id(unit, record.experiment), workspace=record.workspace)
        threads = str(max(1, record.cpus))
        venv = built.python.parent
        program = "distributed" if spec.distribution else str(spec.properties.get(PROGRAM, ""))
        variables = {
            **({"YARD_PROGRAM": str(self.folder.put_program(program))} if program in PROGRAMS else {}),
            "PATH": f"{venv}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "VIRTUAL_ENV": str(venv.parent),
            "HOME": str(self.folder.home),
            "TMPDIR": str(self.folder.tmp),
            "USER": "job",
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": threads,
            "NUMEXPR_MAX_THREADS": threads,
            "CUDA_VISIBLE_DEVICES": record.gpu_ids,
            "MLFLOW_TRACKING_URI": self.yard.url,
            "MLFLOW_REGISTRY_URI": self.yard.url,
            "MLFLOW_EXPERIMENT_ID": experiment,
            "MLFLOW_EXPERIMENT_NAME": record.experiment,
            "MLFLOW_RUN_ID": record.name,
            "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
            "YARD_URL": self.yard.url,
            "YARD_WORKSPACE": record.workspace,
            "AZUREML_RUN_ID": record.name,
            "AZUREML_ROOT_RUN_ID": record.parent or spec.parent_job_name or record.name,
            "AZUREML_EXPERIMENT_NAME": record.experiment,
            "AZUREML_EXPERIMENT_ID": experiment,
            "AZUREML_ARM_SUBSCRIPTION": "00000000-0000-0000-0000-000000000000",
            "AZUREML_ARM_RESOURCEGROUP": "modelyard",
            "AZUREML_ARM_WORKSPACE_NAME": record.workspace,
            "AZUREML_SCRIPT_DIRECTORY_NAME": str(self.folder.code),
            "AZUREML_NODE_COUNT": "1",
        }
        for port, text in inputs.items():
            if text is not None:
                variables[f"AZURE_ML_INPUT_{port}"] = text
        for port, path in outputs.items():
            variables[f"AZURE_ML_OUTPUT_{port}"] = path
        return {**variables, **spec.environment_variables}

    # Running

    async def _wait(self) -> JobExit:
        if self.record.state == PREPARING:
            await self._apply(service.set_running, self.record.name, self.record.attempt)
        current = await self._current()
        if current.cancel_requested:
            await self.yard.executor.cancel(_attempt_id(self.record))
        measuring = asyncio.create_task(self._measure())
        try:
            exit = await self.yard.executor.wait(_attempt_id(self.record), self.folder.attempt)
        finally:
            measuring.cancel()
        await self._apply(service.set_finalizing, self.record.name, self.record.attempt)
        return exit

    async def _measure(self) -> None:
        """Take what the runner has measured into the run while the job goes on, so that its chart grows."""
        offset = 0
        while self.yard.settings.system_metrics_s > 0:
            await asyncio.sleep(self.yard.settings.system_metrics_s)
            samples, offset = await asyncio.to_thread(self.yard.executor.metrics, self.folder.attempt, offset)
            if samples:
                await self._apply(service.keep_system_metrics, self.record.name, samples)

    # Finalizing

    async def _finalize(self, exit: JobExit) -> None:
        current = await self._current()
        state, error = self._outcome(exit, current.cancel_requested)
        kept: dict[str, list[File]] = {}
        artifacts: list[File] = []
        try:
            self._local_targets = await self.yard.db.read(self._find_local_targets, workspace=self.record.workspace)
            for port, output in self.spec.outputs.items():
                kept[port] = await asyncio.to_thread(self._gather_output, port, output)
            for name in ("outputs", "logs"):
                found = await asyncio.to_thread(self.folder.gather, self.folder.code / name)
                artifacts += [File(f"{name}/{file.path}", file.digest, file.size) for file in found]
            self.folder.say(f"ended: {exit.message}")
            logs = await asyncio.to_thread(self.folder.gather, self.folder.root / "logs")
        except YardError as problem:
            state, error, logs = FAILED, {"code": problem.code, "message": f"keeping the outputs failed: {problem.message}"}, []
        missing = [port for port, found in kept.items() if not found and state == COMPLETED and self.spec.outputs[port].type == "uri_file"]
        if missing:
            state = FAILED
            error = {"code": "missing_output", "message": f"the command ended well but wrote no output {', '.join(missing)}"}

        samples, _ = await asyncio.to_thread(self.yard.executor.metrics, self.folder.attempt, 0)

        def apply(unit: Unit) -> None:
            service.keep_system_metrics(unit, self.record.name, samples)
            for port, found in kept.items():
                output = self.spec.outputs[port]
                promote = (output.name, output.version) if output.name and state == COMPLETED and found else None
                service.keep_output(unit, self.record.name, port, output.type, output_uri(self.record.name, port, output), found, promote)
            place = artifact_place(self.record.name)
            for file in (*artifacts, *logs):
                files.put_file(unit, place.datastore, place.path + file.path, file.digest, file.size)
            service.keep_resolved(unit, self.record.name, usage=dict(exit.usage))
            service.end(unit, self.record.name, self.record.attempt, state, error, exit.ended_ms)

        try:
            await self.yard.db.write(apply, workspace=self.record.workspace)
        except Conflict as conflict:
            if conflict.code == "stale_attempt":
                return
            raise
        await asyncio.to_thread(self.folder.clean)

    def _find_local_targets(self, unit: Unit) -> dict[str, Path]:
        """port → folder or file of this machine, for outputs that go to a local datastore."""
        found = {}
        for port, output in self.spec.outputs.items():
            target = _local_folder(unit, output_uri(self.record.name, port, output), must_exist=False)
            if target is not None:
                found[port] = target
        return found

    def _gather_output(self, port: str, output: Output) -> list[File]:
        path = self.folder.output_path(port, output)
        target = self._local_targets.get(port)
        if target is not None:
            self.folder.copy_to(path, target)
        if output.type != "uri_file":
            return self.folder.gather(path)
        file = self.folder.gather_file(path)
        return [file] if file else []

    def _outcome(self, exit: JobExit, cancel_requested: bool) -> tuple[str, dict[str, Any] | None]:
        if exit.reason == "exited" and exit.code == 0:
            return COMPLETED, None
        if exit.reason == "canceled" or (cancel_requested and exit.reason in ("signal", "exited")):
            return CANCELED, None
        error: dict[str, Any] = {"code": exit.reason, "message": exit.message}
        if exit.code is not None:
            error["exit_code"] = exit.code
        tail = self.folder.log_tail()
        if tail:
            error["log_tail"] = tail
        return FAILED, error


def _claim(unit: Unit, record: JobRecord, node: str, gpu_ids: str) -> JobRecord | None:
    service.claim(unit, record.name, record.attempt, node, gpu_ids)
    return store.get_anywhere(unit, record.name)


def _experiment_id(unit: Unit, name: str) -> str:
    return tracking.get_experiment_by_name(unit, name).id


def _local_folder(unit: Unit, place: DatastorePath, must_exist: bool = True) -> Path | None:
    path = files.local_folder(unit, place)
    if must_exist and path is not None and not path.exists():
        raise NotFound(f"there is nothing at {place}", code="path_not_found")
    return path

"""One attempt of one job, driven from the state it is found in to its end.

What the database knows is read in one unit and the files are laid out in one go; three units change the job: the one that took
it, one when it runs, one at its end. Each can be missing after a crash: the state, the attempt's folder and the runner's record
say where to go on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from modelyard_runtime.protocol import ExitRecord, Reason

from ...assets.environments import service as environments
from ...assets.files import service as files
from ...assets.files.fetch import changed, fetch
from ...assets.files.model import artifact_place
from ...core import trees
from ...core.errors import Conflict, Invalid, NotFound, Superseded, YardError
from ...core.names import as_one_word, one_word
from ...engine.yard import Yard
from ...ports.builder import Built
from ...ports.executor import Share
from ...ports.objects import File, Tree, tree_digest
from ...ports.processes import Interpreter, JobRun
from ...ports.vault import Vault
from ...spec import expressions
from ...spec.inputs import Input, Output
from ...spec.job import CommandJob
from ...spec.references import DatastorePath, JobOutput, WebAddress, parse_reference
from ...spec.states import JobState
from ...storage.unit import Unit
from ...tenancy.access import service as access
from ...tenancy.workspaces import service as workspaces
from ..compute.model import hardware
from ..tracking import service as tracking
from . import service, store
from .folder import JobFolder, first_of
from .model import JobRecord, Program, digest_in, distributed, literal_text, output_uri, resolve_command

log = logging.getLogger(__name__)
TOKEN_HOURS = 24 * 30
MOST_COPIED = 64 * 2**20
"""Bytes of inputs: a job with more reads them where they are shared, and starts a process of its own."""
SOON_S = 0.3
"""Outputs that are kept within this time need no state of their own."""


@dataclass(frozen=True)
class Ticket:
    """What an attempt starts with, settled in the unit that took the job."""

    environment: environments.Resolved
    token: str


@dataclass(frozen=True)
class Found:
    """Where an input's data is, and its files: a tree of blobs, or a path of this machine. `seen`: as in `InputSource`."""

    place: DatastorePath | WebAddress
    files: Tree | Path | None
    seen: str | None
    digest: str | None = None
    """Of the files when the job was submitted, as far as it is known."""


@dataclass(frozen=True)
class Material:
    """What a job reads and where it writes, as the database knows it."""

    experiment_id: str
    code: Tree | None
    inputs: Mapping[str, Found]
    only_workspace: bool


@dataclass
class Kept:
    """What an attempt left behind."""

    outputs: dict[str, list[File]] = field(default_factory=dict)
    seen: dict[str, str | None] = field(default_factory=dict)
    """port → what tells the files of a local datastore, as they are now, from later ones."""
    artifacts: list[File] = field(default_factory=list)
    logs: list[File] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    tail: list[str] = field(default_factory=list)
    problem: dict[str, Any] | None = None


def attempt_id(record: JobRecord) -> str:
    return f"job/{record.name}/{record.attempt}"


def command_of(record: JobRecord) -> CommandJob:
    """The spec of a job that runs a command. Raises Invalid when this version cannot read it."""
    assert isinstance(record.spec, CommandJob)
    return record.spec


def ticket_of(unit: Unit, record: JobRecord, vault: Vault) -> Ticket:
    resolved = environments.resolve(unit, command_of(record).environment)
    return Ticket(resolved, access.create_job_token(unit, vault, record.name, record.attempt, TOKEN_HOURS, record.created_by))


class Attempt:
    def __init__(self, yard: Yard, record: JobRecord, machine: Share, ticket: Ticket | None) -> None:
        self.yard = yard
        self.record = record
        self.machine = machine
        self.cancel_requested = record.cancel_requested
        """Set by the loop as soon as it sees the request."""
        self.task: asyncio.Task[None] | None = None
        """What drives it, held here: an event loop holds its tasks weakly."""
        self.folder = JobFolder(yard, record, record.attempt)
        self._ticket = ticket

    @property
    def spec(self) -> CommandJob:
        return command_of(self.record)

    async def drive(self) -> None:
        try:
            built = None
            if self.record.state is JobState.PREPARING:
                built = await self._prepare()
            if self.record.state in (JobState.PREPARING, JobState.RUNNING):
                exit = await self._wait(built)
            else:
                exit = await self.yard.executor.wait(attempt_id(self.record), self.folder.attempt)
            await self._finalize(exit)
        except Superseded:
            return
        except YardError as error:
            if error.transient:
                raise  # the next turn of the loop takes the job up where it is
            self.folder.say(f"failed: {error}")
            await self._end(JobState.FAILED, {"code": error.code, "message": error.message, **({"hint": error.hint} if error.hint else {})})
        except OSError as error:
            await self._end(JobState.FAILED, {"code": "preparation_failed", "message": f"the job could not be prepared: {error}"})
        except Exception:
            log.exception("job %s failed inside the yard", self.record.name)
            await self._end(JobState.FAILED, {"code": "internal", "message": "the yard failed at this job; its server log says more"})

    async def _apply(self, fn: Any, *args: Any, **values: Any) -> Any:
        return await self.yard.db.write(lambda unit: fn(unit, *args, **values), workspace=self.record.workspace)

    async def _end(self, state: JobState, error: dict[str, Any] | None) -> None:
        try:
            await self._apply(service.end, self.record.name, self.record.attempt, state, error)
        except Conflict:
            return
        await asyncio.to_thread(self.folder.clean)

    # Preparing

    async def _prepare(self) -> Built | None:
        """Lay everything out and start the command; None when the runner was started before a crash."""
        if trees.has(self.folder.attempt / "running.json"):
            return None  # preparing again would pull the ground from under it
        await self._check_canceled()
        ticket = self._ticket or await self._apply(ticket_of, self.record, self.yard.vault)
        await asyncio.to_thread(self.folder.prepare)
        built = await environments.prepare(self.yard, self.record.workspace, ticket.environment, self.folder.say)
        material = await self.yard.db.read(self._read, workspace=self.record.workspace)
        fetched = {
            port: await self._fetch(found)
            for port, found in material.inputs.items()
            if found.files is None and self.spec.inputs[port].mode != "direct"
        }
        interpreter = self._interpreter(built, material)
        warm = self.yard.executor.warm(interpreter, self.spec.command) if interpreter is not None else None
        self.folder.private = warm is not None
        inputs, outputs = await asyncio.to_thread(self._lay_out, material, fetched)
        command = distributed(self.spec, resolve_command(self.spec, inputs, outputs))
        await self._check_canceled()
        run = JobRun(
            id=attempt_id(self.record),
            command=command,
            cwd=self.folder.code,
            folder=self.folder.attempt,
            log=self.folder.log,
            environment=self._variables(built, material.experiment_id, inputs, outputs),
            secrets={"MLFLOW_TRACKING_TOKEN": ticket.token, "YARD_TOKEN": ticket.token},
            sandbox=self.folder.sandbox(built.readable, []),
            timeout_s=self.spec.limits.timeout if self.spec.limits else None,
            log_limit=self.yard.settings.job_log_bytes,
            cpus=self.record.cpus,
            sample_s=self.yard.settings.system_metrics_s,
            interpreter=interpreter,
            warm=warm,
        )
        self.folder.say(f"starting: {command}")
        await self.yard.executor.start(run)
        return built

    def _interpreter(self, built: Built, material: Material) -> Interpreter | None:
        """What a warm interpreter for this job would be: it sees nothing of the machine but the jobs' folders and the environment."""
        if self.spec.distribution is not None or self.record.gpu_ids or self.record.program is not None:
            return None
        if not (self.yard.isolation.startswith("user") or self.yard.isolation == "none" or material.only_workspace):
            return None  # without users of their own, what a package does when it is loaded could reach other workspaces' jobs
        size = 0
        for found in material.inputs.values():
            if isinstance(found.files, Path) or isinstance(found.place, WebAddress):
                return None
            size += found.files.size if found.files is not None else 0
        if size > MOST_COPIED:
            return None
        return Interpreter(
            self.record.workspace, built.python, built.readable, {**self._machine_variables(built), **self.spec.environment_variables}
        )

    async def _check_canceled(self) -> None:
        if self.cancel_requested:
            await self._end(JobState.CANCELED, None)
            raise Superseded("canceled", code="stale_attempt")

    def _read(self, unit: Unit) -> Material:
        inputs: dict[str, Found] = {}
        for port, source in service.inputs_of(unit, self.record, self.spec).items():
            found: Tree | Path | None = None
            place = source.place
            if isinstance(place, DatastorePath) and self.spec.inputs[port].mode != "direct":
                found = _local_folder(unit, place) or files.content_at(unit, place, source.digest)
            inputs[port] = Found(place, found, source.seen, source.digest)
        code = None
        if self.spec.code is not None:
            snapshot = parse_reference(self.spec.code)
            assert isinstance(snapshot, DatastorePath)
            code = files.content_at(unit, snapshot, digest_in(self.record.properties.code))
        experiment = tracking.get_experiment_by_name(unit, self.record.experiment)
        return Material(experiment.id, code, inputs, workspaces.is_only(unit))

    async def _fetch(self, found: Found) -> File | None:
        """What is on the web; None for data that is passed on as its address."""
        if isinstance(found.place, DatastorePath):
            return None
        self.folder.say(f"downloading {found.place.url}")
        return await fetch(self.yard, found.place.url, found.seen)

    def _lay_out(self, material: Material, fetched: Mapping[str, File | None]) -> tuple[dict[str, str | None], dict[str, str]]:
        """What `${{inputs.…}}` and `${{outputs.…}}` become: a literal's text, a path, the address itself for `direct`; None when absent."""
        inputs: dict[str, str | None] = {}
        for port, value in self.spec.inputs.items():
            if value.is_literal:
                literal = value.value if value.value is not None else value.default
                inputs[port] = None if literal is None else literal_text(literal)
            elif port not in material.inputs:
                inputs[port] = None
            else:
                inputs[port] = self._lay_out_input(port, value, material.inputs[port], fetched.get(port))
        outputs = {port: str(self.folder.make_output(port, output)) for port, output in self.spec.outputs.items()}
        if material.code is not None:
            self.folder.put_code(material.code)
        self.folder.make_artifact_folders()
        return inputs, outputs

    def _lay_out_input(self, port: str, value: Input, source: Found, fetched: File | None) -> str:
        place, found = source.place, source.files
        if isinstance(place, WebAddress):
            if value.mode == "direct" or fetched is None:
                return self._address(port, value, place, place.url)
            single = value.type == "uri_file"
            return str(self.folder.put_input(port, self._named_plainly(port, fetched) if single else Tree((fetched,)), value.mode, single))
        if found is None:
            return self._address(port, value, place, str(place))
        if isinstance(found, Path):
            if source.seen is not None and not _as_seen(found, source.seen):
                raise changed(place)
            self.folder.readable.append(found)
            return str(found if one_word(str(found)) else self.folder.put_link(port, found))
        if not found.files:
            wrote_nothing = source.digest in (None, tree_digest(()))
            if wrote_nothing and isinstance(parse_reference(str(value.path)), JobOutput):
                return str(self.folder.empty_input(port))
            raise NotFound(f"input {port}: there is nothing at {place} any more", code="path_not_found")
        names_a_file = len(found.files) == 1 and place.path.rsplit("/", 1)[-1] == found.files[0].path
        single = value.type == "uri_file" or (names_a_file and value.type in ("custom_model", "path"))
        if single and len(found.files) != 1:
            raise Invalid(f"input {port} is a uri_file, but {place} is a folder of {len(found.files)} files", code="wrong_type")
        return str(self.folder.put_input(port, self._named_plainly(port, found.files[0]) if single else found, value.mode, single))

    def _named_plainly(self, port: str, file: File) -> Tree:
        """The one file of an input, under a name that is one word wherever it stands in the command: others chose its name."""
        name = as_one_word(file.path)
        if name != file.path:
            self.folder.say(f"input {port}: the file {file.path!r} is {name} here, since a shell would act on its name")
        return Tree((replace(file, path=name),))

    def _address(self, port: str, value: Input, place: DatastorePath | WebAddress, text: str) -> str:
        """An address that is passed on as it is. What the submitter did not write must be one word where it stands in the command."""
        own = self.record.parent is None and parse_reference(str(value.path)) == place
        if not own and not one_word(text) and ("inputs", port) in expressions.paths_in(self.spec.command):
            raise Invalid(
                f"input {port}: a shell would act on the address {text!r}, which stands in the command",
                code="unsafe_address",
                hint=f'Write "$AZURE_ML_INPUT_{port}" in the command instead of ${{{{inputs.{port}}}}}.',
            )
        return text

    def _variables(self, built: Built, experiment: str, inputs: dict[str, str | None], outputs: dict[str, str]) -> dict[str, str]:
        """The environment variables a script finds (reference `azure-runtime`)."""
        record, spec = self.record, self.spec
        program = Program.DISTRIBUTED if spec.distribution else record.program
        variables = {
            **({"YARD_PROGRAM": str(self.folder.put_program(program))} if program is not None else {}),
            **({"RAY_SETTINGS": spec.distribution.model_dump_json()} if spec.distribution and spec.distribution.type == "ray" else {}),
            **self._machine_variables(built),
            "HOME": str(self.folder.home),
            "TMPDIR": str(self.folder.tmp),
            "USER": "job",
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

    def _machine_variables(self, built: Built) -> dict[str, str]:
        """Those that Python and its packages look at when they are loaded; alike for every job of the environment and size."""
        return {**built.variables(max(1, self.record.cpus)), "CUDA_VISIBLE_DEVICES": self.record.gpu_ids}

    # Running

    async def _wait(self, built: Built | None) -> ExitRecord:
        if self.record.state is JobState.PREPARING:
            resolved = {"environment_key": built.key, "machine": hardware()} if built is not None else {}
            current = await self._apply(service.set_running, self.record.name, self.record.attempt, **resolved)
            self.cancel_requested = self.cancel_requested or current.cancel_requested
        if self.cancel_requested:
            await self.yard.executor.cancel(attempt_id(self.record))
        measuring = asyncio.create_task(self._measure())
        try:
            return await self.yard.executor.wait(attempt_id(self.record), self.folder.attempt)
        finally:
            measuring.cancel()

    async def _measure(self) -> None:
        """Take what the runner has measured into the run while the job goes on, so that its chart grows."""
        offset = 0
        while self.yard.settings.system_metrics_s > 0:
            await asyncio.sleep(self.yard.settings.system_metrics_s)
            samples, offset = await asyncio.to_thread(self.yard.executor.metrics, self.folder.attempt, offset)
            if samples:
                await self._apply(service.keep_system_metrics, self.record.name, samples)

    # Finalizing

    async def _finalize(self, exit: ExitRecord) -> None:
        targets = await self._find_local_targets()
        keeping = asyncio.create_task(asyncio.to_thread(self._keep, exit, targets))
        await asyncio.wait([keeping], timeout=SOON_S)
        if not keeping.done() and self.record.state in (JobState.PREPARING, JobState.RUNNING):
            await self._apply(service.set_finalizing, self.record.name, self.record.attempt)
        kept = await keeping

        def apply(unit: Unit) -> None:
            current = store.get_anywhere(unit, self.record.name)
            if current is None or current.attempt != self.record.attempt:
                raise store.moved_on(self.record.name)
            state, error = self._outcome(exit, current.cancel_requested, kept)
            service.keep_system_metrics(unit, self.record.name, kept.samples)
            if state is JobState.COMPLETED:
                try:
                    service.check_outputs(unit, self.record, self.spec, kept.outputs)
                except Conflict as conflict:
                    state, error = JobState.FAILED, {"code": conflict.code, "message": f"keeping the outputs failed: {conflict.message}"}
            for port, found in kept.outputs.items():
                service.keep_output(
                    unit, self.record.name, port, self.spec.outputs[port], found, state is JobState.COMPLETED, kept.seen.get(port)
                )
            place = artifact_place(self.record.name)
            for file in (*kept.artifacts, *kept.logs):
                files.put_file(unit, place.datastore, place.path + file.path, file.digest, file.size)
            service.end(unit, self.record.name, self.record.attempt, state, error, exit.ended_ms, usage=dict(exit.usage), start=exit.start)

        await self.yard.db.write(apply, workspace=self.record.workspace)
        await asyncio.to_thread(self.folder.clean)

    def _keep(self, exit: ExitRecord, targets: Mapping[str, Path]) -> Kept:
        """Store everything the command left; what cannot be kept makes the job fail, with what it made before."""
        kept = Kept()
        try:
            for port, output in self.spec.outputs.items():
                kept.outputs[port] = self._keep_output(port, output)
            for name in ("outputs", "logs"):
                found = self.folder.keep(f"./{name}", self.folder.code / name, pipes=True)
                kept.artifacts += [File(f"{name}/{file.path}", file.digest, file.size) for file in found]
            if self.folder.notes:
                self.folder.say(f"not kept: {first_of(self.folder.notes)}")
            if self.folder.problems:
                self._refuse(kept, first_of(self.folder.problems))
            completed = self._outcome(exit, False, kept)[0] is JobState.COMPLETED
            for port, target in targets.items():
                self._copy_out(kept.outputs[port], target, self.spec.outputs[port].type == "uri_file", completed)
                if completed and self.spec.outputs[port].name:
                    kept.seen[port] = self._seen_at(port, target)
            self.folder.say(f"ended: {exit.message}")
            kept.logs = self.folder.keep("the logs", self.folder.log.parent.parent)
        except YardError as problem:
            kept.problem = {"code": problem.code, "message": f"keeping the outputs failed: {problem.message}"}
        except OSError as problem:
            kept.problem = {"code": "outputs_not_kept", "message": f"keeping the outputs failed: {problem}"}
        kept.samples = self.yard.executor.metrics(self.folder.attempt, 0)[0]
        kept.tail = self.folder.log_tail()
        return kept

    def _refuse(self, kept: Kept, what: str) -> None:
        self.folder.say(f"not kept, for which the job fails: {what}")
        hint = "Write copies instead of links, and plain files; everything else was kept."
        kept.problem = {"code": "output_not_kept", "message": f"not everything that the job wrote could be kept: {what}", "hint": hint}

    async def _find_local_targets(self) -> dict[str, Path]:
        """port → folder or file of this machine, for outputs that go to a local datastore."""
        if not self.spec.outputs:
            return {}

        def look(unit: Unit) -> dict[str, Path]:
            found = {
                port: _local_folder(unit, output_uri(self.record.name, port, o), must_exist=False) for port, o in self.spec.outputs.items()
            }
            return {port: target for port, target in found.items() if target is not None}

        return await self.yard.db.lookup(look, workspace=self.record.workspace)

    def _keep_output(self, port: str, output: Output) -> list[File]:
        path, single = self.folder.output_path(port, output), output.type == "uri_file"
        return self.folder.keep_file(f"output {port}", path) if single else self.folder.keep(f"output {port}", path)

    def _copy_out(self, kept: list[File], target: Path, single: bool, completed: bool) -> None:
        """Copy stored files to a place of this machine, name by name. Those of a job that did not complete write nothing over that lies there."""
        for file in kept:
            path = target if single else target / file.path
            if completed or not trees.has(path):
                self.folder.copy_to(file, path)

    def _seen_at(self, port: str, target: Path) -> str | None:
        """What tells the files of an output that becomes an asset from later ones."""
        try:
            return trees.fingerprint(target)
        except OSError as problem:
            self.folder.say(f"output {port}: a later change at {target} will not be noticed: {problem.strerror}")
            return None

    def _outcome(self, exit: ExitRecord, cancel_requested: bool, kept: Kept) -> tuple[JobState, dict[str, Any] | None]:
        if exit.reason is Reason.EXITED and exit.code == 0:
            if kept.problem is not None:
                return JobState.FAILED, kept.problem
            missing = [port for port, found in kept.outputs.items() if not found and self.spec.outputs[port].type == "uri_file"]
            if missing:
                return JobState.FAILED, {
                    "code": "missing_output",
                    "message": f"the command ended well but wrote no output {', '.join(missing)}",
                }
            return JobState.COMPLETED, None
        if exit.reason is Reason.CANCELED or (cancel_requested and exit.reason in (Reason.SIGNAL, Reason.EXITED)):
            return JobState.CANCELED, None
        error: dict[str, Any] = {"code": exit.reason.value, "message": exit.message}
        if exit.code is not None:
            error["exit_code"] = exit.code
        if kept.problem is not None:
            error["not_kept"] = kept.problem["message"]
        if kept.tail:
            error["log_tail"] = kept.tail
        return JobState.FAILED, error


def _as_seen(path: Path, seen: str) -> bool:
    try:
        return trees.fingerprint(path) == seen
    except (trees.NotPlain, trees.TooMany):  # it was plain, and not too many, when it was seen
        return False


def _local_folder(unit: Unit, place: DatastorePath, must_exist: bool = True) -> Path | None:
    path = files.local_folder(unit, place)
    if must_exist and path is not None and not trees.has(path):
        raise NotFound(f"there is nothing at {place}", code="path_not_found")
    return path

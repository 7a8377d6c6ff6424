"""The record of a job, its states, and what its command and environment variables become."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

from ...assets.files.model import check_no_root, output_folder
from ...core.clock import iso
from ...core.errors import Invalid
from ...core.names import as_one_word, safe_path
from ...ports.executor import LOG, AttemptId, OutputPort, Share
from ...spec import expressions
from ...spec.inputs import Output
from ...spec.job import Job
from ...spec.loading import stored_spec
from ...spec.properties import JobProperties
from ...spec.references import BLOBSTORE, DatastorePath, WebAddress, parse_reference
from ...spec.states import CANCEL_REQUESTED, JOB, JobState, RunState

ACTIVE = (JobState.PREPARING, JobState.RUNNING, JobState.FINALIZING)
MAX_OUTPUT_PATH = 1_000
"""Bytes of the path that an output is given; its files have their own below it."""
RUN_OF = {JobState.COMPLETED: RunState.FINISHED, JobState.FAILED: RunState.FAILED, JobState.CANCELED: RunState.KILLED}
"""State of a job that ended → that of its run."""
"""What MLflow calls the ends of a job."""


class Program(StrEnum):
    """Programs of the runtime that run a job's command in the job's own environment."""

    PARALLEL = "parallel"
    DISTRIBUTED = "distributed"


@dataclass(frozen=True)
class JobRecord:
    name: str
    workspace: str
    stored: dict[str, Any]
    """The spec as it was submitted: what documents and lists show."""
    state: JobState
    attempt: int
    node: str | None
    created_ms: int
    created_by: str
    started_ms: int | None
    ended_ms: int | None
    error: dict[str, Any] | None
    cancel_requested: bool
    archived: bool
    experiment: str
    compute: str
    max_instances: int | None
    cpus: int
    memory: int
    gpus: int
    gpu_ids: str
    warnings: list[str] = field(default_factory=list)
    resolved: dict[str, Any] = field(default_factory=dict)
    """What references stood for at submit: environment version, input assets and digests."""
    type: str = "command"
    parent: str | None = None
    """The pipeline or sweep it is part of."""
    due: bool = False
    """Of a pipeline or sweep: something happened that it has not looked at yet."""
    program: Program | None = None
    """Of the runtime: what runs the command, chosen by the kind of step that the job carries out; no spec can name one."""

    @property
    def share(self) -> Share:
        """What it takes of the machine while it runs."""
        return Share(self.cpus, self.memory, self.gpus)

    @cached_property
    def spec(self) -> Job:
        """Parsed when it is first asked for. Raises Invalid when this version cannot read it."""
        spec: Job = stored_spec("job", {"type": self.type, **self.stored}, name=self.name)
        return spec

    @cached_property
    def properties(self) -> JobProperties:
        return JobProperties.read(self.spec.properties, self.resolved)

    def with_spec_of(self, earlier: JobRecord) -> JobRecord:
        """This record with the spec that was parsed of an earlier one, when nothing of it has changed."""
        if "spec" in earlier.__dict__ and self.stored == earlier.stored:
            self.__dict__["spec"] = earlier.spec
        return self

    @property
    def runs_process(self) -> bool:
        """Whether an executor carries it out; a job that its children carry out has no share of a compute."""
        return self.compute != ""

    @property
    def attempt_id(self) -> AttemptId:
        return AttemptId(self.name, self.attempt)

    @property
    def attempt_to_end(self) -> AttemptId | None:
        """The attempt that an executor carries out now and whose end was asked for."""
        running = self.state is JobState.RUNNING and self.node is not None
        return self.attempt_id if running and self.cancel_requested else None

    @property
    def status(self) -> str:
        return CANCEL_REQUESTED if self.cancel_requested and self.state not in JOB.terminal else self.state

    def document(self, url: str = "") -> dict[str, Any]:
        answer = {
            **self.stored,
            "name": self.name,
            "status": self.status,
            "id": f"azureml:{self.name}",
            "parent_job_name": self.parent,
            "creation_context": {"created_at": iso(self.created_ms), "created_by": self.created_by},
            "start_time": iso(self.started_ms),
            "end_time": iso(self.ended_ms),
            "error": self.error,
            "warnings": self.warnings or None,
            "log_files": {LOG: f"{url}/api/v1/workspaces/{self.workspace}/jobs/{self.name}/logs"} if self.started_ms else None,
        }
        answer["properties"] = {**(self.stored.get("properties") or {}), **self.resolved, "attempt": self.attempt}
        if self.stored.get("outputs"):
            registered = JobProperties.read({}, self.resolved).registered or {}
            answer["outputs"] = {port: self._output(port, output, registered.get(port)) for port, output in self.stored["outputs"].items()}
        return {key: value for key, value in answer.items() if value is not None}

    def _output(self, port: str, output: dict[str, Any], asset: str | None) -> dict[str, Any]:
        """An output with its path, and with the name and version of the asset that it became."""
        registered = dict(zip(("name", "version"), asset.rsplit(":", 1), strict=True)) if asset else {}
        return {**(_with_path(self.name, port, output) if self.runs_process else output), **registered}


def _with_path(job: str, port: str, output: dict[str, Any]) -> dict[str, Any]:
    """An output with the path that it has, as Azure shows it; one that cannot be resolved stays as it was written."""
    try:
        return {**output, "path": _resolved(output["path"], job, port)} if "${{" in (output.get("path") or "") else output
    except Invalid:
        return output


SYSTEM_LOG = "system_logs/yard.log"


@dataclass(frozen=True)
class InputSource:
    """Where an input's data is; the digest it had at submit, and what an asset saw there when it was made, as far as they are known."""

    location: DatastorePath | WebAddress
    digest: str | None
    seen: str | None


def digest_in(line: object) -> str | None:
    """The digest in what a reference stood for, as it is kept in `resolved`: `name:version sha256:…`."""
    _, separator, digest = str(line or "").rpartition("sha256:")
    return digest if separator else None


def output_uri(job: str, name: str, output: Output) -> DatastorePath:
    """Where an output is kept: its own path, with `${{name}}` and relatives resolved, or Azure's default."""
    if output.path is None:
        return output_folder(job, name)
    location = parse_reference(_resolved(output.path, job, name))
    if not isinstance(location, DatastorePath):
        raise Invalid(
            f"output {name}: path {output.path!r} is not a place in a datastore",
            code="invalid_output",
            hint="Write azureml://datastores/NAME/paths/PATH, or leave the path out.",
        )
    check_no_root(location)
    if len(location.path.encode("utf-8", "surrogatepass")) > MAX_OUTPUT_PATH:
        raise Invalid(f"output {name}: its path has more than {MAX_OUTPUT_PATH:,} bytes", code="invalid_output")
    safe_path(location.path, f"output {name}: path")
    return location


def output_port(port: str, output: Output) -> OutputPort:
    """What the command writes: for a file, a name that is one word where it stands in the command; its path has the name as it is."""
    if output.type != "uri_file":
        return OutputPort()
    named = output.path is not None and output.path != "" and not output.path.endswith("/")
    return OutputPort(as_one_word(str(output.path).rsplit("/", 1)[-1] if named else port))


def _resolved(path: str, job: str, output: str) -> str:
    expressions.OUTPUT_PATH.check(path)
    values = {"name": job, "default_datastore": BLOBSTORE, "output_name": output}
    return expressions.resolve(path, lambda keys: values.get(".".join(keys)))


def literal_text(value: Any) -> str:
    """A literal as it stands in a command line: booleans as Azure writes them."""
    return str(value)

"""What carries jobs out: from a command, with its code, inputs and environment by digest, to its exit record and its outputs by port.

Nothing here is a path of the server's machine. A driver lays out what it is handed where its processes run, and puts the paths there into
the command in place of `${{inputs.PORT}}` and `${{outputs.PORT}}`. What it leaves comes back as blobs.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from modelyard_runtime.protocol import ExitRecord

from ..core.errors import YardError
from ..spec import expressions
from .objects import File, Tree

LOG = "user_logs/std_log.txt"
"""What the command wrote to its standard output and error, by the name that Azure gives it."""
Log = Callable[[str], None]
"""Takes a line for the job's system log: what was done for the job."""


@dataclass(frozen=True)
class Share:
    """CPUs, memory in bytes and GPUs: of all that jobs may use, or of one job."""

    cpus: int
    memory: int = 0
    gpus: int = 0

    def fits(self, free: Share) -> bool:
        return self.cpus <= free.cpus and self.memory <= free.memory and self.gpus <= free.gpus

    def minus(self, other: Share) -> Share:
        return Share(self.cpus - other.cpus, self.memory - other.memory, self.gpus - other.gpus)


@dataclass(frozen=True)
class AttemptId:
    """One attempt of one job. The number grows with each; no two run at a time."""

    job: str
    number: int

    def __str__(self) -> str:
        return f"job/{self.job}/{self.number}"


@dataclass(frozen=True)
class InputFiles:
    """Files of an input. `single`: it is the one file itself, whose name is one word of a shell; `copy`: the command may change them."""

    tree: Tree
    single: bool = False
    copy: bool = False


@dataclass(frozen=True)
class MachinePath:
    """A file or folder of the server's machine, which a local datastore names. Only an `ExecutorWithMachinePaths` is handed one."""

    path: str


RunInput = str | InputFiles | MachinePath
"""A text (a literal, or an address that is passed on) or data."""


@dataclass(frozen=True)
class OutputPort:
    file: str = ""
    """The name of the one file that the command writes, one word of a shell; empty for a folder."""
    present: Tree | MachinePath | None = None
    """What the command finds there, and may change: of a `file`, the one file of the tree, whatever its name."""


@dataclass(frozen=True)
class Command:
    text: str
    """For a shell, with `${{inputs.PORT}}` and `${{outputs.PORT}}` where a value or a path of the run belongs."""
    program: str = ""
    """A program of the runtime, which the command finds as `$YARD_PROGRAM`."""
    launcher: str = ""
    """Words of a shell that start the command, which follows them as one word: once for each process of a distributed job."""


@dataclass(frozen=True)
class JobRun:
    """One attempt of one job, in values."""

    id: AttemptId
    workspace: str
    command: Command
    environment: str
    """Key of a built environment (`Builder.find`)."""
    share: Share = Share(1)
    gpu_ids: str = ""
    """Those of the machine that are the job's, with commas between them."""
    code: Tree | None = None
    """Files of the working directory."""
    inputs: Mapping[str, RunInput] = field(default_factory=dict)
    """Those that have a value."""
    outputs: Mapping[str, OutputPort] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables by which scripts find their run and the yard."""
    declared_variables: Mapping[str, str] = field(default_factory=dict)
    """Those of the job's spec, with expressions as in the command. They win over all others but `secrets`; packages may look at them while
    they are loaded."""
    secrets: Mapping[str, str] = field(default_factory=dict)
    """Environment variables that are never written to disk."""
    constraints: tuple[str, ...] = ()
    """Versions of what the command installs, `name==version`: those that the job had which this one repeats."""
    timeout_s: int | None = None
    log_limit: int = 256 * 2**20
    """Bytes; what goes beyond is counted and dropped."""
    sample_s: int = 0
    """Seconds between samples of what the command uses of its machine; 0 for none."""
    only_workspace: bool = False
    """No job of another workspace can run here."""

    def bound(self, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        """The command line and the environment variables, once a driver knows the text or path of every port.

        Raises Invalid when the command needs an input that has no value.
        """
        ports = {"inputs": inputs, "outputs": outputs}

        def value(path: tuple[str, ...]) -> str | None:
            return ports[path[0]].get(path[1])

        text = expressions.resolve(self.command.text, value)
        line = f"{self.command.launcher} {shlex.quote(text)}" if self.command.launcher else text
        variables = {f"AZURE_ML_INPUT_{port}": value for port, value in inputs.items()}
        variables |= {f"AZURE_ML_OUTPUT_{port}": path for port, path in outputs.items()}
        declared = {name: expressions.resolve(text, value) for name, text in self.declared_variables.items()}
        return line, {**variables, **self.variables, **declared}


@dataclass
class Collected:
    """What a command left, stored as blobs. A path is relative to its port, or for artifacts to the working directory."""

    outputs: dict[str, list[File]] = field(default_factory=dict)
    """Of every port; empty when the command wrote nothing there."""
    unchanged: dict[str, set[str]] = field(default_factory=dict)
    """port → paths of those among `outputs` that are as the command found them."""
    artifacts: list[File] = field(default_factory=list)
    """What lies in `outputs/` and `logs/` of the working directory."""
    logs: list[File] = field(default_factory=list)
    installed: list[str] = field(default_factory=list)
    """What the command installed beside its environment, as `name==version`."""
    left_out: list[str] = field(default_factory=list)
    """What was not stored without harm, such as links to nothing."""
    refused: list[str] = field(default_factory=list)
    """What could not be stored; the job fails for it."""
    stopped: YardError | None = None
    """Where storing came to a stop; what is here was stored before."""


class Executor(Protocol):
    """Carries out attempts of jobs, across restarts of the server.

    Errors that say something about the job (an input that cannot be laid out) are raised as they are; one that passes is `transient`.
    """

    def capacity(self) -> Share:
        """All that jobs may use together."""
        ...

    async def started(self, id: AttemptId) -> bool:
        """Whether the command of an attempt was started, by this server or one before it; also once it has ended."""
        ...

    async def start(self, run: JobRun, log: Log) -> Mapping[str, str | int]:
        """Lay out what the run needs and start its command, once: an attempt that was started is never started again.

        What results may depend on: processor, GPUs, system of the machine it runs on; empty when that is not known.
        """
        ...

    async def wait(self, id: AttemptId) -> ExitRecord:
        """Wait for the attempt's end; `lost` when it vanished without a record, or never began."""
        ...

    async def cancel(self, id: AttemptId) -> None:
        """End the whole tree of the attempt: asked first, killed 10 s later. Nothing happens when it has ended."""
        ...

    async def samples(self, id: AttemptId, offset: int) -> tuple[list[dict[str, Any]], int]:
        """Samples `{time_ms, values: {name: number}}` since `offset` (0 at first), and the offset to go on from."""
        ...

    async def read_log(self, job: str, offset: int, limit: int) -> bytes:
        """At most `limit` bytes of `LOG` from `offset` on, over all attempts of a job; nothing where nothing is. Raises Unavailable."""
        ...

    async def collect(self, id: AttemptId, outputs: Mapping[str, OutputPort]) -> Collected:
        """Store what an ended attempt left. Can be repeated until the job is released."""
        ...

    async def release(self, job: str, *, logs: bool = False) -> None:
        """Drop what was laid out for a job and what it left, once that is stored; its `logs` too, when the job is deleted."""
        ...


@runtime_checkable
class ExecutorWithMachinePaths(Executor, Protocol):
    """Runs jobs where files of the server's machine can be read: those of local datastores."""

    def has(self, path: MachinePath) -> bool:
        """Whether there is a plain file or folder, reached through no link."""
        ...

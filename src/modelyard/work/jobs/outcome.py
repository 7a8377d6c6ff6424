"""How an attempt ended, from its exit record and what could be stored. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelyard_runtime.protocol import ExitRecord, Reason

from ...ports.objects import File
from ...spec.inputs import Output
from ...spec.states import JobState

Failure = dict[str, Any]
"""`JobFailure` of `spec.job`."""


@dataclass
class AttemptResults:
    """What an attempt left behind."""

    outputs: dict[str, list[File]] = field(default_factory=dict)
    unchanged: dict[str, set[str]] = field(default_factory=dict)
    """port → paths of files that were there before, and are not written again where others may have changed them meanwhile."""
    seen: dict[str, str | None] = field(default_factory=dict)
    """port → a fingerprint that tells the present files in a local datastore from later ones."""
    artifacts: list[File] = field(default_factory=list)
    """Logs included."""
    installed: list[str] = field(default_factory=list)
    """What the command installed beside its environment, as `name==version`."""
    samples: list[dict[str, Any]] = field(default_factory=list)
    tail: list[str] = field(default_factory=list)
    """The last lines of the log."""
    problem: Failure | None = None
    """Why not everything could be stored."""

    def written(self, port: str) -> list[File]:
        """The files of an output that the command wrote or changed."""
        return [file for file in self.outputs.get(port, ()) if file.path not in self.unchanged.get(port, ())]

    def files(self) -> list[File]:
        """Everything that it wrote."""
        return [*self.artifacts, *(file for files in self.outputs.values() for file in files)]


def outcome(
    outputs: Mapping[str, Output], exit: ExitRecord, cancel_requested: bool, results: AttemptResults
) -> tuple[JobState, Failure | None]:
    if exit.reason is Reason.EXITED and exit.code == 0:
        return _succeeded(outputs, results)
    if exit.reason is Reason.CANCELED or (cancel_requested and exit.reason in (Reason.SIGNAL, Reason.EXITED)):
        return JobState.CANCELED, None
    return JobState.FAILED, _failure(exit, results)


def _succeeded(outputs: Mapping[str, Output], results: AttemptResults) -> tuple[JobState, Failure | None]:
    """A command that ended well has completed its job only with what it was to write."""
    if results.problem is not None:
        return JobState.FAILED, results.problem
    missing = [port for port, files in results.outputs.items() if not files and outputs[port].type == "uri_file"]
    if missing:
        return JobState.FAILED, {
            "code": "missing_output",
            "message": f"the command ended well but wrote no output {', '.join(missing)}",
        }
    return JobState.COMPLETED, None


def _failure(exit: ExitRecord, results: AttemptResults) -> Failure:
    error: Failure = {"code": exit.reason.value, "message": exit.message}
    if exit.code is not None:
        error["exit_code"] = exit.code
    if results.problem is not None:
        error["not_kept"] = results.problem["message"]
    if results.tail:
        error["log_tail"] = results.tail
    return error

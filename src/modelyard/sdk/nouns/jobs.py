from __future__ import annotations

import codecs
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import Invalid, Unavailable
from ...core.terminal import LogText
from ...spec.nouns import NOUNS
from ...spec.states import JOB, JobState
from ..poller import Poller
from ..resources import NounOperations, archived, at_most

if TYPE_CHECKING:
    from ...spec.job import Job, JobMetrics, JobOutput, Verification


class JobOperations(NounOperations[Any]):
    noun = NOUNS["job"]

    def create_or_update(self, job: Job, *, experiment_name: str | None = None, compute: str | None = None, **kwargs: Any) -> Any:
        """Submit. Local code, inputs and environment files are uploaded first."""
        if experiment_name:
            job.experiment_name = experiment_name
        if compute:
            job.compute = compute
        return self._answered(self._sent("POST", "/jobs", job))

    def validate(self, job: Job) -> None:
        """Raises Invalid or NotFound for what can be seen without submitting."""
        type(job).model_validate(job.document())

    def get(self, name: str) -> Any:
        return self._answered(self._call("GET", f"/jobs/{name}"))

    def list(
        self, *, parent_job_name: str | None = None, list_view_type: str = "ACTIVE_ONLY", max_results: int | None = None, **filters: Any
    ) -> Iterator[Any]:
        params = {"archived": archived(list_view_type), "limit": min(max_results or 200, 200), "parent": parent_job_name, **filters}
        return map(self._answered, at_most(max_results, self._pages("/jobs", params)))

    def update(self, name: str, changes: dict[str, Any]) -> Any:
        return self._answered(self._call("PATCH", f"/jobs/{name}", body=changes))

    def begin_cancel(self, name: str) -> Poller[Any]:
        self._call("POST", f"/jobs/{name}/cancel")

        def look() -> tuple[str, Any]:
            job = self.get(name)
            return ("Succeeded" if job.status in JOB.terminal else "InProgress"), job

        return Poller(look)

    def archive(self, name: str) -> None:
        self._call("POST", f"/jobs/{name}/archive")

    def restore(self, name: str) -> None:
        self._call("POST", f"/jobs/{name}/restore")

    def stream(self, name: str, write: Callable[[str], Any] | None = None) -> Any:
        """Print the log as it grows, from its beginning, until the job has ended. The job as it ended then.

        Raises Invalid with the job's error when it failed, as `azure.ai.ml` raises there.
        """
        printer = _Stdout()
        job = self.follow(name, write or printer)
        printer.end()
        if job.status == JobState.FAILED:
            raise Invalid(describe_failure(job), code="job_failed")
        return job

    def follow(self, name: str, write: Callable[[str], Any], *, lost: Callable[[], Any] | None = None) -> Any:
        """`stream` without raising for a job that failed. `lost` is called now and then while the yard does not answer."""
        offset, decoder = 0, codecs.getincrementaldecoder("utf-8")("replace")  # a character may be cut in two
        while True:
            try:
                with self._transport.stream(self._path(f"/jobs/{name}/logs"), {"offset": str(offset), "follow": "true"}) as response:
                    for chunk in response.chunks():
                        offset += len(chunk)
                        write(decoder.decode(chunk))
                job = self.get(name)
            except Unavailable:
                if lost is not None:
                    lost()
                time.sleep(0.5)  # the server restarts; the log resumes at its last offset
                continue
            if job.status in JOB.terminal:
                return job

    def log(self, name: str, file: str = "user_logs/std_log.txt") -> str:
        """The whole of one of the job's logs as text."""
        with self._transport.stream(self._path(f"/jobs/{name}/logs"), {"file": file}) as response:
            return response.text

    def log_from(self, name: str, offset: int) -> bytes:
        """What was added to the log behind `offset` bytes."""
        with self._transport.stream(self._path(f"/jobs/{name}/logs"), {"offset": str(offset)}) as response:
            return response.read()

    def rerun(self, name: str, *, from_failed: bool = False) -> Any:
        """Submit it again with the code, environment and input versions it had; a pipeline also from where it failed."""
        return self._answered(self._call("POST", f"/jobs/{name}/rerun", params={"from_failed": str(from_failed).lower()}))

    def verify(self, name: str, against: str) -> Verification:
        """Whether both came to the same, bit by bit."""
        verified: Verification = self._call("GET", f"/jobs/{name}/verify", params={"against": against})
        return verified

    def delete(self, name: str) -> None:
        """For good, with its run, artifacts and outputs."""
        self._call("DELETE", f"/jobs/{name}")

    def metrics(self, name: str) -> JobMetrics:
        """The latest value of each metric, and the params."""
        metrics: JobMetrics = self._call("GET", f"/jobs/{name}/metrics")
        return metrics

    def outputs(self, name: str) -> dict[str, JobOutput]:
        """The outputs by name."""
        outputs: dict[str, JobOutput] = self._call("GET", f"/jobs/{name}/outputs")
        return outputs

    def download(self, name: str, *, download_path: str | Path = ".", output_name: str | None = None, all: bool = False) -> None:
        """The artifacts into `download_path/artifacts`, named outputs into `download_path/named-outputs/NAME`, as azure.ai.ml."""
        from ..upload import download

        outputs = self.outputs(name)
        if output_name is not None and output_name not in outputs:
            raise Invalid(f"job {name} has no output {output_name}; it has {', '.join(outputs)}")
        for key, output in outputs.items():
            is_default = output.get("default", False)
            if all or key == output_name or (output_name is None and is_default):
                folder = Path(download_path) / ("artifacts" if is_default else f"named-outputs/{key}")
                download(self._transport, output.get("content", output["uri"]), folder, self._progress)


class _Stdout:
    """Prints a log as it comes; on a terminal without what acts on it."""

    def __init__(self) -> None:
        self._log = LogText() if sys.stdout.isatty() else None

    def __call__(self, text: str) -> None:
        sys.stdout.write(text if self._log is None else self._log.add(text))
        sys.stdout.flush()

    def end(self) -> None:
        if self._log is not None:
            sys.stdout.write(self._log.end())


def describe_failure(job: Job) -> str:
    error = job.error or {}
    lines = [f"job {job.name} failed: {error.get('message', 'no reason is known')}"]
    if error.get("hint"):
        lines.append(str(error["hint"]))
    if getattr(job, "type", "") == "sweep":  # the log of its trial, which was not shown
        lines += [f"  {line}" for line in error.get("log_tail", ())]
    return "\n".join(lines)

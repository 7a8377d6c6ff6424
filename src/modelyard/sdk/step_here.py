"""`yard job run --step`: one step of a pipeline as a process of this terminal, in the step's environment, on real inputs.

The code runs in its own folder, so that breakpoints and editors find it. Outputs of other steps are taken from the newest run in
which these completed.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..core.errors import Invalid, NotFound
from ..core.home import Home
from ..core.names import as_one_word, nearest
from ..spec import expressions
from ..spec.component import CommandComponent
from ..spec.environment import Environment
from ..spec.inputs import Input
from ..spec.job import JobOutput
from ..spec.pipeline import PipelineJob
from ..spec.references import AssetRef, asset_ref, is_local, parse_reference
from ..spec.states import StepState
from ..spec.step import CommandNode
from .client import MLClient
from .connection import local_environments
from .upload import download

_BINDING = re.compile(r"^\s*\$\{\{\s*parent\.(?:inputs\.(?P<input>[\w-]+)|jobs\.(?P<step>[\w-]+)\.outputs\.(?P<output>[\w-]+))\s*\}\}\s*$")
ENVIRONMENT = "steps-run-here"
"""The name under which inline environments of such steps are registered."""


def run_step(client: MLClient, spec: PipelineJob, name: str, *, overrides: dict[str, str], debug: bool, say: Any = print) -> int:
    """The exit code of the step's command. `overrides` are inputs by path or value, instead of what the pipeline binds."""
    node = spec.jobs.get(name)
    if node is None:
        raise NotFound(f"the pipeline has no step {name!r}{nearest(name, spec.jobs)}", hint=f"It has {', '.join(spec.jobs)}.")
    step = _Step(client, spec, name, node, overrides, say)
    return step.run(debug)


class _Step:
    def __init__(self, client: MLClient, spec: PipelineJob, name: str, node: Any, overrides: dict[str, str], say: Any) -> None:
        if not isinstance(node, CommandNode):
            raise Invalid(f"step {name} is of type {getattr(node, 'type', '?')}; only commands are run here")
        component: Any = client.components.get(*_ref(node.component, "component")) if isinstance(node.component, str) else node.component
        if component is not None and not isinstance(component, CommandComponent):
            raise Invalid(f"step {name} is a component of type {component.type}; only commands are run here")
        self.client, self.spec, self.name, self.node, self.overrides, self.say = client, spec, name, node, overrides, say
        self.work: Any = component or node
        self.base: Path = getattr(component, "_base_path", None) or spec.base_path
        self.scratch = Path(tempfile.mkdtemp(prefix=f"yard-{name}-"))

    def run(self, debug: bool) -> int:
        inputs = {port: self._input(port) for port in {**getattr(self.work, "inputs", {}), **self.node.inputs, **self.overrides}}
        outputs = {port: self._output(port) for port in getattr(self.work, "outputs", {})}

        def lookup(path: tuple[str, ...]) -> str | None:
            return inputs.get(path[1]) if path[0] == "inputs" else outputs.get(path[1])

        command = expressions.resolve(str(self.work.command), lookup)
        if debug:
            command = with_debugger(command)
        python = self._python()
        self.say(f"step {self.name}: {command}")
        path = f"{python.parent}:{os.environ.get('PATH', '')}"
        with self._tracking() as tracking:
            environment = {**os.environ, **tracking, **self.work.environment_variables, "PATH": path}
            code = subprocess.call(command, shell=True, cwd=self._code(), env=environment)  # noqa: S602 (the user's own command)
        for port, path in outputs.items():
            self.say(f"output {port}: {path}")
        return code

    @contextmanager
    def _tracking(self) -> Iterator[dict[str, str]]:
        """The variables by which MLflow and the yard's clients find the yard, as in a job; their token ends with the step.

        What is logged makes a run of its own in the pipeline's experiment: there is no job that it could belong to.
        """
        connection, experiment = self.client.connection, self.spec.experiment_name or "Default"
        url = connection.url if connection.workspace == "default" else f"{connection.url}/ws/{connection.workspace}"
        made = self.client.tokens.create(workspace=connection.workspace, description=f"step {self.name}, run by `yard job run`")
        token = made["token"]
        try:
            yield {
                "MLFLOW_TRACKING_URI": url, "MLFLOW_REGISTRY_URI": url, "MLFLOW_TRACKING_TOKEN": token, "MLFLOW_EXPERIMENT_NAME": experiment,
                "YARD_URL": connection.url, "YARD_TOKEN": token, "YARD_WORKSPACE": connection.workspace,
            }  # fmt: skip
        finally:
            self.client.tokens.revoke(made["id"])

    def _code(self) -> Path:
        code: str | None = self.work.code
        if code is None:
            return self.scratch
        if is_local(code):
            return (self.base / code).resolve()
        download(self.client._transport, code, self.scratch / "code")
        return self.scratch / "code"

    def _python(self) -> Path:
        """The interpreter of the step's environment, built by the yard of this machine."""
        environment = self.work.environment
        if isinstance(environment, str):
            name, version = _ref(environment, "environment")
        else:
            definition = Environment.model_validate({**environment.document(), "name": ENVIRONMENT, "version": None}).settled(self.base)
            registered = self.client.environments.create_or_update(definition)
            name, version = ENVIRONMENT, registered.version
        key = self.client.environments.build(name, version, self.say)
        python = local_environments(Home.default()) / key / "bin" / "python"
        if not python.exists():
            raise NotFound(f"environment {name} is not on this machine", hint="`yard job run` works with the yard of the same machine.")
        return python

    def _output(self, port: str) -> str:
        folder = self.scratch / "outputs"
        folder.mkdir(exist_ok=True)
        if self.work.outputs[port].travels_as == "uri_file":
            return str(folder / port)
        (folder / port).mkdir(exist_ok=True)
        return str(folder / port)

    def _input(self, port: str) -> str | None:
        if port in self.overrides:
            text = self.overrides[port]
            return str(Path(text).resolve()) if Path(text).exists() else text
        value = self.node.inputs.get(port)
        if value is None:
            default = getattr(self.work.inputs.get(port), "default", None)
            return None if default is None else str(default)
        bound_to = value.path if value.path is not None else value.value
        match = _BINDING.match(bound_to) if isinstance(bound_to, str) else None
        if match is None:
            return self._data(port, value)
        if match["input"]:
            bound = self.spec.inputs.get(match["input"])
            return self._data(port, bound) if bound is not None else None
        return self._output_of(port, match["step"], match["output"])

    def _data(self, port: str, value: Input) -> str | None:
        if value.is_literal:
            return None if value.value is None else str(value.value)
        if value.path is None:
            return None
        if is_local(value.path):
            return str((self.spec.base_path / value.path).resolve())
        path = value.path
        if isinstance(parse_reference(path), AssetRef):
            path = str(self.client.data.get(*_ref(path, "data asset")).path)
        return str(self._fetched(port, path))

    def _output_of(self, port: str, step: str, output: str) -> str:
        """The other step's output, as a local path, from the newest run of this pipeline in which the step completed. Raises NotFound."""
        filters = {"experiment": self.spec.experiment_name} if self.spec.experiment_name else {}
        for job in self.client.jobs.list(max_results=50, **filters):
            if job.type != "pipeline" or step not in job.jobs or self.name not in job.jobs:
                continue
            state = (self.client.jobs.get(str(job.name)).steps or {}).get(step, {})
            if state.get("status") == StepState.COMPLETED and state.get("job_name"):
                self.say(f"input {port}: output {output} of step {step}, made by job {state['job_name']}")
                return str(self._fetched(port, _content(self.client.jobs.outputs(state["job_name"])[output])))
        raise NotFound(
            f"step {step}, whose output {output} this step reads, has not completed yet",
            hint=f"Run the pipeline once, or give the input: --input {port}=PATH",
        )

    def _fetched(self, port: str, uri: str) -> Path:
        target = self.scratch / "inputs" / port
        files = download(self.client._transport, uri, target)
        if len(files) != 1 or not uri.rstrip("/").endswith(files[0].name):
            return target
        # Somebody else may have named it, and the name is to stand in a command of this machine's shell.
        return files[0].rename(files[0].with_name(as_one_word(files[0].name)))


def with_debugger(command: str) -> str:
    """The command with its first `python FILE` under pdb, which stops where an exception is raised."""
    changed, count = re.subn(r"\bpython(3?)\s+(?=[^-\s]\S*\.py\b)", r"python\1 -m pdb -c continue ", command, count=1)
    if not count:
        raise Invalid(f"--pdb needs a command that runs `python FILE.py`; this one is {command[:80]!r}")
    return changed


def _ref(text: str, noun: str) -> tuple[str, str | None]:
    """(name, version); no version for a label."""
    reference = asset_ref(text, noun)
    return reference.name, reference.version


def _content(output: JobOutput) -> str:
    """Where an output stays as it was written."""
    return output.get("content", output["uri"])

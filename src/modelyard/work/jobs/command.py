"""The kind `command`: what a command job runs, and the command job of a step. Pure."""

from __future__ import annotations

import shlex
from typing import Any

from ...ports.executor import Command
from ...spec.component import CommandComponent
from ...spec.job import CommandJob, Distribution
from ...spec.step import Node
from .kinds import Execution
from .model import Program


def execution(spec: CommandJob) -> Execution:
    spec.check_complete()
    return Execution(
        command=_command(spec),
        environment=spec.environment,
        code=spec.code,
        inputs=spec.inputs,
        outputs=spec.outputs,
        variables={**_settings(spec.distribution), **spec.environment_variables},
        timeout_s=spec.limits.timeout if spec.limits else None,
        instance_type=spec.resources.instance_type if spec.resources else None,
        notes=tuple(_stored_only(spec)),
    )


def of_step(node: Node, component: CommandComponent, inputs: dict[str, Any], outputs: dict[str, Any]) -> CommandJob:
    body: dict[str, Any] = {
        "type": "command", "command": component.command, "inputs": inputs, "outputs": outputs,
        "environment": component.environment if isinstance(component.environment, str) else component.environment.document(),
        "environment_variables": {**component.environment_variables, **getattr(node, "environment_variables", {})},
        "tags": node.tags, "properties": {**node.properties},
    }  # fmt: skip
    if component.code is not None:
        body["code"] = component.code
    for name in ("resources", "distribution"):
        value = getattr(node, name, None) or getattr(component, name)
        if value is not None:
            body[name] = value.document()
    for name in ("limits", "identity"):
        if (value := getattr(node, name, None)) is not None:
            body[name] = value.document()
    timeout = getattr(getattr(node, "retry_settings", None), "timeout", None)
    if timeout is not None and "limits" not in body:
        body["limits"] = {"timeout": int(timeout)}
    return CommandJob.model_validate(body)


def _command(spec: CommandJob) -> Command:
    if spec.distribution is None:
        return Command(spec.command)
    instances = spec.resources.instances if spec.resources else 1
    return Command(spec.command, Program.DISTRIBUTED, _launcher(spec.distribution, instances))


def _launcher(distribution: Distribution, instances: int) -> str:
    """What starts the command once for each process of a distributed job."""
    processes, servers = distribution.processes(instances)
    words = shlex.join([distribution.type, str(instances), str(processes), str(servers), "--", "sh", "-c"])
    return f'exec python "$YARD_PROGRAM" {words}'


def _settings(distribution: Distribution | None) -> dict[str, str]:
    return {"RAY_SETTINGS": distribution.model_dump_json()} if distribution is not None and distribution.type == "ray" else {}


def _stored_only(spec: CommandJob) -> list[str]:
    """One line for each field that is kept but has no effect on this yard."""
    notes = []
    for port, value in spec.inputs.items():
        if value.path_on_compute:
            notes.append(f"inputs.{port}.path_on_compute: the yard chooses the path; use ${{{{inputs.{port}}}}}")
    if spec.resources and spec.resources.instances > 1 and not spec.distribution:
        notes.append(f"resources.instance_count {spec.resources.instance_count}: this machine is one instance")
    return notes

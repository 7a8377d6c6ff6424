"""A parallel step as the command job that carries it out: the runtime's driver around the step's entry script. Pure."""

from __future__ import annotations

import shlex
from typing import Any

from ...core.errors import Invalid
from ...spec import expressions
from ...spec.component import ParallelComponent, ParallelFields, RetrySettings
from ...spec.job import CommandJob
from ...spec.properties import JobProperties
from ...spec.step import Node, ParallelNode


def parallel_job(node: Node, component: ParallelComponent, inputs: dict[str, Any], outputs: dict[str, Any]) -> CommandJob:
    """Raises Invalid for what a parallel step cannot do without."""

    def setting(name: str) -> Any:
        override = getattr(node, name, None) if isinstance(node, ParallelNode) else None
        return override if override is not None else getattr(component, name)

    task = component.task
    if task is None or task.entry_script is None or task.type == "model":
        raise Invalid("a parallel step needs a task with an entry_script", code="invalid_task")
    data = setting("input_data")
    if not data:
        raise Invalid("input_data says which input is cut into mini batches", code="invalid_task")
    retries, timeout_s = (setting("retry_settings") or RetrySettings()).of_mini_batch
    resources = setting("resources")
    words = ["python", '"$YARD_PROGRAM"', "--script", shlex.quote(task.entry_script), "--input", _word(data)]
    keys = setting("partition_keys") or ()
    if any("," in key for key in keys):
        raise Invalid("a partition key has no comma in its name", code="invalid_task")
    options = {
        "--size": setting("mini_batch_size"), "--keys": ",".join(keys), "--workers": setting("max_concurrency_per_instance"),
        "--error-threshold": setting("error_threshold"), "--batch-error-threshold": setting("mini_batch_error_threshold"),
        "--retries": retries, "--timeout": timeout_s,
    }  # fmt: skip
    for option, value in options.items():
        if value not in (None, ""):
            words += [option, shlex.quote(str(value))]
    if task.append_row_to:
        words += ["--append-to", _word(task.append_row_to)]
    if JobProperties.read({**component.properties, **node.properties}).allow_empty:
        words += ["--allow-empty"]
    if data_port(data) in inputs:  # the driver reads the items itself
        inputs = {**inputs, data_port(data): {**inputs[data_port(data)], "mode": "ro_mount"}}
    words += ["--", task.program_arguments or ""]
    body: dict[str, Any] = {
        "type": "command", "command": " ".join(words).strip(), "inputs": inputs, "outputs": outputs,
        "environment": task.environment if isinstance(task.environment, str) else task.environment.document(),
        "environment_variables": {**component.environment_variables, **_variables(node)}, "tags": node.tags,
        "properties": {**node.properties},
    }  # fmt: skip
    if task.code is not None:
        body["code"] = task.code
    if resources is not None:
        body["resources"] = resources.document()
    return CommandJob.model_validate(body)


def data_port(data: str) -> str:
    """The port in `${{inputs.PORT}}`; empty for another text."""
    paths = list(expressions.paths_in(data))
    return paths[0][1] if len(paths) == 1 and len(paths[0]) == 2 and paths[0][0] == "inputs" else ""


def _word(text: str) -> str:
    """An expression, for which a path is put in, stays as it is; other text is one word of the shell."""
    return text if expressions.is_expression(text) else shlex.quote(text)


def _variables(node: Any) -> dict[str, str]:
    return dict(node.environment_variables) if isinstance(node, ParallelFields) else {}

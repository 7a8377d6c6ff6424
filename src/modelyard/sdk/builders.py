"""`command()` and the `load_*` functions of `azure.ai.ml`, one for each noun."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..spec.nouns import NOUNS

if TYPE_CHECKING:
    from ..spec.environment import Environment
    from ..spec.job import CommandJob


def command(
    *,
    command: str,
    environment: str | Environment,
    code: str | os.PathLike[str] | None = None,
    inputs: dict[str, Any] | None = None,
    outputs: dict[str, Any] | None = None,
    instance_count: int | None = None,
    instance_type: str | None = None,
    timeout: int | None = None,
    **fields: Any,
) -> CommandJob:
    """A command job, with the keyword arguments of `azure.ai.ml.command`.

        job = command(command="python train.py --rate ${{inputs.rate}}", code="./src", inputs={"rate": 0.1},
                      environment="azureml:sklearn-1.5@latest")

    Raises Invalid naming every field that is wrong.
    """
    from ..spec.fields import parse
    from ..spec.job import CommandJob

    document: dict[str, Any] = {
        "type": "command",
        "command": command,
        "environment": environment,
        "code": os.fspath(code) if code is not None else None,
        "inputs": {name: _plain(value) for name, value in (inputs or {}).items()},
        "outputs": {name: _plain(value) for name, value in (outputs or {}).items()},
        **{name: value for name, value in fields.items() if value is not None},
    }
    if instance_count is not None or instance_type is not None:
        document["resources"] = {"instance_count": instance_count, "instance_type": instance_type, **(document.get("resources") or {})}
    if timeout is not None:
        document["limits"] = {"timeout": timeout}
    job = parse(CommandJob, {key: value for key, value in document.items() if value is not None}, what="command job")
    return job.settled(Path.cwd())


def _plain(value: Any) -> Any:
    from ..spec.inputs import Input, Output

    return value.document() if isinstance(value, (Input, Output)) else value


def loader(noun: str) -> Callable[..., Any]:
    """`load_NOUN`: read one from a YAML file, `params_override` being `[{"field": value}, …]`."""

    def load_one(source: str | os.PathLike[str], *, params_override: list[dict[str, Any]] | None = None, **kwargs: Any) -> Any:
        from ..spec.loading import load

        overrides = {name: value for item in params_override or [] for name, value in item.items()}
        return load(noun, Path(source), overrides)

    load_one.__name__ = f"load_{noun}"
    load_one.__doc__ = f"Read a {noun.replace('_', ' ')} from a YAML file. Raises Invalid with the position of everything wrong."
    return load_one


def __getattr__(name: str) -> Any:
    """`load_job` and the like, one for each noun that is written as YAML."""
    noun = NOUNS.get(name.removeprefix("load_")) if name.startswith("load_") else None
    if noun is None or not noun.types:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = loader(noun.name)
    return globals()[name]

"""Components: steps with typed ports, versioned and used in many pipelines (reference `azure-v2-fields`, section 7.4)."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from ..core.errors import Invalid
from ..core.names import check_name
from . import expressions
from .environment import Environment
from .fields import Command, Entity, Spec, Text, Variables, Version
from .inputs import LITERAL_TYPES, AssetType, Literal_, input_files, text_as_written
from .job import Distribution, EnvironmentField, JobResourceConfiguration, QueueSettings
from .local import Code, EnvironmentFiles, LocalPart
from .unused import TIERS

PortMode = Literal["direct", "download", "eval_download", "eval_mount", "mount", "ro_mount", "rw_mount", "upload", "link"]


class ComponentInput(Spec):
    """A literal port has a default, bounds and choices; a data port has a mode."""

    type: AssetType
    description: str | None = None
    optional: bool | None = None
    default: Literal_ | None = None
    min: Literal_ | None = None
    max: Literal_ | None = None
    enum: list[Text] | None = None
    mode: PortMode | None = None
    path: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _text(cls, data: Any) -> Any:
        return text_as_written(data)

    @property
    def is_literal(self) -> bool:
        return self.type in LITERAL_TYPES

    def check(self) -> None:
        """Raise ValueError for limits that are no numbers, or a default that is not of the type or beyond them."""
        if self.type in ("integer", "number"):
            for limit, value in (("min", self.min), ("max", self.max)):
                try:
                    _as_type("number", 0 if value is None else value)
                except ValueError as error:
                    raise ValueError(f"{limit}: {error}") from None
        if self.default is not None and self.is_literal:
            try:
                self.checked(self.default)
            except ValueError as error:
                raise ValueError(f"default: {error}") from None

    def checked(self, value: Any) -> Any:
        """The value as this port's type. Raises ValueError saying what is wrong with it."""
        if not self.is_literal:
            raise ValueError(f"this input takes data of type {self.type}, not the value {value!r}")
        converted = _as_type(self.type, value)
        if self.enum is not None and str(converted) not in self.enum:
            raise ValueError(f"{converted!r} is not one of {', '.join(self.enum)}")
        if self.type in ("integer", "number"):
            if self.min is not None and converted < float(self.min):
                raise ValueError(f"{converted} is less than {self.min}")
            if self.max is not None and converted > float(self.max):
                raise ValueError(f"{converted} is more than {self.max}")
        return converted


def _as_type(type: str, value: Any) -> Any:
    try:
        if type == "boolean":
            if isinstance(value, bool):
                return value
            return {"true": True, "false": False, "1": True, "0": False}[str(value).lower()]
        if type == "integer":
            number = float(value)
            if not math.isfinite(number) or isinstance(value, bool) or number != int(number):
                raise ValueError
            return int(value) if isinstance(value, str) else int(number)
        if type == "number":
            if isinstance(value, bool):
                raise ValueError
            if not math.isfinite(value if isinstance(value, int) else float(value)):
                raise ValueError
            return value if isinstance(value, int) else float(value)
    except (OverflowError, ValueError, KeyError, TypeError):
        raise ValueError(f"{str(value)[:80]!r} is not of type {type}") from None
    return ("True" if value else "False") if isinstance(value, bool) else str(value)


class ComponentOutput(Spec):
    """A literal output is a file that the command writes; its text is the value."""

    type: AssetType = "uri_folder"
    description: str | None = None
    mode: PortMode | None = None
    path: str | None = None

    @property
    def travels_as(self) -> AssetType:
        return "uri_file" if self.type in LITERAL_TYPES else self.type


def _port(value: Any) -> Any:
    return {} if value is None else value


ComponentInputs = dict[str, ComponentInput]
ComponentOutputs = dict[str, Annotated[ComponentOutput, BeforeValidator(_port)]]


class Component(Entity):
    version: Version | None = None
    display_name: str | None = None
    is_deterministic: bool = True
    auto_delete_setting: dict[str, Any] | None = None
    inputs: ComponentInputs = Field(default_factory=dict)
    outputs: ComponentOutputs = Field(default_factory=dict)
    latest_version: SkipJsonSchema[str | None] = Field(default=None, exclude=True)
    type: str

    def __call__(self, *args: Any, **inputs: Any) -> Any:
        """Inside a function under `@dsl.pipeline`: a step of that pipeline."""
        from .dsl import call_component

        return call_component(self, args, inputs)

    def local_parts(self) -> Iterator[LocalPart]:
        yield from input_files(self.inputs)
        yield from super().local_parts()

    def code_and_environment(self) -> tuple[str | None, str | Environment | None]:
        """What it runs, and with what; None where it has none."""
        return getattr(self, "code", None), getattr(self, "environment", None)

    @model_validator(mode="after")
    def _ports(self) -> Component:
        try:
            for name in (*self.inputs, *self.outputs):
                check_name("port", name, "input or output")
        except Invalid as error:
            raise ValueError(error.message) from None
        for name, port in self.inputs.items():
            try:
                port.check()
            except ValueError as error:
                raise ValueError(f"input {name}: {error}") from None
        return self


class CommandComponent(Component):
    type: Literal["command"] = "command"
    command: Command = Field(min_length=1)
    code: str | None = None
    environment: EnvironmentField
    environment_variables: Variables = Field(default_factory=dict)
    resources: JobResourceConfiguration | None = None
    distribution: Distribution | None = None
    queue_settings: Annotated[QueueSettings | None, TIERS] = None
    additional_includes: list[str] | None = None

    def local_parts(self) -> Iterator[LocalPart]:
        yield from (Code(includes=tuple(self.additional_includes or ())), EnvironmentFiles())
        yield from super().local_parts()

    @model_validator(mode="after")
    def _expressions(self) -> CommandComponent:
        ports: dict[str, Collection[str]] = {"inputs": self.inputs, "outputs": self.outputs}
        try:
            expressions.COMPONENT_COMMAND.check(self.command, ports)
            for text in self.environment_variables.values():
                expressions.VARIABLES.check(text, ports)
        except Invalid as error:
            raise ValueError(error.message) from None
        return self


class RetrySettings(Spec):
    """`timeout` in seconds for one try."""

    timeout: int | str | None = None
    max_retries: int | str | None = None

    @property
    def of_mini_batch(self) -> tuple[int | str, int | str]:
        """(retries, seconds of a try) of a parallel step's mini batch; left out 3 and 60, as in Azure."""
        return 3 if self.max_retries is None else self.max_retries, 60 if self.timeout is None else self.timeout


class ParallelTask(Spec):
    type: Literal["run_function", "model", "function"]
    code: str | None = None
    entry_script: str | None = None
    program_arguments: str | None = None
    model: str | None = None
    append_row_to: str | None = None
    environment: EnvironmentField


class ParallelFields(Spec):
    """What parallel steps and parallel components share."""

    logging_level: Literal["DEBUG", "INFO", "WARNING"] | None = None
    task: ParallelTask | None = None
    mini_batch_size: Text | None = None
    partition_keys: list[str] | None = None
    input_data: str | None = None
    retry_settings: RetrySettings | None = None
    max_concurrency_per_instance: int | None = Field(default=None, ge=1)
    error_threshold: int | None = None
    mini_batch_error_threshold: int | None = None
    environment_variables: Variables = Field(default_factory=dict)
    resources: JobResourceConfiguration | None = None

    def local_parts(self) -> Iterator[LocalPart]:
        yield from (Code(("task", "code")), EnvironmentFiles(("task", "environment")))
        yield from super().local_parts()


class ParallelComponent(Component, ParallelFields):
    type: Literal["parallel"] = "parallel"

    def code_and_environment(self) -> tuple[str | None, str | Environment | None]:
        return (self.task.code, self.task.environment) if self.task is not None else (None, None)


class SparkComponent(Component):
    """Kept and answered; nothing here runs Spark."""

    type: Literal["spark"] = "spark"
    code: str | None = "."
    entry: dict[str, Any]
    py_files: list[str] | None = None
    jars: list[str] | None = None
    files: list[str] | None = None
    archives: list[str] | None = None
    conf: dict[str, Any] | None = None
    environment: EnvironmentField | None = None
    args: str | None = None
    additional_includes: list[str] | None = None

    def local_parts(self) -> Iterator[LocalPart]:
        yield EnvironmentFiles()
        yield from super().local_parts()


class AutoMLComponent(Component):
    """Kept and answered as it was written; nothing here runs it yet."""

    model_config = {"extra": "allow"}
    type: Literal["automl"] = "automl"
    task: Text

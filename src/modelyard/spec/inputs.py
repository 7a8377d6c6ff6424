"""Inputs and outputs of jobs: data by reference, or literal values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, model_validator

from .fields import Spec, Text, Version
from .local import Files
from .scalar import Scalar, plain

DATA_TYPES = ("uri_file", "uri_folder", "mltable", "custom_model", "mlflow_model", "triton_model", "path")
FOLDER_TYPES = ("uri_folder", "mltable", "mlflow_model", "custom_model", "triton_model")
LITERAL_TYPES = ("string", "integer", "number", "boolean")

AssetType = Literal[
    "uri_file", "uri_folder", "mltable", "custom_model", "mlflow_model", "triton_model", "path",
    "string", "integer", "number", "boolean",
]  # fmt: skip
InputMode = Literal["download", "ro_mount", "direct", "eval_mount", "eval_download", "mount", "rw_mount", "upload"]
OutputMode = Literal["mount", "upload", "rw_mount", "direct"]
Literal_ = str | int | float | bool


class Input(Spec):
    """One input. Data has a `path` and a `mode` (default `ro_mount`); a literal has a `value` or a `default`."""

    type: AssetType = "uri_folder"
    path: str | None = None
    mode: InputMode | None = None
    datastore: str | None = None
    path_on_compute: str | None = None
    value: Literal_ | None = None
    default: Literal_ | None = None
    optional: bool | None = None
    description: str | None = None
    min: float | int | None = None
    max: float | int | None = None
    enum: list[Text] | None = None

    @model_validator(mode="before")
    @classmethod
    def _literal(cls, data: Any) -> Any:
        if isinstance(data, dict) and "value" in data and "type" not in data:
            return {**data, "type": literal_type(plain(data["value"]))}
        return text_as_written(data)

    @model_validator(mode="after")
    def _one_of(self) -> Input:
        if self.is_literal and self.path is not None:
            raise ValueError(f"an input of type {self.type} has a value, not a path")
        if not self.is_literal and self.value is not None:
            raise ValueError(f"an input of type {self.type} has a path, not a value")
        if not self.is_literal and self.mode in ("upload", "rw_mount", "mount"):
            raise ValueError(f"mode {self.mode} belongs to outputs; inputs take download, ro_mount, direct, eval_mount, eval_download")
        return self

    @property
    def is_literal(self) -> bool:
        return self.type in LITERAL_TYPES

    @property
    def literal(self) -> Literal_ | None:
        """The value, or the default where none is given."""
        return self.value if self.value is not None else self.default


class Output(Spec):
    """One output: a file or folder the job writes. `name` (and `version`) promote it to an asset when the job completes."""

    type: AssetType = "uri_folder"
    path: str | None = None
    mode: OutputMode | None = None
    name: str | None = None
    version: Version | None = None
    description: str | None = None

    @model_validator(mode="after")
    def _version_needs_name(self) -> Output:
        if self.version and not self.name:
            raise ValueError("a version needs a name")
        if self.type in LITERAL_TYPES:
            raise ValueError(f"a job output is data; type {self.type} is for component ports")
        return self


def literal_type(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return {int: "integer", float: "number"}.get(type(value), "string")


def text_as_written(data: Any) -> Any:
    """A port of type string with its value and default as they were written: `1.10`, `yes`."""
    if not isinstance(data, dict) or data.get("type") != "string":
        return data
    return {key: value.text if key in ("value", "default") and isinstance(value, Scalar) else value for key, value in data.items()}


def _as_input(value: Any) -> Any:
    """A bare value is a literal input."""
    value = value.value if isinstance(value, Scalar) else value
    if isinstance(value, (str, int, float, bool)):
        return {"type": literal_type(value), "value": value}
    return value


def _as_output(value: Any) -> Any:
    """`out:` with nothing after it is a folder; a bare string is a path."""
    if value is None:
        return {}
    return {"path": value} if isinstance(value, str) else value


Inputs = dict[str, Annotated[Input, BeforeValidator(_as_input, json_schema_input_type=Input | Literal_)]]
Outputs = dict[str, Annotated[Output, BeforeValidator(_as_output, json_schema_input_type=Output | str | None)]]


def input_files(inputs: Mapping[str, Any]) -> Iterator[Files]:
    """Of inputs with a path, or with a default that is one. A binding such as `${{parent.inputs.rows}}` is neither."""
    for name, value in inputs.items():
        key = "path" if value.path else "default"
        path = value.path or (value.default if value.type not in LITERAL_TYPES else None)
        if isinstance(path, str) and "${{" not in path:
            yield Files(("inputs", name, key))

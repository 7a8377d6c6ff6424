"""What all specs share: strictness, forgiving enums, Azure's bookkeeping fields, readable validation errors."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PrivateAttr,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import core_schema
from typing_extensions import TypedDict

from ..core.errors import Invalid, Problem
from ..core.names import nearest
from .local import LocalPart
from .scalar import Scalar, plain


def _as_version(value: Any) -> Any:
    """YAML reads `version: 1` as a number; versions are text."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return value


def _as_text(value: Any) -> Any:
    """Tags and environment variables are text, whatever YAML made of them; true is written `true`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    return value


MAX_COMMAND = 100_000
"""Bytes of a command: Linux starts none with an argument of more than 128 KiB, and the yard sets words before it."""
MAX_PAIRS = 1_000
"""Tags of a resource, and properties."""
MAX_PROBLEMS = 50
"""That are listed of one document."""
_STORED: ContextVar[bool] = ContextVar("stored", default=False)
"""Whether a document comes from a row of the database, not from a person."""

_WRITTEN: ContextVar[bool] = ContextVar("written", default=False)
"""Whether a document comes from YAML, with its scalars as they were written."""

Version = Annotated[str, BeforeValidator(_as_version)]
Text = Annotated[str, BeforeValidator(_as_text)]


def _check_pairs(pairs: dict[str, Any]) -> dict[str, Any]:
    if len(pairs) > MAX_PAIRS and not _STORED.get():
        raise ValueError(f"there are {len(pairs):,} of them; {MAX_PAIRS:,} are allowed")
    return pairs


Pairs = Annotated[dict[str, Any], AfterValidator(_check_pairs)]
Tags = Annotated[dict[str, Text], AfterValidator(_check_pairs)]


def _check_variables(variables: dict[str, str]) -> dict[str, str]:
    for name, value in variables.items():
        if not name or "=" in name or not name.isprintable() or " " in name:
            raise ValueError(f"{name[:80]!r} is not the name of an environment variable")
        if "\0" in value:
            raise ValueError(f"the value of {name} holds a NUL character, which no process can be given")
    return variables


def _check_command(command: str) -> str:
    size = len(command.encode("utf-8", "surrogatepass"))
    if size > MAX_COMMAND and not _STORED.get():
        raise ValueError(f"the command has {size:,} bytes; {MAX_COMMAND:,} are allowed. Put what is longer into a script")
    return command


Command = Annotated[str, AfterValidator(_check_command)]
Variables = Annotated[dict[str, Text], AfterValidator(_check_variables)]
"""Environment variables of a process."""


class ShownAs:
    """Metadata of a field that is kept as the plain value it comes as; the OpenAPI document describes it by `model`."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        # The handler writes the schema that it is given in place, and those inside it under their names.
        return dict(handler(core_schema.list_schema(TypeAdapter(self.model).core_schema))["items"])


READ_ONLY: dict[str, Any] = {"readOnly": True}


def read_only() -> Any:
    """A field that the server answers, and that is ignored when it is sent."""
    return Field(default=None, json_schema_extra=READ_ONLY)


def _squash(value: str) -> str:
    return value.replace("_", "").replace("-", "").lower()


Fold = Callable[[Any], Any]
ReadFile = Callable[[str, Any], Any]
"""Given a noun and what a field holds: the spec of the file that it names, or itself with its files read; None of a reference."""


@functools.cache
def _folds_of(model: type[Spec]) -> dict[str, Fold]:
    """Field → what writes its enumeration values as the model has them; only of fields that have some."""
    found = {name: _fold(field.annotation, _discriminator(field)) for name, field in model.model_fields.items()}
    return {name: fold for own, fold in found.items() if fold is not None for name in {own, model.model_fields[own].alias or own}}


def _discriminator(metadata: Any) -> str | None:
    tag = getattr(metadata, "discriminator", None)
    return tag if isinstance(tag, str) else None


def _fold(annotation: Any, tag: str | None = None) -> Fold | None:
    """Of a union whose members are told apart by the field `tag`, that field; of lists and mappings, what they hold."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _fold(parts[0], next((name for part in parts[1:] if (name := _discriminator(part))), tag))
    if origin is Literal:
        return functools.partial(_folded, {_squash(value): value for value in parts if isinstance(value, str)})
    if tag is not None:
        known = {_squash(value): value for member in _members(annotation) for value in typing.get_args(member.model_fields[tag].annotation)}
        return lambda value: {**value, tag: _folded(known, value[tag])} if isinstance(value, dict) and tag in value else value
    inner = [fold for part in parts if (fold := _fold(part)) is not None] if origin is not None else []
    if not inner:
        return None
    if origin is list:
        return lambda value: [inner[0](part) for part in value] if isinstance(value, list) else inner[0](value)
    if origin is dict:
        return lambda value: {key: inner[-1](part) for key, part in value.items()} if isinstance(value, dict) else value
    return lambda value: functools.reduce(lambda folded, fold: fold(folded), inner, value)


def _folded(known: dict[str, str], value: Any) -> Any:
    return known.get(_squash(value), value) if isinstance(value, str) else value


def _members(annotation: Any) -> list[type[BaseModel]]:
    """The models of a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [member for part in typing.get_args(annotation) for member in _members(part)]


@functools.cache
def _settling_of(model: type[Spec]) -> dict[str, Callable[[Any], Any]]:
    """Field → what becomes of scalars as they were written in YAML."""
    fields = model.model_fields.items()
    return {name: _settling(field.annotation) for own, field in fields for name in (own, field.alias) if name is not None}


def _settling(annotation: Any) -> Callable[[Any], Any]:
    """What a field makes of `Scalar`s: their text where it takes nothing else; parts that are specs settle their own; else their values."""
    if _means_text(annotation):
        return _texts
    return _outermost if _holds_spec(annotation) else plain


def _means_text(annotation: Any) -> bool:
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _means_text(parts[0])
    if origin in (typing.Union, types.UnionType):
        return all(_means_text(part) for part in parts if part is not type(None))
    if origin in (list, dict):
        return bool(parts) and _means_text(parts[-1])
    return annotation is str or (origin is Literal and all(isinstance(part, str) for part in parts))


def _holds_spec(annotation: Any) -> bool:
    if isinstance(annotation, type):
        return issubclass(annotation, Spec)
    parts = typing.get_args(annotation)
    return isinstance(annotation, (str, typing.ForwardRef)) or any(_holds_spec(part) for part in parts if not isinstance(part, str))


def _texts(value: Any) -> Any:
    if isinstance(value, Scalar):
        return value.text
    if isinstance(value, dict):
        return {key: _texts(part) for key, part in value.items()}
    return [_texts(part) for part in value] if isinstance(value, list) else value


def _outermost(value: Any) -> Any:
    return value.value if isinstance(value, Scalar) else value


class Spec(BaseModel):
    """Base of every noun and part. Unknown fields are refused; enum values match whatever their case or underscores."""

    # Built when first used: a command that lists jobs has no use for the schema of a datastore.
    model_config = ConfigDict(
        extra="forbid", validate_assignment=True, populate_by_name=True, allow_inf_nan=False, ser_json_inf_nan="strings", defer_build=True
    )  # fmt: skip

    _known: ClassVar[frozenset[str]] = frozenset()
    _base_path: Path | None = PrivateAttr(default=None)
    _positions: dict[tuple[Any, ...], tuple[int, int]] = PrivateAttr(default_factory=dict)
    _file: str = PrivateAttr(default="")

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls._known = frozenset(name for own, field in cls.model_fields.items() for name in (own, field.alias) if name is not None)

    @model_validator(mode="before")
    @classmethod
    def _fold_enums(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        for name, value in data.items():
            if isinstance(value, str) and "\0" in value:  # no process, path or PostgreSQL takes one
                raise ValueError(f"{name} holds a NUL character")
        folded = dict(data) if not _STORED.get() else {name: value for name, value in data.items() if name in cls._known}
        if _WRITTEN.get():
            settle = _settling_of(cls)
            folded = {name: settle.get(name, plain)(value) for name, value in folded.items()}
        for name, fold in _folds_of(cls).items():
            if name in folded:
                folded[name] = fold(folded[name])
        return folded

    @property
    def base_path(self) -> Path:
        """The folder that relative local paths are meant from: the YAML file's, else the working directory."""
        return self._base_path or Path.cwd()

    def settled(self, base_path: Path, positions: dict[tuple[Any, ...], tuple[int, int]] | None = None, file: str = "") -> Self:
        self._base_path = base_path
        self._positions, self._file = positions or {}, file
        return self

    def located(self, error: Invalid) -> Invalid:
        """The same error with the lines of this spec's file: for what only the server can see."""
        problems = tuple(
            replace(problem, file=self._file, line=line, column=column)
            for problem in error.problems
            for line, column in [_position(self._positions, tuple(problem.field.split(".")))]
        )
        return Invalid(error.message, code=error.code, hint=error.hint, problems=problems) if self._positions and problems else error

    def local_parts(self) -> Iterable[LocalPart]:
        """What of its document may lie on the machine of whoever wrote it."""
        return ()

    def read_files(self, read: ReadFile) -> None:
        """Put in place of each file that it names, such as that of a component, what is written there."""

    def _read_file(self, field: str, noun: str, read: ReadFile) -> None:
        value = getattr(self, field)
        written = read(noun, value)
        if written is not None and written is not value:
            setattr(self, field, written)

    def check_complete(self) -> None:
        """Raise Invalid when something is missing that a file must have, and an object in the making may lack."""

    @classmethod
    def read_only_fields(cls) -> set[str]:
        """The fields that only the server fills."""
        return {name for name, field in cls.model_fields.items() if field.json_schema_extra == READ_ONLY}

    @classmethod
    def answered(cls, document: Any) -> Self:
        """What a server answered. Fields that this version does not know are left out: a newer server may add some."""
        # A class that keeps every field has none that it does not know.
        return cls.model_validate(document, extra=None if cls.model_config.get("extra") == "allow" else "ignore")

    def document(self) -> dict[str, Any]:
        """The plain JSON form, absent fields left out: what is stored, sent and printed."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class CreationContext(TypedDict, total=False):
    """Who made it and who changed it last, with times in ISO 8601."""

    created_at: str | None
    created_by: str
    last_modified_by: str


class Failure(TypedDict, total=False):
    """Why something failed. `code` is stable, `message` is for people."""

    code: str
    message: str
    hint: str


class Entity(Spec):
    """A noun with a name of its own."""

    schema_: SkipJsonSchema[str | None] = Field(default=None, alias="$schema", exclude=True, repr=False)
    id: str | None = read_only()
    creation_context: Annotated[dict[str, Any] | None, ShownAs(CreationContext)] = read_only()

    name: str | None = None
    description: str | None = None
    tags: Tags = Field(default_factory=dict)
    properties: Pairs = Field(default_factory=dict)


def problems_of(
    error: ValidationError, model: type[BaseModel], *, file: str = "", positions: dict[tuple[Any, ...], tuple[int, int]] | None = None
) -> tuple[Problem, ...]:
    """Turn pydantic's errors into problems with a position, the field, and the nearest name that would be valid."""
    problems: list[Problem] = []
    count = error.error_count()
    for item in error.errors(include_url=False)[:MAX_PROBLEMS]:
        location = tuple(item["loc"])
        field = ".".join(str(part)[:80] for part in location if not _is_tag(part))
        message = item["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        if item["type"] == "extra_forbidden":
            known = _fields_at(model, location[:-1])
            message = f"unknown field {str(location[-1])[:80]!r}{nearest(str(location[-1]), known)}"
        elif item["type"] == "missing":
            message = "this field is required"
        elif item["type"] == "literal_error":
            expected = str(item.get("ctx", {}).get("expected", ""))
            words = [word.strip("' ") for word in expected.replace(" or ", ",").split(",")]
            message = f"{str(item['input'])[:80]!r} is not one of {expected}{nearest(str(item['input']), words)}"
        elif isinstance(item.get("input"), (str, int, float, bool)):
            message = f"{message}, not {str(item['input'])[:80]!r}"
        line, column = _position(positions or {}, location)
        problems.append(Problem(message, field, file, line, column))
    if count > MAX_PROBLEMS:
        problems.append(Problem(f"and {count - MAX_PROBLEMS:,} more problems, which are not listed", "", file))
    return tuple(problems)


def _is_tag(part: Any) -> bool:
    return isinstance(part, str) and (part.startswith("~") or "[" in part or part.startswith("function-"))


def _position(positions: dict[tuple[Any, ...], tuple[int, int]], location: tuple[Any, ...]) -> tuple[int, int]:
    """The position of the deepest node on the way to `location`; union tags that pydantic puts in between are skipped."""
    path: tuple[Any, ...] = ()
    best = positions.get((), (0, 0))
    for part in location:
        if (*path, part) in positions:
            path = (*path, part)
            best = positions[path]
    return best


def _fields_at(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    current: type[BaseModel] | None = model
    for part in location:
        field = current.model_fields.get(str(part)) if current else None
        if field is not None:
            current = _model_in(field.annotation)
    return list(current.model_fields) if current else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in typing.get_args(annotation):
        if (model := _model_in(part)) is not None:
            return model
    return None


S = typing.TypeVar("S", bound=Spec)


def parse(
    model: type[S],
    data: Any,
    *,
    what: str = "",
    file: str = "",
    positions: dict[tuple[Any, ...], tuple[int, int]] | None = None,
    as_written: bool = False,
) -> S:
    """Validate data as `model`; `as_written` with the scalars of YAML. Raises Invalid with every problem at once, each with its position when known."""
    token = _WRITTEN.set(as_written)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        noun = what or model.__name__
        raise Invalid(
            f"{file + ': ' if file else ''}this is not a valid {noun}",
            code="invalid_spec",
            problems=problems_of(error, model, file=file, positions=positions),
        ) from None
    finally:
        _WRITTEN.reset(token)


def parse_stored(model: type[S], document: dict[str, Any], **names: str) -> S:
    """As `parse`, of a document that a row holds or is to hold; `names` are the fields that have columns of their own.

    Earlier versions may have written it: what they did not know has its default, what they alone knew is left out.
    """
    token = _STORED.set(True)
    try:
        return parse(model, {**{name: value for name, value in document.items() if value is not None}, **names})
    finally:
        _STORED.reset(token)


def with_changes(model: type[S], document: dict[str, Any], changes: Mapping[str, Any], **names: str) -> dict[str, Any]:
    """The document of a row with some fields changed, their values as the model reads them. Raises Invalid for what it cannot read."""
    body = {**document, **changes}
    read = parse_stored(model, body, **names).document()
    return {**body, **{key: read[key] for key in changes if key in read}}


def from_row(model: type[S], document: dict[str, Any], **names: str) -> S:
    """The spec that a row holds. Raises Invalid for one that this version cannot read any more."""
    try:
        return parse_stored(model, document, **names)
    except Invalid as error:
        raise Invalid(
            f"what is stored of {' '.join(names.values()) or model.__name__} cannot be read by this version of modelyard",
            code="unreadable_spec", problems=error.problems, hint="Create it again.",
        ) from None  # fmt: skip

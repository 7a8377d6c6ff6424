"""From a document to the spec of its noun: the type follows from `type`, else from `$schema` (reference, section 2).

A spec is imported when a document turns out to be one: who submits a command has no use for pipelines and schedules.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Annotated, Any, Union

from pydantic import Field, TypeAdapter
from typing_extensions import TypeAliasType

from ..core.errors import Invalid, Problem
from ..core.names import nearest
from . import yamlfile
from .fields import S, Spec, from_row, parse
from .nouns import NOUNS, Noun, written
from .overrides import assign
from .references import is_local


@functools.cache
def any_of(noun: Noun) -> Any:
    """The model of a noun; one of several types is a union under one name in the OpenAPI document, such as `AnyJob`."""
    specs = tuple(noun.specs.values())
    if len(specs) == 1:
        return specs[0]
    return TypeAliasType(f"Any{noun.name.capitalize()}", Annotated[Union[specs], Field(discriminator="type")])  # noqa: UP007


def json_schema(noun: str) -> dict[str, Any]:
    """JSON Schema (2020-12) of what is written as this noun. The loader takes more: enumerations in any case."""
    schema = _as_written(TypeAdapter(any_of(NOUNS[noun])).json_schema())
    for spec in (schema, *(schema.get("$defs", {}).get(spec.__name__, {}) for spec in NOUNS[noun].specs.values())):
        if "properties" in spec:  # how a file says to an editor which schema it has
            spec["properties"]["$schema"] = {"type": "string"}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _as_written(schema: Any) -> Any:
    """With numbers and truth values where a text is meant: `version: 1` is read as the text that was written."""
    if isinstance(schema, list):
        return [_as_written(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    written = {key: part if key in ("propertyNames", "enum", "const", "default") else _as_written(part) for key, part in schema.items()}
    if written.get("type") == "string" and not written.keys() & {"enum", "const", "pattern", "format"}:
        written["type"] = ["string", "number", "boolean"]
    return written


def build() -> None:
    """Build every schema now: a server answers on several threads, and none of them should be the one that builds."""
    for noun in written():
        for model in noun.specs.values():
            model.model_rebuild()


def spec_class(noun: str, data: Any, file: str = "", positions: yamlfile.Positions | None = None) -> type[Spec]:
    """The spec that `data` is meant as. Raises Invalid for a type that is unknown or not run by this version."""
    row = NOUNS[noun]
    if "" in row.types:
        field = next((name for name in row.implied if isinstance(data, dict) and name in data), None)
        if field is None:
            return row.spec("")
        line, column = (positions or {}).get((field,), (1, 1) if positions else (0, 0))
        problem = Problem(
            f"a {noun} of this kind ({row.implied[field]}) is not run by this version of modelyard", field, file, line, column
        )
        raise Invalid(f"this {noun} cannot be read", code="unknown_kind", problems=(problem,))
    if not isinstance(data, dict):
        return row.spec(next(iter(row.types)))
    stated = data.get("type")
    type_ = stated if isinstance(stated, str) else _implied(row, data)
    folded = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type_).lower()
    squashed = folded.replace("_", "")
    match = next((known for known in row.types if known.replace("_", "") == squashed), None)
    if match is not None:
        return row.spec(match)
    line, column = (positions or {}).get(("type",), (1, 1) if positions else (0, 0))
    if squashed in row.elsewhere:
        message = f"{noun} type {type_!r} is not run by this version of modelyard; it runs {', '.join(row.types)}"
    else:
        message = f"{type_!r} is not a {noun} type{nearest(folded, row.types)}"
    raise Invalid(f"this {noun} cannot be read", code="unknown_kind", problems=(Problem(message, "type", file, line, column),))


def stored_spec(noun: str, document: dict[str, Any], **names: str) -> Any:
    """As `from_row`, of a noun with several types. Raises Invalid."""
    return from_row(spec_class(noun, document), document, **names)


def _implied(noun: Noun, data: dict[str, Any]) -> str:
    """The type of a document that has none."""
    schema = re.search(r"/(\w+)\.schema\.json$", str(data.get("$schema", "")))
    if schema and schema[1] in noun.schemas:
        return noun.schemas[schema[1]]
    return next((type_ for name, type_ in noun.implied.items() if name in data), noun.otherwise or next(iter(noun.types)))


def answered(noun: str, document: dict[str, Any]) -> Any:
    """A noun that a server answered, as the spec of its type."""
    return spec_class(noun, document).answered(document)


MAX_DEPTH = 12
"""Files that name files."""


def load(noun: str, path: Path, overrides: dict[str, Any] | None = None, depth: int = 0) -> Spec:
    """Read the YAML file at `path` as a `noun`; `overrides` are `--set` assignments, dotted names to values."""
    if depth > MAX_DEPTH:
        raise Invalid(f"{path}: files name each other more than {MAX_DEPTH} deep", code="too_deep")
    document = yamlfile.read(path, as_written=True)
    data = document.data if document.data is not None else {}
    if not isinstance(data, dict):
        raise Invalid(f"{path}: a {noun} file holds a mapping of fields, not a {type(data).__name__}", code="invalid_spec")
    for name, value in (overrides or {}).items():
        assign(data, name, value)
    if noun == "schedule":
        _read_inline_job(data, document)
    model = spec_class(noun, data, document.file, document.positions)
    spec = parse(model, data, what=noun.replace("_", " "), file=document.file, positions=document.positions, as_written=True)
    spec.settled(path.resolve().parent, document.positions, document.file)
    try:
        spec.check_complete()
    except Invalid as error:
        raise spec.located(error) from None
    return with_files(spec, depth)


def _read_inline_job(data: dict[str, Any], document: yamlfile.Document) -> None:
    """A job that is written out in a schedule is read as one: with the texts that were written, and with the lines of what is wrong."""
    create_job = data.get("create_job")
    if not isinstance(create_job, dict):
        return
    job, at = (create_job.get("job"), ("create_job", "job")) if "job" in create_job else (create_job, ("create_job",))
    if isinstance(job, dict):
        inner = {path[len(at) :]: position for path, position in document.positions.items() if path[: len(at)] == at}
        model = spec_class("job", job, document.file, inner)
        read = parse(model, job, what="job", file=document.file, positions=inner, as_written=True)
        data["create_job"] = {**create_job, "job": read.document()} if "job" in create_job else read.document()


def component_file(text: object) -> str | None:
    """The path when a step names a file as its component, or a job one as its environment: `file:x.yml`, `./x.yml`, `x.yml`."""
    if not isinstance(text, str) or text.startswith(("azureml:", "yard:")) or "${{" in text:
        return None
    if text.startswith("file:"):
        return text.removeprefix("file://").removeprefix("file:")
    return text if text.endswith((".yml", ".yaml")) and is_local(text) else None


def with_files(spec: S, depth: int = 0) -> S:
    """A spec with the files that it names loaded into it."""

    def read(noun: str, value: object) -> Any:
        if isinstance(value, Spec):
            return with_files(value if value._base_path else value.settled(spec.base_path), depth + 1)
        file = component_file(value)
        return load(noun, spec.base_path / file, depth=depth + 1) if file is not None else None

    spec.read_files(read)
    return spec

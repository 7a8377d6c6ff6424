"""The OpenAPI document of the native API, built from what the routes declare: ADR 13.

A route says with `@answers` what it answers and takes. Its answer is written as ever; the declaration costs nothing until
somebody asks for the document.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, NamedTuple, TypeVar

import msgspec
import orjson
from fastapi import FastAPI, Response, routing
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from ..spec.answers import ErrorAnswer
from .api_page import HEADERS, page
from .http import STATUS

F = TypeVar("F", bound=Callable[..., Any])
PREFIX = "/api/v1/"
JSON = "application/json"
SCHEMAS = "#/components/schemas/"
DESCRIPTION = """The lifecycle of machine learning on a yard of one's own. The documents are those of the YAML files.

Fields that are unknown are refused in a request; an answer may gain fields in a later version, so a client leaves out those that it
does not know. Fields marked `readOnly` are ignored when they are sent. A list is read page by page: `next` of an answer is the `token`
of the following request."""
READS = ("get", "head")


@dataclass(frozen=True)
class Media:
    """Bytes or text instead of a JSON document."""

    type: str = "application/octet-stream"


TEXT = Media("text/plain")


@dataclass(frozen=True)
class Declared:
    answers: Mapping[int, Any]
    """Status → what is answered with it: a model, a union, `Media`, a tuple of these, or None for no content."""
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    """Of the request: name → what it says."""
    answer_headers: Mapping[str, str] = field(default_factory=dict)


def answers(
    model: Any = None, status: int = 200, *, body: Any = None, also: Mapping[int, Any] | None = None,
    headers: Mapping[str, str] | None = None, answer_headers: Mapping[str, str] | None = None,
) -> Callable[[F], F]:  # fmt: skip
    """Declare what a route answers, and the body it takes. The body is read by `Call`, with positions and limits."""

    def declare(endpoint: F) -> F:
        endpoint.declared = Declared({status: model, **(also or {})}, body, headers or {}, answer_headers or {})  # type: ignore[attr-defined]
        return endpoint

    return declare


def describe(application: FastAPI) -> None:
    """Serve the document of the declarations at `/openapi.json`, and as a page at `/docs/api`; both built at the first request."""
    built: tuple[bytes, str] | None = None
    first = asyncio.Lock()

    def build() -> tuple[bytes, str]:
        document = document_of(application)
        return orjson.dumps(document), page(document)

    async def texts() -> tuple[bytes, str]:
        nonlocal built
        async with first:
            if built is None:  # a second of work: not on the event loop
                built = await asyncio.to_thread(build)
        return built

    async def document() -> Response:
        return Response((await texts())[0], media_type=JSON)

    async def documentation() -> Response:
        return Response((await texts())[1], media_type="text/html", headers=HEADERS)

    # Before FastAPI's own, which it adds when it is created.
    application.router.routes.insert(0, routing.APIRoute("/openapi.json", document, include_in_schema=False))
    application.router.routes.insert(1, routing.APIRoute("/docs/api", documentation, include_in_schema=False))


class Operation(NamedTuple):
    """One method of one path."""

    path: str
    method: str
    endpoint: Callable[..., Any]
    tag: str

    @property
    def declared(self) -> Declared:
        declared: Declared | None = getattr(self.endpoint, "declared", None)
        if declared is None:
            raise RuntimeError(f"{self.method.upper()} {self.path} declares no answer; put @answers(…) on {self.endpoint.__qualname__}")
        return declared

    @property
    def repeatable(self) -> bool:
        """Whether it honors an Idempotency-Key; one with a streamed body does not."""
        return self.method not in READS and not isinstance(self.declared.body, Media)

    @property
    def id(self) -> str:
        """`jobs_list` of the function `list_` under the tag `jobs`. Clients are generated from it: it stays."""
        return f"{self.tag.replace(' ', '_')}_{self.endpoint.__name__.strip('_')}"


def operations(application: FastAPI) -> Iterator[Operation]:
    """Every operation of the native API."""
    # FastAPI lays the routes of included routers out flat up to some version, and answers them by this function later.
    every = getattr(routing, "iter_route_contexts", lambda routes: routes)(application.routes)
    for route in every:
        path = getattr(route, "path_format", None) or ""
        if path.startswith(PREFIX) and getattr(route, "include_in_schema", False):
            for method in sorted(route.methods):
                yield Operation(path, method.lower(), route.endpoint, str(route.tags[0]))


def methods_at(application: FastAPI, path: str) -> list[str]:
    """What may be asked of a path, by all routes that it matches: for `Allow`, which Starlette fills from one of them."""
    every = getattr(routing, "iter_route_contexts", lambda routes: routes)(application.routes)
    matching = (route for route in every if (regex := getattr(route, "path_regex", None)) is not None and regex.match(path))
    return sorted({method for route in matching for method in getattr(route, "methods", None) or ()})


def document_of(application: FastAPI) -> dict[str, Any]:
    """The whole document. Raises RuntimeError for a route that declares no answer."""
    declared_operations = list(operations(application))
    # Only the parameters are FastAPI's: it knows no bodies, which `Call` reads, and would invent answers.
    plain = get_openapi(title="modelyard", version=application.version, description=DESCRIPTION, routes=application.routes)
    schemas = Schemas(declared_operations)
    paths: dict[str, Any] = {}
    for operation in declared_operations:
        parameters = plain["paths"][operation.path][operation.method].get("parameters", [])
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation, parameters, schemas)
    return {
        "openapi": plain["openapi"],
        "info": plain["info"],
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "tags": [{"name": tag} for tag in dict.fromkeys(operation.tag for operation in declared_operations)],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "responses": {_name_of(status): _refusal(status, kinds, schemas) for status, kinds in _refusals().items()},
            "parameters": {"IdempotencyKey": IDEMPOTENCY_KEY},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": 'A token of the yard: `eval "$(yard env)"`.'}},
        },
    }


IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key", "in": "header", "required": False, "schema": {"type": "string", "maxLength": 255},
    "description": "The same key again, within a day and with the same request, changes nothing and is answered 200 with the first answer.",
}  # fmt: skip


def _operation(operation: Operation, parameters: list[dict[str, Any]], schemas: Schemas) -> dict[str, Any]:
    declared = operation.declared
    text = inspect.getdoc(operation.endpoint) or ""
    summary = text.partition("\n")[0].partition(". ")[0].rstrip(".") or _summary(operation)
    shown: dict[str, Any] = {"operationId": operation.id, "tags": [operation.tag], "summary": summary}
    if text and text.rstrip(".") != summary:
        shown["description"] = text
    shown["parameters"] = [*_path_parameters(operation.path, parameters), *map(_untitled, parameters), *_headers(operation)]
    if declared.body is not None:
        shown["requestBody"] = {"required": True, "content": schemas.content(declared.body, "validation")}
    shown["responses"] = {str(status): _answer(status, model, declared, schemas) for status, model in declared.answers.items()}
    if operation.repeatable and "200" not in shown["responses"] and 201 in declared.answers:
        repeated = _answer(200, declared.answers[201], declared, schemas)
        shown["responses"]["200"] = {**repeated, "description": "The answer to an earlier request with the same Idempotency-Key."}
    for status in _refusals():
        shown["responses"][str(status)] = {"$ref": f"#/components/responses/{_name_of(status)}"}
    return {key: value for key, value in shown.items() if value != []}


def _summary(operation: Operation) -> str:
    words = operation.endpoint.__name__.strip("_").replace("_", " ")
    return f"{words.capitalize()} ({operation.tag})"


def _path_parameters(path: str, declared: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Those that no argument of the function stands for: `Call` reads the workspace."""
    known = {parameter["name"] for parameter in declared if parameter["in"] == "path"}
    for name in re.findall(r"\{(\w+)\}", path):
        if name not in known:
            yield {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _untitled(parameter: dict[str, Any]) -> dict[str, Any]:
    return {**parameter, "schema": {key: value for key, value in parameter["schema"].items() if key != "title"}}


def _headers(operation: Operation) -> Iterator[dict[str, Any]]:
    for name, meaning in operation.declared.headers.items():
        yield {"name": name, "in": "header", "required": False, "schema": {"type": "string"}, "description": meaning}
    if operation.repeatable:
        yield {"$ref": "#/components/parameters/IdempotencyKey"}


def _answer(status: int, model: Any, declared: Declared, schemas: Schemas) -> dict[str, Any]:
    shown: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if declared.answer_headers:
        shown["headers"] = {
            name: {"description": meaning, "schema": {"type": "string"}} for name, meaning in declared.answer_headers.items()
        }
    if model is not None:
        shown["content"] = schemas.content(model, "serialization")
    return shown


def _refusals() -> dict[int, list[str]]:
    """Status → the kinds of errors that it stands for."""
    kinds_by_status: dict[int, list[str]] = {}
    for kind, status in STATUS.items():
        kinds_by_status.setdefault(status, []).append(kind.value)
    return dict(sorted({**kinds_by_status, 500: [], 507: ["limit"]}.items()))


def _name_of(status: int) -> str:
    return HTTPStatus(status).phrase.replace(" ", "")


def _refusal(status: int, kinds: list[str], schemas: Schemas) -> dict[str, Any]:
    meaning = f"Errors of kind {', '.join(kinds)}" if kinds else "The yard failed; its log says more under the request id"
    return {"description": f"{HTTPStatus(status).phrase}. {meaning}.", "content": schemas.content(ErrorAnswer, "serialization")}


# Schemas


class Schemas:
    """The schemas of all that the operations declare, under one name each."""

    def __init__(self, operations: list[Operation]) -> None:
        adapters: dict[tuple[Any, str], TypeAdapter[Any]] = {(ErrorAnswer, "serialization"): TypeAdapter(ErrorAnswer)}
        structs: list[type[msgspec.Struct]] = []
        for operation in operations:
            declared = operation.declared
            for model in _flat(declared.body):
                if isinstance(model, type) and issubclass(model, msgspec.Struct):
                    structs.append(model)
                else:
                    adapters.setdefault((model, "validation"), TypeAdapter(model))
            for model in _flat(tuple(declared.answers.values())):
                adapters.setdefault((model, "serialization"), TypeAdapter(model))
        inputs: Any = [(model, mode, adapter) for (model, mode), adapter in adapters.items()]
        self._of: dict[tuple[Any, str], Any]
        self._of, document = TypeAdapter.json_schemas(inputs, ref_template=SCHEMAS + "{model}", schema_generator=_Generator)  # type: ignore[assignment]
        refs, components = msgspec.json.schema_components(structs, ref_template=SCHEMAS + "{name}")
        self._of |= {(struct, "validation"): ref for struct, ref in zip(structs, refs, strict=True)}
        both = {**document["$defs"], **components}
        if len(both) != len(document["$defs"]) + len(components):
            raise RuntimeError(f"two models have one name: {', '.join(set(components) & set(document['$defs']))}")
        self.components = {name: _open(both[name]) for name in sorted(_reached(list(self._of.values()), both))}

    def content(self, model: Any, mode: str) -> dict[str, Any]:
        content: dict[str, Any] = {}
        for item in model if isinstance(model, tuple) else (model,):
            if isinstance(item, Media):
                content[item.type] = {"schema": {"type": "string"} if item.type.startswith("text/") else {}}
            else:
                content[JSON] = {"schema": _open(self._of[item, mode])}
        return content


def _flat(model: Any) -> Iterator[Any]:
    """The models among what was declared."""
    if isinstance(model, tuple):
        for item in model:
            yield from _flat(item)
    elif model is not None and not isinstance(model, Media):
        yield model


def _reached(start: Any, schemas: dict[str, Any]) -> set[str]:
    """The names of schemas that are referred to, directly or from one another."""
    names: set[str] = set()
    waiting = [start]
    while waiting:
        for name in _references(waiting.pop()):
            if name not in names:
                names.add(name)
                waiting.append(schemas[name])
    return names


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == "$ref":
                yield value.removeprefix(SCHEMAS)
            else:
                yield from _references(value)
    elif isinstance(schema, list):
        for item in schema:
            yield from _references(item)


class _Generator(GenerateJsonSchema):
    """Names as a reader would choose them: `JobPage` for `Page[Job]`, and no title beside a name that says the same."""

    def normalize_name(self, name: str) -> str:
        return super().normalize_name(re.sub(r"^Page\[(.*)\]$", r"\1Page", name))

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _open(schema: Any) -> Any:
    """Without what holds for the whole API and is documented once: that requests have no unknown fields, that absent is null, titles that repeat names."""
    if isinstance(schema, list):
        return [_open(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    specific = {
        key: value
        for key, value in schema.items()
        if not (
            (key == "additionalProperties" and value is False)
            or (key == "default" and value is None)
            or (key == "title" and isinstance(value, str))
        )
    }
    return {
        key: {name: _open(item) for name, item in value.items()} if key == "properties" else _open(value)
        if key not in ("default", "enum", "const", "mapping", "required")
        else value
        for key, value in specific.items()
    }  # fmt: skip

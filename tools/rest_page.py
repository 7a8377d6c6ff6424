"""The reference page of the REST API, written from its OpenAPI document and from the use cases that the routes call."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from modelyard.engine.openapi import PREFIX, Operation

Document = dict[str, Any]
HEAD = """# REST API

Every yard serves this API below `/api/v1/`, and describes it at `/openapi.json` (OpenAPI 3.1) for generators of clients; `/docs/api` shows it in a browser.
This page is written from that document by `python tools/openapi.py`.

- **Token**: `Authorization: Bearer TOKEN` with each request. `yard env` prints one.
- **Documents** are those of the YAML files: what a request may hold, `GET` answers. Fields that only the server fills are ignored when they are sent.
- **Lists** are read page by page: `{"value": […], "next": TOKEN}`, where `next` is the `token` of the following request.
- **Errors** are `{"error": {"code", "kind", "message", "hint", "problems", "request_id"}}` with the statuses of [Errors](errors.md).
- **Repeated requests**: a change with an `Idempotency-Key` that was used before, within a day and with the same request, changes nothing and is answered as the first time.
- **Growth**: answers and requests gain fields, and lose none. Leave out what you do not know.

`…` stands for `/api/v1/workspaces/{workspace}`. A name with `*` after it is a page of these. A permission is an action of a role, `*` of any role or none.
"""


def page(document: Document, operations: list[Operation]) -> str:
    parts = [HEAD]
    for tag in dict.fromkeys(operation.tag for operation in operations):
        parts.append(f"## {tag.capitalize()}\n\n| request | what it does | permission | body | answer |\n|---|---|---|---|---|")
        parts += [_row(document, operation) for operation in operations if operation.tag == tag]
        parts.append("")
    return "\n".join(parts)


def _row(document: Document, operation: Operation) -> str:
    shown = document["paths"][operation.path][operation.method]
    path = operation.path.replace(f"{PREFIX}workspaces/{{workspace}}/", "…/")
    parameters = [parameter for parameter in shown.get("parameters", []) if parameter.get("in") == "query"]
    asked = ", ".join(f"`{parameter['name']}`" for parameter in parameters)
    what = cell(shown["summary"].removesuffix(f" ({operation.tag})")) + (f"; {asked}" if asked else "")
    body = _content(shown.get("requestBody", {}).get("content", {}))
    granted = ", ".join(f"`{name}`" for name in sorted(set(permissions(operation.endpoint))))
    return f"| `{operation.method.upper()} {path}` | {what} | {granted} | {body} | {_answers(shown)} |"


def _answers(operation: Document) -> str:
    """The answers that the request has when it succeeds, without the one to a repeated request."""
    found = {status: answer for status, answer in operation["responses"].items() if "$ref" not in answer}
    if "201" in found and "200" in found:
        del found["200"]
    return "; ".join(f"{status} {_content(answer.get('content', {}))}".strip() for status, answer in sorted(found.items()))


def _content(content: Document) -> str:
    return ", ".join(_schema(item["schema"]) if media == "application/json" else f"`{media}`" for media, item in content.items())


def _schema(schema: Document) -> str:
    if "$ref" not in schema:
        inner = schema.get("additionalProperties")
        return f"name → {_schema(inner)}" if isinstance(inner, dict) else str(schema.get("type", "anything"))
    name = schema["$ref"].rsplit("/", 1)[-1].removesuffix("-Input").removesuffix("-Output")
    return f"{name.removesuffix('Page')} *" if name.endswith("Page") else str(name)


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def permissions(function: Callable[..., Any]) -> Iterator[str]:
    """What the use cases that a route names ask for, those of its own helpers included."""
    names = {**function.__globals__, **inspect.getclosurevars(function).nonlocals}
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))):
        found = _value(node, names)
        if isinstance(permission := getattr(found, "permission", None), str):
            yield permission.removeprefix("Microsoft.MachineLearningServices/")
        elif inspect.isfunction(found) and found is not function and found.__module__.endswith(".rest") and _takes_call(found):
            yield from permissions(found)


def _takes_call(function: Callable[..., Any]) -> bool:
    return next(iter(inspect.signature(function).parameters), "") == "call"


def _value(node: ast.AST, names: Document) -> Any:
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        return getattr(_value(node.value, names), node.attr, None)
    return None

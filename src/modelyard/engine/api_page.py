"""The OpenAPI document as a page for a browser, at `/docs/api`: HTML alone. Nothing is fetched from elsewhere, and no script runs."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from html import escape
from typing import Any

Document = dict[str, Any]

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
code, pre { font: 13px/1.5 ui-monospace, monospace; }
details { border-top: 1px solid #8884; padding: .3rem 0; }
summary { cursor: pointer; }
table { border-collapse: collapse; margin: .5rem 0; }
td, th { text-align: left; vertical-align: top; padding: .1rem 1rem .1rem 0; }
pre { overflow-x: auto; }
"""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; "
    f"style-src 'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def page(document: Document) -> str:
    """The whole page: operations by tag, then the schemas that they refer to."""
    return "".join(
        [
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>REST API</title><style>{STYLE}</style>',
            f"<h1>REST API</h1><p>{_text(document['info'].get('description', ''))}</p>",
            '<p>The same as a document for generators of clients: <a href="/openapi.json">/openapi.json</a>.</p>',
            *_operations(document),
            "<h2>Schemas</h2>",
            *(_schema(name, schema) for name, schema in document["components"]["schemas"].items()),
            "</html>",
        ]
    )


def _operations(document: Document) -> Iterator[str]:
    by_tag: dict[str, list[str]] = {tag["name"]: [] for tag in document["tags"]}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            by_tag[operation["tags"][0]].append(_operation(path, method, operation, document))
    for tag, operations in by_tag.items():
        yield f"<h2>{escape(tag.capitalize())}</h2>"
        yield from operations


def _operation(path: str, method: str, operation: Document, document: Document) -> str:
    parts = [f"<details><summary><code>{method.upper()} {escape(path)}</code> {escape(operation['summary'])}</summary>"]
    parts.append(f"<p>{_text(operation.get('description', ''))}</p>")
    parameters = [_resolved(parameter, document) for parameter in operation.get("parameters", [])]
    rows = [
        (f"{parameter['name']}{'' if parameter.get('required') else ' (optional)'}", parameter["in"], parameter.get("description", ""))
        for parameter in parameters
    ]
    if body := operation.get("requestBody"):
        rows.append(("body", "", _content(body.get("content", {}))))
    parts.append(_table(rows))
    answers = [(status, _resolved(answer, document)) for status, answer in operation["responses"].items()]
    parts.append(_table([(status, answer["description"], _content(answer.get("content", {}))) for status, answer in answers]))
    return "".join([*parts, "</details>"])


def _resolved(value: Document, document: Document) -> Document:
    if "$ref" not in value:
        return value
    _, _, group, name = value["$ref"].split("/")
    resolved: Document = document["components"][group][name]
    return resolved


def _table(rows: list[tuple[str, str, str]]) -> str:
    lines = ("".join(f"<td>{cell if cell.startswith('<a ') else escape(cell)}" for cell in row) for row in rows)
    return f"<table>{''.join(f'<tr>{line}' for line in lines)}</table>"


def _content(content: Document) -> str:
    return " ".join(_named(item.get("schema", {})) or media for media, item in content.items())


def _named(schema: Document) -> str:
    """A link to a schema with a name; empty for any other."""
    name = schema.get("$ref", "").rpartition("/")[2]
    return f'<a href="#{escape(name)}">{escape(name)}</a>' if name else ""


def _schema(name: str, schema: Document) -> str:
    rows: list[tuple[str, str, str]] = [
        (field + ("" if field in schema.get("required", ()) else " (optional)"), _type(item), item.get("description", ""))
        for field, item in schema.get("properties", {}).items()
    ]
    alternatives = [_named(item) for item in [*schema.get("oneOf", []), *schema.get("anyOf", [])]]
    rows += [("one of", link, "") for link in alternatives if link]
    return f'<details id="{escape(name)}"><summary><code>{escape(name)}</code></summary><p>{_text(schema.get("description", ""))}</p>{_table(rows)}</details>'


def _type(schema: Document) -> str:
    if link := _named(schema):
        return link
    if "enum" in schema or "const" in schema:
        return ", ".join(map(str, schema.get("enum", [schema.get("const")])))
    if schema.get("type") == "array":
        return f"list of {schema.get('items', {}).get('type', schema.get('items', {}).get('$ref', 'anything').rpartition('/')[2])}"
    kinds = [item.get("type", item.get("$ref", "").rpartition("/")[2]) for item in schema.get("anyOf", [])]
    return " or ".join(filter(None, kinds)) or str(schema.get("type", "anything"))


def _text(text: str) -> str:
    return escape(text).replace("\n\n", "</p><p>")

"""The reference page of the YAML files, written from their JSON Schema and from what stands under the fields in `spec/`."""

from __future__ import annotations

import ast
import functools
import inspect
import sys
from collections.abc import Iterator
from typing import Any

from pydantic import TypeAdapter
from rest_page import cell

from modelyard.spec.expressions import PLACES, Place
from modelyard.spec.fields import Spec
from modelyard.spec.nouns import Noun, written

HEAD = """# YAML

The fields of every file that a yard reads: those of Azure Machine Learning v2, with its names and defaults. The same documents are the bodies of the [REST API](rest.md) and the objects of
the [SDK](sdk.md). `yard schema NOUN` prints the JSON Schema, for editors. This page is written from the program by `python tools/reference.py`.

- Values of an enumeration are taken in any case and with `_` or `-`; numbers are taken where text is meant.
- A field that is not here is refused, with its line and the nearest name.
- What only the server fills is named below each table; it is answered, and ignored when it is sent.
- `properties` is free; the names that mean something are in [Properties](properties.md).
"""
EXPRESSIONS = """## Expressions

What `${{…}}` stands for is put in once and not read again. One that has no value where it stands is refused when the document is submitted. A block `$[[ … ]]` in a command vanishes whole when an optional
input inside it is absent.

| in | |
|---|---|
"""
Schema = dict[str, Any]


def page() -> str:
    parts: list[str] = [HEAD, EXPRESSIONS + "".join(f"| {place.field} | {_names(place)} |\n" for place in PLACES if place.names)]
    inner: dict[str, Schema] = {}
    models: dict[str, type[Spec]] = {model.__name__: model for model in _every(Spec)}
    for noun in written():
        for type_, spec in noun.specs.items():
            schema = TypeAdapter(spec).json_schema()
            inner |= schema.get("$defs", {})
            own = schema["$defs"][spec.__name__] if "$ref" in schema else schema
            parts += [*_section(f"## {_title(noun, type_)}", own, spec), ""]
    outer = {spec.__name__ for noun in written() for spec in noun.specs.values()}
    parts.append("## Parts\n\nWhat stands inside.\n")
    for name in sorted(set(inner) - outer):
        parts += [*_section(f"### {name}", inner[name], models.get(name)), ""]
    return "\n".join(parts)


def _names(place: Place) -> str:
    return ", ".join("`${{" + name.replace("*", "NAME") + "}}`" for name in place.names)


def _every(model: type[Spec]) -> Iterator[type[Spec]]:
    for inner in model.__subclasses__():
        yield inner
        yield from _every(inner)


def _title(noun: Noun, type_: str) -> str:
    return noun.title.capitalize() + (f": {type_}" if len(noun.specs) > 1 else "")


def _section(title: str, schema: Schema, model: type[Spec] | None) -> Iterator[str]:
    yield f"{title}\n"
    if text := inspect.cleandoc(schema.get("description", "")):
        yield f"{text}\n"
    if "properties" not in schema:
        yield f"{_type(schema)}\n"
        return
    meanings = dict(_meanings(model)) if model else {}
    required = set(schema.get("required", ()))
    fields = {name: field for name, field in schema["properties"].items() if not field.get("readOnly")}
    yield "| field | type | default | |\n|---|---|---|---|"
    for name, field in fields.items():
        default = "required" if name in required else _default(field)
        yield f"| `{name}` | {cell(_type(field))} | {cell(default)} | {cell(field.get('description') or meanings.get(name, ''))} |"
    if answered := [name for name, field in schema["properties"].items() if field.get("readOnly")]:
        yield f"\nThe server fills {', '.join(f'`{name}`' for name in answered)}."


def _default(field: Schema) -> str:
    value = field.get("default")
    if value is None:
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _type(schema: Schema) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    if options := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
        return " or ".join(dict.fromkeys(_type(option) for option in options if option.get("type") != "null"))
    if values := schema.get("enum") or ([schema["const"]] if "const" in schema else []):
        return ", ".join(f"`{value}`" for value in values)
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if schema.get("type") == "object":
        inner = schema.get("additionalProperties")
        return f"mapping of {_type(inner)}" if isinstance(inner, dict) and inner else "mapping"
    return {"string": "text", None: "anything"}.get(schema.get("type"), schema.get("type", "")) + _bounds(schema)


def _bounds(schema: Schema) -> str:
    words = {"minimum": "at least", "exclusiveMinimum": "more than", "maximum": "at most", "exclusiveMaximum": "less than"}
    bounds = [f"{word} {schema[key]}" for key, word in words.items() if key in schema]
    return f", {' and '.join(bounds)}" if bounds else ""


@functools.cache
def _classes(module: str) -> dict[str, ast.ClassDef]:
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def _meanings(model: type[Spec]) -> Iterator[tuple[str, str]]:
    """Field → the text under it in the source, those of classes above first."""
    for kind in reversed(model.__mro__):
        if not (isinstance(kind, type) and issubclass(kind, Spec)):
            continue
        tree = _classes(kind.__module__)[kind.__name__]
        for field, following in zip(tree.body, tree.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(following, ast.Expr):
                value = following.value
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield field.target.id, " ".join(value.value.split())

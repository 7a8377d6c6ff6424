"""What of one OpenAPI document would break a client that was written for an earlier one.

Additions pass: paths, operations, optional parameters and request fields, answer fields, further types of a noun. A request must be
taken as before, so what it may hold only widens; an answer must be read as before, so what it may hold only narrows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]
LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems")
UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems")


def breaking_changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """A line for each, with the operation and the field."""
    return list(dict.fromkeys(_Comparison(old, new).paths()))


class _Comparison:
    def __init__(self, old: dict[str, Any], new: dict[str, Any]) -> None:
        self.old, self.new = old, new
        self._seen: set[tuple[str, str, bool]] = set()

    def paths(self) -> Iterator[str]:
        for path, operations in self.old["paths"].items():
            for method, operation in operations.items():
                where = f"{method.upper()} {path}"
                following = self.new["paths"].get(path, {}).get(method)
                if following is None:
                    yield f"{where} is gone"
                else:
                    yield from self._operation(where, operation, following)

    def _operation(self, where: str, old: Schema, new: Schema) -> Iterator[str]:
        if old.get("operationId") != new.get("operationId"):
            yield f"{where}: its operationId {old.get('operationId')} is now {new.get('operationId')}"
        yield from self._parameters(where, self._parameters_of(old, self.old), self._parameters_of(new, self.new))
        yield from self._body(where, old.get("requestBody"), new.get("requestBody"))
        for status, answer in old["responses"].items():
            if status not in new["responses"]:
                yield f"{where}: it answers no {status} any more"
                continue
            before, after = (_resolved(side, root) for side, root in ((answer, self.old), (new["responses"][status], self.new)))
            yield from self._content(f"{where}: answer {status}", before.get("content", {}), after.get("content", {}), request=False)

    def _parameters_of(self, operation: Schema, root: Schema) -> dict[str, Schema]:
        found = [_resolved(item, root) for item in operation.get("parameters", [])]
        return {f"{item['in']} parameter {item['name']}": item for item in found}

    def _parameters(self, where: str, old: dict[str, Schema], new: dict[str, Schema]) -> Iterator[str]:
        for name, parameter in old.items():
            if name not in new:
                yield f"{where}: {name} is gone"
            else:
                yield from self._schema(f"{where}: {name}", parameter.get("schema", {}), new[name].get("schema", {}), request=True)
        for name, parameter in new.items():
            if parameter.get("required") and not old.get(name, {}).get("required"):
                yield f"{where}: {name} is now required"

    def _body(self, where: str, old: Schema | None, new: Schema | None) -> Iterator[str]:
        if old is not None and new is None:
            yield f"{where}: it takes no body any more"
        elif new is not None and new.get("required") and not (old or {}).get("required"):
            yield f"{where}: it now requires a body"
        if old is not None and new is not None:
            yield from self._content(f"{where}: body", old["content"], new["content"], request=True)

    def _content(self, where: str, old: Schema, new: Schema, *, request: bool) -> Iterator[str]:
        for media, content in old.items():
            if media not in new:
                yield f"{where}: no {media} any more"
            else:
                yield from self._schema(where, content.get("schema", {}), new[media].get("schema", {}), request=request)

    # Schemas

    def _schema(self, where: str, old: Schema, new: Schema, *, request: bool) -> Iterator[str]:
        mark = (json.dumps(old, sort_keys=True), json.dumps(new, sort_keys=True), request)
        if mark in self._seen:
            return
        self._seen.add(mark)
        before, after = list(_alternatives(old, self.old)), list(_alternatives(new, self.new))
        yield from self._types(where, before, after, request)
        for name, one, other in _paired(before, after):
            if other is None:
                yield f"{where}: {name} is gone"
            else:
                yield from self._alternative(where, one, other, request)

    def _types(self, where: str, before: list[Schema], after: list[Schema], request: bool) -> Iterator[str]:
        old, new = _types_of(before), _types_of(after)
        if "any" in (new if request else old):
            return
        narrowed, wider = (old - new, "no longer takes") if request else (new - old, "may now be")
        if "number" in (new if request else old):
            narrowed = narrowed - {"integer"}
        for kind in sorted(narrowed):
            yield f"{where}: it {wider} {'a value of any type' if kind == 'any' else kind}"

    def _alternative(self, where: str, old: Schema, new: Schema, request: bool) -> Iterator[str]:
        if request:
            yield from _limits(where, old, new)
        yield from self._properties(where, old, new, request)
        if isinstance(old.get("items"), dict) and isinstance(new.get("items"), dict):
            yield from self._schema(f"{where}[]", old["items"], new["items"], request=request)
        for index, (one, other) in enumerate(zip(old.get("prefixItems", []), new.get("prefixItems", []), strict=False)):
            yield from self._schema(f"{where}[{index}]", one, other, request=request)
        if isinstance(old.get("additionalProperties"), dict) and isinstance(new.get("additionalProperties"), dict):
            yield from self._schema(f"{where}.*", old["additionalProperties"], new["additionalProperties"], request=request)

    def _properties(self, where: str, old: Schema, new: Schema, request: bool) -> Iterator[str]:
        fields: Schema = new.get("properties", {})
        for name, field in old.get("properties", {}).items():
            if name not in fields:
                yield f"{where}.{name} is gone"
            elif not (request and fields[name].get("readOnly")):
                yield from self._schema(f"{where}.{name}", field, fields[name], request=request)
            elif not field.get("readOnly"):
                yield f"{where}.{name} is now ignored"
        before, after = set(old.get("required", [])), set(new.get("required", []))
        for name in sorted(after - before if request else (before - after) & set(fields)):
            yield f"{where}.{name} {'is now required' if request else 'may now be absent'}"


def _resolved(value: Schema, root: Schema) -> Schema:
    while "$ref" in value:
        found: Any = root
        for part in value["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        value = {**found, "x-name": value["$ref"].rsplit("/", 1)[-1].removesuffix("-Input").removesuffix("-Output")}
    return value


def _alternatives(schema: Schema, root: Schema) -> Iterator[Schema]:
    """A union as the schemas that it is of."""
    schema = _resolved(schema, root)
    inner = schema.get("anyOf") or schema.get("oneOf")
    if inner is None:
        yield schema
    else:
        for item in inner:
            yield from _alternatives(item, root)


def _types_of(alternatives: list[Schema]) -> set[str]:
    found: set[str] = set()
    for item in alternatives:
        kind = item.get("type") or _type_of_values(item)
        found.update(kind if isinstance(kind, list) else [kind])
    return found


def _type_of_values(schema: Schema) -> str:
    values = schema.get("enum", [schema["const"]] if "const" in schema else [])
    return "string" if values and all(isinstance(value, str) for value in values) else "any"


def _paired(old: list[Schema], new: list[Schema]) -> Iterator[tuple[str, Schema, Schema | None]]:
    """Each old alternative with the new one that stands for it: by type, objects by name; a single object is the other single one."""
    objects = [[item for item in side if "properties" in item] for side in (old, new)]
    for item in old:
        if "properties" in item:
            name = item.get("x-name", "object")
            same = [other for other in objects[1] if other.get("x-name", "object") == name]
            alone = objects[1] if len(objects[0]) == len(objects[1]) == 1 else []
            yield name, item, next(iter(same or alone), None)
        else:
            same = [other for other in new if other.get("type") == item.get("type") and "properties" not in other]
            if same:
                yield str(item.get("type")), item, same[0]


def _limits(where: str, old: Schema, new: Schema) -> Iterator[str]:
    """Values that were taken and are no longer."""
    for name in (*LOWER, *UPPER):
        before, after = old.get(name), new.get(name)
        if after is not None and (before is None or (after > before if name in LOWER else after < before)):
            yield f"{where}: {name} is now {after}"
    if "pattern" in new and new["pattern"] != old.get("pattern"):
        yield f"{where}: it must now match {new['pattern']}"
    allowed = _values(new)
    if allowed is not None:
        gone = [str(value) for value in _values(old) or () if value not in allowed]
        if _values(old) is None:
            yield f"{where}: only {', '.join(map(str, allowed))} are now taken"
        elif gone:
            yield f"{where}: {', '.join(gone)} is no longer taken"


def _values(schema: Schema) -> list[Any] | None:
    return schema.get("enum", [schema["const"]] if "const" in schema else None)

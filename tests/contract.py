"""Whether answers are what the OpenAPI document declares: every native answer that a test gets goes through here."""

from __future__ import annotations

import re
from typing import Any

import httpx
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

DOCUMENT = "urn:openapi"


class Contract:
    """Stricter than what clients are told: an answer that has a field which nothing declares is wrong here."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = closed(document)
        resource: Resource[Any] = Resource(contents=self.document, specification=DRAFT202012)
        self._registry = Registry().with_resource(DOCUMENT, resource)
        self._validators: dict[str, Draft202012Validator] = {}

    def check(self, response: httpx.Response) -> None:
        """Raise AssertionError for an answer of the native API that is not as declared."""
        method, path = response.request.method.lower(), response.request.url.path
        template = self.template_of(path)
        if template is None or method not in self.document["paths"][template]:
            assert response.status_code in (404, 405), f"{method} {path} is answered {response.status_code} and is not in the document"
            return
        if method == "head" and response.status_code >= 400:
            return
        self._check_answer(f"{method.upper()} {template}", self.document["paths"][template][method]["responses"], response)

    def _check_answer(self, operation: str, declared: dict[str, Any], response: httpx.Response) -> None:
        status = str(response.status_code)
        assert status in declared, f"{operation} answers {status}, which it does not declare: {response.text[:500]}"
        answer = declared[status]
        if "$ref" in answer:
            answer = self.document["components"]["responses"][answer["$ref"].rsplit("/", 1)[-1]]
        content = answer.get("content", {})
        media = response.headers.get("content-type", "").partition(";")[0]
        if not content:
            assert not response.content, f"{operation} answers {status} with content, and declares none"
            return
        assert media in content, f"{operation} answers {status} as {media!r}; declared: {', '.join(content)}"
        if media == "application/json":
            self._check_document(f"{operation} {status}", content[media]["schema"], response.json())

    def _check_document(self, what: str, schema: dict[str, Any], document: Any) -> None:
        if what not in self._validators:
            inside = {"$ref": f"{DOCUMENT}{schema['$ref']}"} if "$ref" in schema else _absolute(schema)
            self._validators[what] = Draft202012Validator(inside, registry=self._registry)
        for error in self._validators[what].iter_errors(document):
            found = _deepest(error)
            raise AssertionError(f"{what} is not as declared at {found.json_path}: {found.message[:800]}")

    def template_of(self, path: str) -> str | None:
        """The path of the document that `path` is one of: with the fewest parameters, else one whose last parameter holds slashes."""
        exact = [template for template in self.document["paths"] if re.fullmatch(_pattern(template, "[^/]+"), path)]
        if exact:
            return min(exact, key=lambda template: template.count("{"))
        longer = [template for template in self.document["paths"] if re.fullmatch(_pattern(template, ".+"), path)]
        return max(longer, key=len, default=None)


def _pattern(template: str, last: str) -> str:
    """`last` stands for a parameter at the end, which may hold slashes."""
    parts = re.split(r"\{\w+\}", template)
    ends = parts[-1] == ""
    return "".join(
        re.escape(part) + ("" if index == len(parts) - 1 else last if ends and index == len(parts) - 2 else "[^/]+")
        for index, part in enumerate(parts)
    )


def closed(schema: Any) -> Any:
    """A copy in which objects have the properties that are declared, and no others."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    copy = {key: closed(value) for key, value in schema.items()}
    if isinstance(copy.get("properties"), dict) and copy.get("type") == "object":
        copy.setdefault("additionalProperties", False)
    return copy


def _absolute(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_absolute(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: f"{DOCUMENT}{value}" if key == "$ref" else _absolute(value) for key, value in schema.items()}


def _deepest(error: Any) -> Any:
    """Of a union the error of the branch that was meant: the one that got furthest."""
    while error.context:
        error = max(error.context, key=lambda inner: (len(inner.absolute_path), inner.validator != "const"))
    return error

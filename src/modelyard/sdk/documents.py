"""What a yard answers, for callers that only pass it on: a command prints it, and needs no class of its noun for that."""

from __future__ import annotations

from typing import Any

_FIRST = ("id", "creation_context", "name", "description", "tags", "properties")


class Document:
    """A resource as the yard answered it. Its fields are attributes, None where one is absent."""

    def __init__(self, noun: str, fields: dict[str, Any]) -> None:
        self.__dict__.update(_noun=noun, _fields=fields)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._fields.get(name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._fields[name] = value

    def document(self) -> dict[str, Any]:
        """As a spec's: what every noun has comes first, absent fields are left out."""
        fields: dict[str, Any] = self._fields
        return {name: fields[name] for name in dict.fromkeys((*_FIRST, *fields)) if fields.get(name) is not None}


def entity(noun: str, fields: dict[str, Any]) -> Any:
    """An answered document as the spec of its noun."""
    from ..spec.loading import answered

    return answered(noun, fields)


def as_entity(answer: Any) -> Any:
    """What was answered as a document as the spec of its noun."""
    return entity(answer._noun, answer._fields) if isinstance(answer, Document) else answer

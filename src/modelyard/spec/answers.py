"""What every answer of the REST API has in common. Documents that are no spec are dictionaries: on the server, on the wire, in the SDK."""

from __future__ import annotations

from typing import Generic, NotRequired, TypeVar

from typing_extensions import TypedDict

from ..core.errors import Kind

T = TypeVar("T")


class Page(TypedDict, Generic[T]):
    """One page of a list. `next` is the `token` of the following page; the last page has none."""

    value: list[T]
    next: NotRequired[str]


class ProblemDocument(TypedDict):
    """One fault of a document that was sent; `line` and `column` are 0 where no file is known."""

    message: str
    field: str
    file: str
    line: int
    column: int


class Error(TypedDict):
    """Why a request was refused. `code` is stable, `message` and `hint` are for people."""

    code: str
    kind: NotRequired[Kind]
    """Absent where no use case was reached, and where the server failed."""
    message: str
    request_id: str
    hint: NotRequired[str]
    problems: NotRequired[list[ProblemDocument]]


class ErrorAnswer(TypedDict):
    error: Error


class AssetChanges(TypedDict, total=False):
    """What of a version may change."""

    description: str | None
    tags: dict[str, str]
    properties: dict[str, object]

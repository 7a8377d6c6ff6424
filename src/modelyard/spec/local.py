"""What of a document lies on the machine of whoever wrote it. Each spec says its own parts; the client uploads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

At = tuple[str, ...]
"""Keys that lead to a value of the document."""


@dataclass(frozen=True)
class Files:
    """A path of data; `shape` says what must be there: a `table` is a folder with a file MLTable."""

    at: At
    shape: Literal["any", "file", "table"] = "any"


@dataclass(frozen=True)
class Code:
    """A folder of code, with files beside it that belong to it; `described`: its repository's state becomes properties."""

    at: At = ("code",)
    includes: tuple[str, ...] = ()
    described: bool = False


@dataclass(frozen=True)
class EnvironmentFiles:
    """An environment written out in place, which may name a conda file, a requirements file or a build context."""

    at: At = ("environment",)


@dataclass(frozen=True)
class ModelFiles:
    """A model that is a reference, or a path by itself."""

    at: At = ("model",)


@dataclass(frozen=True)
class Inside:
    """A spec that stands in another, and says its own parts."""

    at: At
    spec: Any


@dataclass(frozen=True)
class Unread:
    """A document of a noun that was not read as its spec."""

    at: At
    noun: str


LocalPart = Files | Code | EnvironmentFiles | ModelFiles | Inside | Unread

"""Environments made real."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Requirements:
    """What to install. `python` is a version prefix such as `3.10`, or empty for the yard's own."""

    packages: tuple[str, ...]
    python: str = ""
    index_options: tuple[str, ...] = ()
    """Lines such as `--index-url …` that stood in the user's requirements."""


@dataclass(frozen=True)
class Lock:
    """Everything pinned. Equal text means an equal environment; `key` names the built one."""

    python: str
    packages: str
    """One `name==version` a line, sorted."""
    key: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Built:
    key: str
    python: Path
    """The interpreter inside the environment."""
    readable: tuple[Path, ...]
    """What a process needs to read to use it: the environment and the base interpreter."""


class Builder(Protocol):
    """Raises Invalid, naming the package, when a requirement cannot be resolved or has no wheel."""

    def lock(self, wanted: Requirements, log: Callable[[str], None]) -> Lock: ...

    def find(self, key: str) -> Built | None:
        """The environment with this key if it was built already."""
        ...

    def build(self, lock: Lock, log: Callable[[str], None]) -> Built: ...

    def serving_kit(self, built: Built) -> Path:
        """A folder for the end of `sys.path` with what `model_server` needs beside the user's packages."""
        ...

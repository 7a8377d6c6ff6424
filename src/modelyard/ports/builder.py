"""Building environments: from requirements to a lock, and from a lock to an interpreter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..spec.requirements import Sources


@dataclass(frozen=True)
class Requirements:
    """What to install. `python` is a version prefix such as `3.10`, or empty for the yard's own.

    Every text is one requirement as `spec.requirements` writes it; a builder parses it again and refuses anything else.
    """

    packages: tuple[str, ...]
    python: str = ""
    sources: Sources = Sources()
    constraints: tuple[str, ...] = ()
    """Limit the versions of `packages` and of what they need."""


@dataclass(frozen=True)
class Lock:
    """Everything pinned. Equal text means an equal environment; `key` names the built one."""

    python: str
    packages: str
    """One `name==version` a line, sorted, with the hashes that were asked for."""
    key: str
    notes: tuple[str, ...] = ()
    sources: Sources = Sources()
    """Where the packages are fetched from. Part of the definition, so it is not stored with the lock."""
    from_source: tuple[str, ...] = ()
    """Names of the packages that have no wheel here: they are built from their source distributions."""


@dataclass(frozen=True)
class Built:
    key: str
    python: Path
    """The interpreter inside the environment."""
    readable: tuple[Path, ...]
    """What a process needs to read to use it: the environment and the base interpreter."""
    base: Path | None = None
    """The interpreter of the machine that it was made with; None where no environment can be put above this one."""
    pip: Path | None = None
    """A wheel of pip, which can be imported as it is."""
    pip_options: Mapping[str, str] = field(default_factory=dict)
    """What the operator says of where packages come from, as options of pip; without credentials."""

    def variables(self, threads: int) -> dict[str, str]:
        """Of a process that runs on it and computes with so many threads. What packages would report to their makers stays here."""
        folder, count = self.python.parent, str(threads)
        return {
            "PATH": f"{folder}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "VIRTUAL_ENV": str(folder.parent),
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": count,
            "MKL_NUM_THREADS": count,
            "OPENBLAS_NUM_THREADS": count,
            "NUMEXPR_MAX_THREADS": count,
            "DO_NOT_TRACK": "true",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "ORT_DISABLE_TELEMETRY": "1",
        }


class Builder(Protocol):
    """Raises Invalid, naming the package, when a requirement cannot be resolved, or would have to be built from source where that is not possible."""

    def lock(self, requirements: Requirements, log: Callable[[str], None]) -> Lock: ...

    def find(self, key: str) -> Built | None:
        """The environment with this key if it was built already."""
        ...

    def build(self, lock: Lock, log: Callable[[str], None]) -> Built: ...

    def serving_kit(self, built: Built) -> Path:
        """A folder for the end of `sys.path` with what `model_server` needs beside the user's packages."""
        ...

"""Building environments: from requirements to a lock, and from a lock to an interpreter."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..spec.requirements import Sources

OLDEST_RUNTIME = (3, 8)
"""The first Python on which the programs beside user code run; commands run on earlier ones too."""


def dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


@dataclass(frozen=True)
class Requirements:
    """What to install. `python` is a version such as `3.10`, limits such as `>=3.6,<3.9`, or empty for any: the yard's own, if it can be.

    Every text is one requirement as `spec.requirements` writes it; a builder parses it again and refuses anything else.
    """

    packages: tuple[str, ...]
    python: str = ""
    sources: Sources = Sources()
    constraints: tuple[str, ...] = ()
    """Limit the versions of `packages` and of what they need."""
    originals: tuple[tuple[str, str], ...] = ()
    """(one of `packages`, what it stands for): where the first makes the list unresolvable, the second is taken."""
    variables: tuple[tuple[str, str], ...] = ()
    """Environment variables that belong to the environment."""
    exact: bool = False
    """Whether its versions are never relaxed: it is what a model was logged with."""
    programs: bool = False
    """Whether programs of the runtime run on its Python, see `Built.runs_programs`."""


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
    variables: tuple[tuple[str, str], ...] = ()
    """Like `sources` part of the definition."""


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
    python_version: tuple[int, int] = (sys.version_info[0], sys.version_info[1])
    declared: tuple[tuple[str, str], ...] = ()
    """Environment variables that its definition sets; none of those that `variables` sets itself."""

    @property
    def runs_programs(self) -> bool:
        """Whether the programs beside user code run on its Python: warm interpreters, parallel and distributed jobs, model servers."""
        return self.python_version >= OLDEST_RUNTIME

    def variables(self, threads: int) -> dict[str, str]:
        """Of a process that runs on it and computes with so many threads. What packages would report to their makers stays here."""
        folder, count = self.python.parent, str(threads)
        return {
            **dict(self.declared),
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

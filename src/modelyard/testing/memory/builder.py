"""A builder of environments in memory."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from ...core.errors import Invalid, NotFound
from ...ports.builder import Built, Lock, Requirements
from ...spec.requirements import parse_package

Lines = list[str]


class MemoryBuilder:
    """Implements Builder. A lock is what was asked for, with versions made up; every environment is this Python, as it is."""

    def __init__(self, unknown: tuple[str, ...] = ("no-such-package",)) -> None:
        self.unknown = unknown
        """Names of packages that cannot be resolved."""
        self.built: dict[str, Built] = {}

    def lock(self, wanted: Requirements, log: object) -> Lock:
        packages = [parse_package(line) for line in wanted.packages]
        for package in packages:
            if package.name in self.unknown:
                raise Invalid(f"the environment cannot be resolved: there is no {package.name}", code="unresolvable_environment")
        python = wanted.python or f"{sys.version_info[0]}.{sys.version_info[1]}"
        pinned = "\n".join(sorted(str(package) if "==" in str(package) else f"{package.name}==1.0" for package in packages))
        text = "\n".join((python, pinned, *wanted.sources.lines()))
        return Lock(python, pinned, hashlib.sha256(text.encode()).hexdigest()[:24], (), wanted.sources)

    def find(self, key: str) -> Built | None:
        return self.built.get(key)

    def build(self, lock: Lock, log: object) -> Built:
        return self.built.setdefault(lock.key, Built(lock.key, Path(sys.executable), (Path(sys.prefix),)))

    def serving_kit(self, built: Built) -> Path:
        raise NotFound("environments in memory serve nothing", code="no_serving_kit")

"""Builders of environments: the suite that every driver passes, and one in memory."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from ..core.errors import Invalid, NotFound
from ..ports.builder import Builder, Built, Lock, Requirements
from ..spec.requirements import parse_package

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


class BuilderSuite:
    """Subclass it with the fixtures `builder`, a new one each time, and `package`: the name of one that it can install."""

    @pytest.fixture
    def builder(self) -> Builder:
        raise NotImplementedError

    @pytest.fixture
    def package(self) -> str:
        raise NotImplementedError

    def lock(self, builder: Builder, *packages: str) -> Lock:
        return builder.lock(Requirements(packages), lambda line: None)

    def test_a_lock_pins_what_was_asked_for_and_equal_wishes_have_one_key(self, builder: Builder, package: str) -> None:
        lock = self.lock(builder, package)
        assert any(line.startswith(f"{package}==") for line in lock.packages.splitlines())
        assert self.lock(builder, package).key == lock.key != self.lock(builder).key
        pinned = self.lock(builder, lock.packages.splitlines()[0])
        assert pinned.packages.splitlines()[0] == lock.packages.splitlines()[0]

    def test_what_cannot_be_resolved_is_refused_by_name(self, builder: Builder) -> None:
        with pytest.raises(Invalid, match="no-such-package"):
            self.lock(builder, "no-such-package==99.99")

    @pytest.mark.parametrize("text", ["six\n-e /srv", "--find-links /srv", "-r /etc/passwd", "six\r-e .", ""])
    def test_what_is_no_requirement_is_refused(self, builder: Builder, text: str) -> None:
        with pytest.raises(Invalid):
            self.lock(builder, text)

    def test_an_environment_is_found_once_it_is_built_and_built_once(self, builder: Builder, package: str) -> None:
        lock = self.lock(builder, package)
        assert builder.find(lock.key) is None
        said: Lines = []
        built = builder.build(lock, said.append)
        found = builder.find(lock.key)
        assert built == found == builder.build(lock, said.append)
        assert built.key == lock.key and built.python.exists() and all(path.exists() for path in built.readable)
        assert builder.find("0" * 24) is None and builder.find("../etc") is None

    def test_a_process_on_it_computes_with_its_share_and_reports_to_nobody(self, builder: Builder) -> None:
        variables = builder.build(self.lock(builder), lambda line: None).variables(3)
        assert {variables[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")} == {"3"}
        assert variables["DO_NOT_TRACK"] == "true" and variables["PATH"].split(":")[0]

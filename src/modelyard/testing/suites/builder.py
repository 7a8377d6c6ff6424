"""Builders of environments: the suite that every driver passes, and one in memory."""

from __future__ import annotations

import pytest

from ...core.errors import Invalid
from ...ports.builder import Builder, Lock, Requirements

Lines = list[str]


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

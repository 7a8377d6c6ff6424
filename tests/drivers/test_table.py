"""Drivers by name."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from checked_yard import YardUnderTest
from modelyard.core.errors import Invalid
from modelyard.drivers import table
from modelyard.drivers.table import Parts, make_executor

NONE = cast(Parts, None)


def test_an_executor_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(Invalid, match="'locale' is not one of local; did you mean 'local'"):
        make_executor("locale", NONE)


def test_a_driver_whose_library_is_not_installed_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(table.EXECUTORS, "cloud", "no_such_library.executor:make")
    with pytest.raises(Invalid, match="needs no_such_library") as refused:
        make_executor("cloud", NONE)
    assert refused.value.code == "missing_extra" and "modelyard[cloud]" in refused.value.hint


def test_a_server_with_an_unknown_executor_does_not_start_and_says_why(tmp_path: Path) -> None:
    yard = YardUnderTest(tmp_path / "home", settings='executor = "slurm"\n')
    yard.home.mkdir()
    (yard.home / "server.toml").write_text(yard.settings)
    refused = yard.run("up", "--port", "0", ok=False)
    assert refused.returncode != 0 and "'slurm' is not one of local" in refused.stderr

"""What a list of requirements is resolved to: own versions before others, and what is said of those that are not as they were asked for."""

from __future__ import annotations

import http.server
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from grounds import NONE
from modelyard.core.addresses import AddressGuard
from modelyard.core.errors import Invalid
from modelyard.drivers.builder import interpreters, releases
from modelyard.drivers.builder.configuration import PackageConfiguration
from modelyard.drivers.builder.interpreters import Interpreter, candidates
from modelyard.drivers.builder.venv import VenvBuilder
from modelyard.ports.builder import Lock, Requirements
from modelyard.spec.requirements import Sources
from packages import CONFINED, builder_of, sdist, wheel

OWN = f"{sys.version_info[0]}.{sys.version_info[1]}"
MISSING = "3.99"
"""A Python that no machine has."""


@pytest.fixture
def builder(tmp_path: Path, packages: Path) -> VenvBuilder:
    return builder_of(tmp_path)


def locked(builder: VenvBuilder, *lines: str, python: str = OWN, exact: bool = False, originals: tuple[tuple[str, str], ...] = ()) -> Lock:
    return builder.lock(Requirements(lines, python, originals=originals, exact=exact), lambda line: None)


def pinned(lock: Lock) -> list[str]:
    return lock.packages.splitlines()


def test_what_was_not_made_for_the_pythons_of_this_machine_is_taken_in_the_next_release_for_jobs_alone(
    builder: VenvBuilder, packages: Path
) -> None:
    for name in ("exact", "compatible", "below", "within"):
        wheel(packages, name, version="1.0", tag="cp399-none-any")
        wheel(packages, name, version="1.5", python=">=3.6")
        wheel(packages, name, version="2.0", python=">=3.6")
    wheel(packages, "plain", version="3.0")
    lines = ("exact==1.0", "compatible~=1.0.0", "below<1.2", "within>=1.0,<1.1", "plain")
    lock = locked(builder, *lines, python=MISSING)
    assert pinned(lock) == ["below==1.5", "compatible==1.5", "exact==1.5", "plain==3.0", "within==1.5"]
    notes = "\n".join(lock.notes)
    assert f"Python {MISSING} is not on this machine" in notes and "plain has" not in notes
    for package in ("exact==1.0", "compatible~=1.0.0", "below<1.2", "within<1.1,>=1.0"):
        assert f"{package} has no wheel for Python" in notes
    with pytest.raises(Invalid, match=r"exact==1\.0 cannot be had|do not go together") as refused:
        locked(builder, *lines, python=MISSING, exact=True)
    assert f"Install Python {MISSING}" in refused.value.hint


def test_where_the_python_is_there_no_version_is_replaced(builder: VenvBuilder, packages: Path) -> None:
    wheel(packages, "exact", version="1.0", tag="cp399-none-any")
    wheel(packages, "exact", version="1.5")
    with pytest.raises(Invalid, match=r"exact==1\.0 cannot be had for Python " + OWN):
        locked(builder, "exact==1.0")


def test_own_versions_on_a_further_python_come_before_others_on_a_nearer_one(
    builder: VenvBuilder, packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = interpreters.interpreters("")
    further = next((version for version in sorted(there) if version < (sys.version_info[0], sys.version_info[1])), None)
    if further is None:
        pytest.skip("this machine has no second Python")
    tag = f"cp{further[0]}{further[1]}"
    wheel(packages, "exact", version="1.0", tag=f"{tag}-none-any")
    wheel(packages, "exact", version="1.5")
    for python in (MISSING, ""):
        lock = locked(builder, "exact==1.0", python=python)
        assert pinned(lock) == ["exact==1.0"] and lock.python.startswith(f"{further[0]}.{further[1]}.")
        assert len(lock.notes) == 1 and f"Python {lock.python} is used" in lock.notes[0]


def test_what_stands_for_a_package_gives_way_to_it(builder: VenvBuilder, packages: Path) -> None:
    wheel(packages, "boost", version="1.0")
    wheel(packages, "boost", version="2.0")
    wheel(packages, "boost-cpu", version="2.0")
    wheel(packages, "user", None, "boost")
    originals = (("boost-cpu==1.0", "boost==1.0"), ("boost-cpu>=1", "boost>=1"))
    assert pinned(locked(builder, "boost-cpu>=1", originals=originals)) == ["boost-cpu==2.0"]
    lock = locked(builder, "boost-cpu==1.0", originals=originals)
    assert pinned(lock) == ["boost==1.0"] and "boost-cpu does not fit the other requirements: boost itself is taken" in lock.notes
    beside = locked(builder, "boost-cpu>=1", "user", originals=originals)
    assert pinned(beside) == ["boost==2.0", "user==1.0"], "two packages of the same files are never installed together"


def test_the_refusal_names_those_that_stand_against_each_other_and_no_other(builder: VenvBuilder, packages: Path) -> None:
    for name, needs in (("one", "base<2"), ("two", "base>=2"), ("three", "base")):
        wheel(packages, name, None, needs)
    for version in ("1.0", "2.0"):
        wheel(packages, "base", version=version)
    with pytest.raises(Invalid) as refused:
        locked(builder, "three", "one==1.0", "two")
    first, *more = refused.value.message.splitlines()
    assert "one==1.0 and two do not go together" in first and "three" not in first and "three" not in "".join(more)
    with pytest.raises(Invalid, match=r"absent==3 cannot be had for Python"):
        locked(builder, "three", "absent==3")


def test_releases_get_others_of_their_time_unless_the_definition_asks_otherwise(builder: VenvBuilder, packages: Path) -> None:
    wheel(packages, "scikit-learn", None, "numpy>=1.13", version="0.24.2")
    for version in ("1.21.6", "1.26.4", "2.1.0"):
        wheel(packages, "numpy", version=version)
    lock = locked(builder, "scikit-learn==0.24.2")
    assert pinned(lock) == ["numpy==1.21.6", "scikit-learn==0.24.2"]
    assert "scikit-learn 0.24.2 needs numpy<1.24, though it does not say so" in lock.notes
    wheel(packages, "flask", None, "werkzeug", version="2.2.5")
    for version in ("2.3.8", "3.1.0"):
        wheel(packages, "werkzeug", version=version)
    mixed = locked(builder, "scikit-learn==0.24.2", "numpy==2.1.0", "flask")
    assert {"numpy==2.1.0", "werkzeug==2.3.8"} < set(pinned(mixed)), "one that is not allowed takes no other with it"
    own = locked(builder, "scikit-learn==0.24.2", "numpy==2.1.0")
    assert "numpy==2.1.0" in pinned(own) and any("which the other requirements do not allow" in note for note in own.notes)
    assert releases.needs(["scikit-learn==1.6.0", "numpy==2.1.0"]) == {}


def test_a_line_names_the_format_in_which_a_newer_client_saves_models() -> None:
    newer = releases.notes(["mlflow-skinny==3.17.2", "scikit-learn==1.9.0"])
    assert len(newer) == 1 and "serialization_format" in newer[0]
    assert releases.notes(["mlflow-skinny==3.13.0", "scikit-learn==1.9.0"]) == releases.notes(["mlflow-skinny==3.17.2"]) == []


@pytest.mark.skipif(CONFINED.name == "none", reason="this machine builds nothing from source")
def test_only_what_has_no_wheel_at_all_is_built_from_source(builder: VenvBuilder, packages: Path) -> None:
    sdist(packages, "only", BACKEND)
    wheel(packages, "other", version="1.0")
    sdist(packages, "other", "raise SystemExit('its code ran')")
    lock = locked(builder, "only", "other")
    assert lock.from_source == ("only",) and pinned(lock) == ["only==1.0", "other==1.0"]


BACKEND = """
import os, zipfile
def build_wheel(folder, settings=None, metadata=None):
    name = "only-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        files = {"only.py": "", "only-1.0.dist-info/METADATA": "Metadata-Version: 2.1\\nName: only\\nVersion: 1.0\\n",
                 "only-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"}
        for path, text in files.items():
            wheel.writestr(path, text)
        wheel.writestr("only-1.0.dist-info/RECORD", "".join(path + ",,\\n" for path in files))
    return name
def get_requires_for_build_wheel(settings=None):
    return []
"""


@contextmanager
def served(folder: Path) -> Iterator[int]:
    """A folder over HTTP at a port of the loopback."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        try:
            yield site.server_address[1]
        finally:
            site.shutdown()


@pytest.mark.skipif(CONFINED.name == "none", reason="this machine builds nothing from source")
def test_a_repository_is_built_at_the_revision_it_is_locked_to(tmp_path: Path, packages: Path) -> None:
    repository = tmp_path / "site" / "thing"
    repository.mkdir(parents=True)
    (repository / "pyproject.toml").write_text('[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n')
    (repository / "backend.py").write_text(BACKEND)

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "init.defaultBranch=main"]
        return subprocess.run(["git", *identity, *arguments], cwd=repository, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    revision = git("rev-parse", "HEAD")
    git("update-server-info")
    with served(tmp_path / "site") as port:
        address = f"git+http://127.0.0.1:{port}/thing/.git"
        with pytest.raises(Invalid, match="127.0.0.1"):
            locked(builder_of(tmp_path), f"{address}@main")
        builder = builder_of(tmp_path, allow=f"127.0.0.1:{port}=environments")
        for line in (f"{address}@main", f"only @ {address}"):
            lock = locked(builder, line)
            assert pinned(lock) == [f"only @ {address}@{revision}"] and lock.from_source == ("only",)
        environment = builder.build(lock, lambda line: None)
    assert list(environment.python.parent.parent.glob("lib/python3*/site-packages/only.py"))


def test_variables_of_an_environment_belong_to_it(builder: VenvBuilder, packages: Path) -> None:
    wheel(packages, "plain", version="1.0")
    without = locked(builder, "plain")
    lock = builder.lock(Requirements(("plain",), OWN, variables=(("MODE", "train"), ("PATH", "/elsewhere"))), lambda line: None)
    assert lock.key != without.key
    built = builder.build(lock, lambda line: None)
    again = builder.find(lock.key)
    assert again == built and built.variables(1)["MODE"] == "train"
    assert built.variables(1)["PATH"].startswith(str(built.python.parent))


def test_pythons_are_chosen_by_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {(3, minor): (Path(f"/python3.{minor}"), f"3.{minor}.1") for minor in (6, 8, 9, sys.version_info[1])}
    monkeypatch.setattr(interpreters, "interpreters", lambda extra: known)

    def chosen(requested: str, oldest: tuple[int, int] = (3, 6)) -> list[Interpreter]:
        return candidates(requested, "", oldest)

    assert [(one.minor, one.note) for one in chosen("3.8")] == [("3.8", "")]
    seven = chosen("3.7")
    assert [one.minor for one in seven][:3] == ["3.8", "3.6", "3.9"] and seven[
        0
    ].note == "Python 3.7 is not on this machine; Python 3.8.1 is used"
    assert [one.minor for one in chosen("3.7", (3, 8))][:2] == ["3.8", "3.9"]
    assert chosen("3.6", (3, 8))[0].note == "models, parallel and distributed jobs run from Python 3.8 on, not 3.6; Python 3.8.1 is used"
    assert (chosen("")[0].minor, chosen("")[0].note) == (OWN, "") and len(chosen("")) == len(known)
    assert chosen(">=3.6")[0].minor == OWN
    assert [one.minor for one in chosen(">=3.6,<3.9")] == ["3.8", "3.6"] and chosen(">=3.6,<3.9")[0].note == ""
    assert chosen("<=3.8")[0].minor == "3.8"
    assert "is not on this machine" in chosen(">3.98")[0].note


def test_an_index_that_is_away_is_named_and_no_package_blamed(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}/simple"
        away = VenvBuilder(
            tmp_path, NONE, PackageConfiguration({"UV_HTTP_RETRIES": "0"}), guard=AddressGuard.of_setting("127.0.0.1=environments")
        )
        with pytest.raises(Invalid, match=f"cannot be resolved: {address}/six/ cannot be reached"):
            away.lock(Requirements(("six",), sources=Sources(index_url=address)), lambda line: None)

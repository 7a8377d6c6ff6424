"""What a command installs: into its job's own folder, above the environment, and on record."""

from __future__ import annotations

import asyncio
import importlib.metadata
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import packaging
import pytest

from grounds import Ground, ThisPython
from modelyard.drivers.builder.configuration import PackageConfiguration
from modelyard.drivers.builder.interpreters import wheel_of_pip
from modelyard.ports.builder import Builder, Built

BASE = Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"


class Below(ThisPython):
    """The environment of the tests, with the interpreter that it was made with."""

    def __init__(self, links: Path) -> None:
        self.links = links

    def find(self, key: str) -> Built:
        built = super().find(key)
        return Built(key, built.python, built.readable, BASE, wheel_of_pip(BASE), {"find-links": str(self.links), "no-index": "true"})


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    made = Ground(tmp_path)
    (tmp_path / "links").mkdir()
    made.executor._builder = cast(Builder, Below(tmp_path / "links"))
    yield made
    asyncio.run(made.client.call("shutdown", all=True))


def offer(ground: Ground, name: str, version: str) -> None:
    """A wheel with a module that knows its version and a script."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"version = {version!r}\ndef main(): print('script of', version)\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n",
    }
    with zipfile.ZipFile(ground.root / "links" / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
        wheel.writestr(f"{info}/RECORD", "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"]))


def run(ground: Ground, name: str, command: str, **more: Any) -> tuple[str, list[str]]:
    """(log, what was installed)"""
    end = ground.run(name, command, **more)
    assert end.code == 0, ground.log(name)
    return ground.log(name), asyncio.run(ground.executor.collect(ground.job(name, command).id, {})).installed


def test_a_command_installs_packages_which_are_its_jobs_alone(ground: Ground) -> None:
    offer(ground, "demo", "1.0")
    log, installed = run(ground, "first", 'pip install -q demo && demo && python -c "import demo; print(demo.version)"')
    assert log.splitlines()[-2:] == ["script of 1.0", "1.0"] and installed == ["demo==1.0"]
    log, installed = run(ground, "second", 'python -c "import demo" || echo absent')
    assert log.endswith("absent\n") and installed == []


def test_a_package_of_the_environment_is_found_and_may_be_had_in_another_version(ground: Ground) -> None:
    """Above what is there: what suits is not installed again, what does not is shadowed, and the environment stays as it is."""
    offer(ground, "iniconfig", "99.0")
    offer(ground, "packaging", "99.0")
    show = 'python -c "import iniconfig, packaging; print(iniconfig.version, packaging.__version__)"'
    log, installed = run(ground, "job", f"pip install -q 'iniconfig>=99' packaging && {show}")
    assert log.splitlines()[-1] == f"99.0 {packaging.__version__}" and installed == ["iniconfig==99.0"]
    assert importlib.metadata.version("iniconfig") != "99.0"


def test_a_script_installs_while_it_runs(ground: Ground) -> None:
    offer(ground, "demo", "1.0")
    script = 'import subprocess, sys; subprocess.check_call([sys.executable, "-m", "pip", "install", "-q", "demo"]); import demo; print(demo.version)'
    log, installed = run(ground, "job", f"python -c '{script}'")
    assert log.splitlines()[-1] == "1.0" and installed == ["demo==1.0"]


def test_a_job_that_repeats_another_installs_the_same_versions(ground: Ground) -> None:
    offer(ground, "demo", "1.0")
    offer(ground, "demo", "2.0")
    assert run(ground, "now", "pip install -q demo")[1] == ["demo==2.0"]
    assert run(ground, "again", "pip install -q demo", constraints=("demo==1.0",))[1] == ["demo==1.0"]


def test_names_that_a_command_made_up_are_no_packages(ground: Ground) -> None:
    made_up = "x-1.0.dist-info '-r evil-1.dist-info' 'a b-1.dist-info' x-1.0.txt"
    _, installed = run(ground, "job", f"cd $YARD_PACKAGES && mkdir -- {made_up} && touch ../x")
    assert installed == ["x==1.0"]
    _, installed = run(ground, "gone", "rm -rf $VIRTUAL_ENV/lib && ln -s / $VIRTUAL_ENV/lib")
    assert installed == []


def test_a_jobs_pip_has_the_operators_settings_without_their_secrets(tmp_path: Path) -> None:
    variables = {
        "PIP_INDEX_URL": "https://me:secret@index.example/simple", "UV_INDEX": "inner=https://u:p@inner.example/simple /srv/packages",
        "PIP_TRUSTED_HOST": "index.example", "HTTPS_PROXY": "http://u:p@proxy.example:3128", "PIP_CLIENT_CERT": "/etc/key.pem",
    }  # fmt: skip
    options = PackageConfiguration.read({**variables, "XDG_CONFIG_HOME": str(tmp_path)}, tmp_path).pip_options()
    assert options["index-url"] == "https://index.example/simple" and options["proxy"] == "http://proxy.example:3128"
    assert options["extra-index-url"] == "https://inner.example/simple /srv/packages" and "client-cert" not in options
    assert "secret" not in str(options) and "u:p" not in str(options)

"""Environments are built apart from the yard: what a hostile package, a hostile index and a kill do to a build."""

from __future__ import annotations

import ast
import functools
import http.server
import json
import os
import platform
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from grounds import NONE
from modelyard.core.errors import Invalid
from modelyard.drivers.builder.configuration import PackageConfiguration
from modelyard.drivers.builder.index import source_options
from modelyard.drivers.builder.interpreters import interpreters
from modelyard.drivers.builder.sandbox import FETCH_USER, FIRST_BUILD_USER, BuildSandbox, BuildStep
from modelyard.drivers.builder.venv import VenvBuilder
from modelyard.drivers.isolation import Isolation, program
from modelyard.ports.builder import Built, Lock, Requirements
from modelyard.spec.requirements import Sources, parse_requirements
from modelyard.testing.waiting import wait_for
from modelyard_runtime import protocol
from modelyard_runtime.protocol import BuildRequest, Confinement, Egress
from modelyard_runtime.supervision import build
from packages import CONFINED, builder_of, sdist, wheel

BACKEND = '''
import json, os, socket, subprocess, sys, zipfile
def attempts():
    found = {"uid": os.getuid(), "groups": os.getgroups(), "variables": sorted(os.environ), "home": os.environ["HOME"]}
    with open("/proc/self/status") as file:
        found["capabilities"] = next(line.split()[1] for line in file if line.startswith("CapEff"))
    def attempt(name, action):
        try:
            found[name] = repr(action())[:200]
        except OSError as error:
            pass
    targets = json.loads("""TARGETS""")
    for name, path in targets["read"].items():
        attempt("read " + name, lambda: open(path, "rb").read(20) if os.path.isfile(path) else os.listdir(path))
    for name, path in targets["write"].items():
        attempt("write " + name, lambda: open(os.path.join(path, "planted"), "w"))
    for port in targets["ports"]:
        attempt("connect", lambda: socket.create_connection(("127.0.0.1", port), 5))
    subprocess.Popen(["sleep", "1000"], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return found
def build_wheel(folder, settings=None, metadata=None):
    name = "hostile-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        files = {
            "hostile.py": "found = " + repr(attempts()), "hostile.pth": "import os; os.environ.get('x')\\n",
            "hostile-1.0.dist-info/METADATA": "Metadata-Version: 2.1\\nName: hostile\\nVersion: 1.0\\n",
            "hostile-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
        }
        for path, text in files.items():
            wheel.writestr(path, text)
        wheel.writestr("hostile-1.0.dist-info/RECORD", "".join(path + ",,\\n" for path in [*files, "hostile-1.0.dist-info/RECORD"]))
    return name
def get_requires_for_build_wheel(settings=None):
    return []
'''


def built(builder: VenvBuilder, *lines: str, said: list[str] | None = None) -> tuple[Lock, Built]:
    parsed = parse_requirements(lines)
    wanted = Requirements(tuple(map(str, parsed.packages)), sources=parsed.sources)
    log = said.append if said is not None else lambda line: None
    lock = builder.lock(wanted, log)
    return lock, builder.build(lock, log)


def installed(environment: Built, file: str) -> Path:
    return next(environment.python.parent.parent.glob(f"lib/python3*/site-packages/{file}"))


def processes_of(uid: int) -> list[str]:
    return [path.name for path in Path("/proc").glob("[0-9]*") if _owner(path) == uid]


def _owner(path: Path) -> int | None:
    try:
        return path.stat().st_uid
    except FileNotFoundError:
        return None


@pytest.mark.skipif(CONFINED.name == "none", reason="this machine keeps no build apart from the yard, and builds nothing from source")
def test_code_of_a_package_runs_confined_alone_and_never_as_root(tmp_path: Path, packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YARD_SECRET", "canary")
    (tmp_path / "control").mkdir(mode=0o700)
    (tmp_path / "control" / "master.key").write_text("the key")
    wheel(packages, "other", {"other.py": ""})
    builder = builder_of(tmp_path, UV_INDEX_PRIVATE_PASSWORD="hunter2")
    _, other = built(builder, "other")
    with socket.create_server(("127.0.0.1", 0)) as server:
        targets = {
            "read": {"key": str(tmp_path / "control/master.key"), "shadow": "/etc/shadow", "cache": str(builder.sandbox.cache)},
            "write": {"cache": str(builder.sandbox.cache), "other": str(other.python.parent.parent), "envs": str(tmp_path / "envs"), "packages": str(packages)},
            "ports": [server.getsockname()[1]],
        }  # fmt: skip
        sdist(packages, "hostile", BACKEND.replace("TARGETS", json.dumps(targets)))
        said: list[str] = []
        lock, environment = built(builder, "hostile", "other", said=said)
    assert lock.from_source == ("hostile",) and any("hostile has no wheel" in note for note in lock.notes)
    found = ast.literal_eval(installed(environment, "hostile.py").read_text().removeprefix("found = "))
    assert not [name for name in found if name.startswith(("read", "write", "connect"))], found
    assert int(str(found["capabilities"]), 16) == 0 and str(tmp_path / "envs/.scratch") in str(found["home"])
    assert not [name for name in found["variables"] if name.startswith(("YARD_", "UV_INDEX_")) or "SECRET" in name]
    if CONFINED.user:
        assert found["uid"] == FIRST_BUILD_USER and found["groups"] in ([], [FIRST_BUILD_USER])
        assert not processes_of(FIRST_BUILD_USER), "what a build leaves behind is ended"
    assert {path.lstat().st_uid for path in [environment.python.parent.parent, *environment.python.parent.parent.rglob("*")]} == {
        os.geteuid()
    }
    assert installed(environment, "hostile.py").stat().st_mode & 0o777 == 0o444
    assert not list((tmp_path / "envs/.scratch").iterdir())


@pytest.mark.skipif(not (CONFINED.user and CONFINED.namespace), reason="an ordinary user is had by root")
def test_an_ordinary_user_builds_from_source_under_landlock_in_a_network_of_its_own(tmp_path: Path, packages: Path) -> None:
    home = tmp_path / "home"
    for folder in (home, home / "packages", home / "control"):
        folder.mkdir()
    (home / "control/key").write_text("the key")
    with socket.create_server(("127.0.0.1", 0)) as server:
        targets = {"read": {"key": str(home / "control/key"), "home": str(home)}, "write": {"packages": str(home / "packages")}, "ports": [server.getsockname()[1]]}  # fmt: skip
        sdist(home / "packages", "hostile", BACKEND.replace("TARGETS", json.dumps(targets)))
        for path in (home, *home.rglob("*")):
            os.chown(path, 54_321, 54_321)
        script = (
            "import os, sys\nfrom pathlib import Path\n"
            f"sys.path.insert(0, {str(Path(__file__).parent.parent)!r}); sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            "import packages, test_builds\n"
            f"home = Path({str(home)!r}); isolation = packages.detect(home, 'auto'); assert not isolation.user and os.getuid() == 54321\n"
            "lock, environment = test_builds.built(test_builds.builder_of(home, isolation), 'hostile')\n"
            "print(test_builds.installed(environment, 'hostile.py').read_text().removeprefix('found = '))\n"
        )
        readable = [sys.prefix, sys.base_prefix, str(Path(__file__).parents[2])]
        confinement = home / "confinement.json"
        confinement.write_text(json.dumps(protocol.document(Confinement([str(home)], readable, 54_321, namespace=True))))
        done = subprocess.run(
            [*program("sandbox", str(confinement), "--", sys.executable, "-c", script)], capture_output=True, text=True, cwd="/",
            env={"PATH": os.environ["PATH"], "HOME": str(home)},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = ast.literal_eval(done.stdout.splitlines()[-1])
    assert not [name for name in found if name.startswith(("read", "write", "connect"))], found
    assert found["uid"] == 54_321


def test_nothing_is_built_from_source_where_it_would_run_beside_the_yard(tmp_path: Path, packages: Path) -> None:
    sdist(packages, "hostile", "raise SystemExit('it ran')")
    builder = builder_of(tmp_path, NONE)
    with pytest.raises(Invalid, match="hostile"):
        built(builder, "hostile")
    with pytest.raises(Invalid, match="hostile would be built from source"):
        builder.build(Lock(f"3.{sys.version_info[1]}", "hostile==1.0", "0" * 24, from_source=("hostile",)), lambda line: None)


def test_a_build_that_is_killed_leaves_nothing_that_counts(tmp_path: Path, packages: Path) -> None:
    """At each of its stages, though the package brings a mark of completion of its own."""
    wheel(packages, "plain", {"plain.py": "", "plain-1.0.data/data/.complete": ""})
    builder = builder_of(tmp_path)
    lock = builder.lock(Requirements(("plain",)), lambda line: None)
    for stage in ("_install", "_close", "_add_shims"):
        child = os.fork()
        if child == 0:
            done = getattr(builder, stage)
            setattr(builder, stage, lambda *arguments, done=done: (done(*arguments), os._exit(9)))
            builder.build(lock, lambda line: None)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 9 << 8
        assert (tmp_path / "envs" / lock.key / ".complete").exists()
        assert builder.find(lock.key) is None, stage
    again = builder_of(tmp_path)
    assert not list((tmp_path / "envs/.scratch").iterdir()), "what the killed ones left is removed at the next start"
    environment = again.build(lock, lambda line: None)
    assert again.find(lock.key) == environment
    assert json.loads((environment.python.parent.parent / ".complete").read_text())["python"]


def test_a_server_that_is_killed_takes_the_build_with_it(tmp_path: Path) -> None:
    sandbox = BuildSandbox(tmp_path, CONFINED, PackageConfiguration(cache=tmp_path / "cache"))
    server = os.fork()
    if server == 0:
        with sandbox.workplace() as place:
            step = BuildStep(["/bin/sh", "-c", "echo $$ > started; exec sleep 1000"])
            sandbox.run(place, [step], python=Path(sys.base_prefix))
        os._exit(0)
    started = wait_for(lambda: next(tmp_path.glob(".scratch/*/started"), None), 30, "the step")
    pid = int(wait_for(started.read_text, 10, "its pid"))
    os.kill(server, 9)
    os.waitpid(server, 0)
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), 30, "the end of the build")


def test_what_the_yard_knows_of_an_environment_no_package_decides(tmp_path: Path, packages: Path) -> None:
    """A package that exchanges the interpreter for a link would open the folder behind it to whoever uses the environment."""
    wheel(packages, "plain", {"plain.py": ""})
    builder = builder_of(tmp_path)
    _, environment = built(builder, "plain")
    secret = tmp_path / "control" / "bin" / "python"
    secret.parent.mkdir(parents=True)
    secret.touch()
    environment.python.unlink()
    environment.python.symlink_to(secret)
    found = builder.find(environment.key)
    assert found is not None and found.readable == environment.readable and tmp_path / "control" not in found.readable
    # One of an earlier version has an empty mark.
    (environment.python.parent.parent / ".complete").write_text("")
    (environment.python.parent.parent / ".complete").chmod(0o644)
    assert builder.find(environment.key) is None


def test_what_a_package_makes_of_its_environment_is_not_followed(tmp_path: Path, packages: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    wheel(packages, "plain", {"plain.py": ""})
    for change in ("pipe", "link", "hard link"):
        builder = builder_of(tmp_path)
        lock = builder.lock(Requirements(("plain",)), lambda line: None)
        install = builder._install

        def hostile(folder: Path, *arguments: object, install: object = install, change: str = change) -> None:
            install(folder, *arguments)  # type: ignore[operator]
            site = next(folder.glob("lib/python3*/site-packages"))
            if change == "pipe":
                os.mkfifo(site / "pipe")
            elif change == "hard link":
                os.link(tmp_path / "packages/plain-1.0-py3-none-any.whl", site / "stolen")
            else:
                site.rename(site.with_name("old"))
                site.symlink_to(outside)

        builder._install = hostile  # type: ignore[method-assign, assignment]
        with pytest.raises(Invalid, match="cannot be kept"):
            builder.build(lock, lambda line: None)
        assert builder.find(lock.key) is None and not list(outside.iterdir())


# Addresses


class _Quiet(http.server.SimpleHTTPRequestHandler):
    heard: list[str] = []

    def log_message(self, *arguments: object) -> None:
        self.heard.append(f"{self.server.server_port} {self.path}")  # type: ignore[attr-defined]


@contextmanager
def index(folder: Path) -> Iterator[int]:
    """An index on the loopback: a folder a package."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    _Quiet.heard.clear()
    yield server.server_port
    server.shutdown()
    server.server_close()


def indexed(folder: Path, name: str) -> Path:
    (folder / name).mkdir(parents=True)
    return wheel(folder / name, name, {f"{name}.py": ""})


def test_an_environments_addresses_lead_to_nothing_private_unless_the_operator_opens_it(tmp_path: Path, packages: Path) -> None:
    indexed(tmp_path / "index", "inside")
    with index(tmp_path / "index") as port:
        at = f"http://127.0.0.1:{port}"
        for lines in (
            [f"--index-url {at}", "inside"], [f"--extra-index-url {at}", "inside"], [f"--find-links {at}/inside/", "inside"],
            [f"inside @ {at}/inside/inside-1.0-py3-none-any.whl"], [f"--index-url http://2130706433:{port}", "inside"],
            [f"--index-url http://[::ffff:127.0.0.1]:{port}", "inside"],
        ):  # fmt: skip
            with pytest.raises(Invalid) as refused:
                built(builder_of(tmp_path), *lines)
            assert refused.value.code == "private_address" and "allow_addresses" in str(refused.value.hint)
        assert _Quiet.heard == []
        opened = builder_of(tmp_path, allow=f"127.0.0.1:{port}=environments")
        _, environment = built(opened, f"--index-url {at}", "inside")
        assert installed(environment, "inside.py") and _Quiet.heard
        with pytest.raises(Invalid) as refused:
            built(builder_of(tmp_path, allow=f"127.0.0.1:{port}=data"), f"--index-url {at}", "inside")
        assert refused.value.code == "private_address"


def test_where_an_index_leads_to_is_judged_again(tmp_path: Path, packages: Path) -> None:
    """By a link, and by a redirect: the second server hears nothing."""
    (tmp_path / "secret").mkdir()
    wheel(tmp_path / "secret", "inside", {"inside.py": ""})

    class Redirecting(_Quiet):
        def do_GET(self) -> None:
            if self.path == "/linked/inside/":
                body = f'<a href="http://127.0.0.1:{secret}/inside-1.0-py3-none-any.whl">inside-1.0-py3-none-any.whl</a>'.encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            else:
                self.send_response(302)
                self.send_header("Location", f"http://127.0.0.1:{secret}/")
                self.end_headers()

    with index(tmp_path / "secret") as secret:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Redirecting)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            for path in ("linked", "redirected"):
                builder = builder_of(tmp_path, allow=f"127.0.0.1:{server.server_port}")
                with pytest.raises(Invalid) as refused:
                    built(builder, f"--index-url http://127.0.0.1:{server.server_port}/{path}", "inside")
                assert refused.value.code == "private_address" and f"port {secret} " in refused.value.message
        finally:
            server.shutdown()
            server.server_close()
        assert _Quiet.heard and not [line for line in _Quiet.heard if line.startswith(f"{secret} ")]


def test_the_operators_own_index_works_on_the_loopback_and_as_a_folder(tmp_path: Path, packages: Path) -> None:
    indexed(tmp_path / "index", "inside")
    with index(tmp_path / "index") as port:
        _, environment = built(builder_of(tmp_path, UV_DEFAULT_INDEX=f"http://127.0.0.1:{port}"), "inside")
        assert installed(environment, "inside.py") and _Quiet.heard
        with pytest.raises(Invalid) as refused:
            built(
                builder_of(tmp_path, UV_DEFAULT_INDEX=f"http://127.0.0.1:{port}"),
                f"--index-url http://127.0.0.1:{port}",
                "inside",
            )
        assert refused.value.code == "private_address", "a user may not name what the operator may"
    wheel(packages, "folder", {"folder.py": ""})
    (tmp_path / "index/folder").mkdir()
    (packages / "folder-1.0-py3-none-any.whl").rename(tmp_path / "index/folder/folder-1.0-py3-none-any.whl")
    (tmp_path / "index/folder/index.html").write_text('<a href="folder-1.0-py3-none-any.whl">folder-1.0-py3-none-any.whl</a>')
    _, environment = built(builder_of(tmp_path, UV_DEFAULT_INDEX=f"file://{tmp_path}/index"), "folder")
    assert installed(environment, "folder.py")


def test_the_operators_folder_of_packages_is_used_at_every_step_beside_a_users(tmp_path: Path, packages: Path) -> None:
    wheel(packages, "here", {"here.py": ""})
    indexed(tmp_path / "index", "there")
    with index(tmp_path / "index") as port:
        builder = builder_of(tmp_path, allow=f"127.0.0.1:{port}")
        _, environment = built(builder, f"--find-links http://127.0.0.1:{port}/there/", "here", "there")
    assert installed(environment, "here.py") and installed(environment, "there.py")
    machine = {"UV_FIND_LINKS": "/a,/b", "UV_INSECURE_HOST": "x"}
    assert source_options(machine, Sources(find_links=("https://c/",))) == [
        "--find-links=/a",
        "--find-links=/b",
        "--find-links=https://c/",
    ]
    assert source_options(machine, Sources()) == []


CONNECTS = """
import os, socket, sys, urllib.request
way = urllib.request.getproxies()["http"].rpartition(":")[2]
socket.create_connection(("127.0.0.1", int(way)), 5).close()
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5)
except OSError as error:
    sys.exit(0 if error.errno in (13, 111) else 2)
sys.exit(1)
"""


@pytest.mark.parametrize("private", [True, False])
def test_a_build_connects_to_its_way_out_alone(private: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no private network can be made, Landlock leaves it the port of the way out."""
    if not (CONFINED.network if private else CONFINED.landlock >= 4):
        pytest.skip("this kernel does not have it")
    server, alive = socket.create_server(("127.0.0.1", 0)), os.pipe()
    step = BuildStep([sys.executable, "-I", "-c", CONNECTS, str(server.getsockname()[1])])
    confinement = Confinement([str(tmp_path)], [sys.prefix, sys.base_prefix], landlock=CONFINED.landlock > 0)
    request = BuildRequest([step], dict(os.environ), str(tmp_path), Egress([]), 60, confinement)
    child = os.fork()
    if child == 0:
        os.dup2(alive[0], 0)
        if not private:
            monkeypatch.setattr(build.sandbox, "private_network", lambda: os.stat("/there/is/none"))
        os._exit(build.run(request))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    server.close()


# The operator's configuration


def test_the_operators_configuration_is_all_that_reaches_a_build(tmp_path: Path) -> None:
    (tmp_path / ".config/pip").mkdir(parents=True)
    (tmp_path / ".config/uv").mkdir()
    (tmp_path / ".config/pip/pip.conf").write_text(
        "[global]\nindex-url = https://pip.example/simple\nfind-links = /wheels\n  file:///more\n"
    )
    (tmp_path / ".config/uv/uv.toml").write_text(
        'cache-dir = "/big/cache"\n[[index]]\nname = "own"\nurl = "https://me:pass@uv.example:8443/simple"\n[[index]]\nurl = "http://127.0.0.1:3141/"\ndefault = true\n'
    )
    environment = {
        "PIP_CERT": "/etc/cert.pem",
        "PIP_CLIENT_CERT": "/me.pem",
        "UV_INDEX_OWN_PASSWORD": "p",
        "AWS_SECRET_ACCESS_KEY": "s",
        "HTTPS_PROXY": "http://out:3128",
        "UV_PYTHON": "3",
    }
    read = PackageConfiguration.read(environment, tmp_path)
    with_credentials = read.variables(credentials=True)
    assert with_credentials["UV_DEFAULT_INDEX"] == "http://127.0.0.1:3141/", "uv's own configuration comes before pip's"
    assert with_credentials["UV_INDEX"] == "own=https://me:pass@uv.example:8443/simple" and with_credentials["UV_INDEX_OWN_PASSWORD"] == "p"
    assert set(with_credentials) == {
        "UV_DEFAULT_INDEX",
        "UV_INDEX",
        "UV_FIND_LINKS",
        "UV_INDEX_OWN_PASSWORD",
        "SSL_CERT_FILE",
        "SSL_CLIENT_CERT",
        "UV_INDEX_STRATEGY",
    }
    without = read.variables(credentials=False)
    assert without["UV_INDEX"] == "own=https://uv.example:8443/simple" and "UV_INDEX_OWN_PASSWORD" not in without
    assert set(map(str, read.paths(credentials=True))) == {"/wheels", "/more", "/etc/cert.pem", "/me.pem"}
    assert set(map(str, read.paths(credentials=False))) == {"/wheels", "/more", "/etc/cert.pem"}
    assert {str(entry) for entry in read.addresses()} == {"127.0.0.1:3141=environments", "uv.example:8443=environments"}
    assert read.proxies == {"https_proxy": "http://out:3128"} and read.cache == Path("/big/cache")


def test_downloads_belong_to_a_user_that_runs_no_code_of_packages(tmp_path: Path, packages: Path) -> None:
    wheel(packages, "plain", {"plain.py": ""})
    builder = builder_of(tmp_path)
    _, environment = built(builder, "plain")
    cached = next(builder.sandbox.cache.rglob("plain.py"))
    assert cached.stat().st_uid == (FETCH_USER if CONFINED.user else os.geteuid())
    assert cached.stat().st_ino != installed(environment, "plain.py").stat().st_ino, "an environment shares no file with the cache"
    assert builder.sandbox.cache.stat().st_mode & 0o777 == 0o700


def test_a_folder_of_interpreters_that_cannot_be_read_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Such as root's, which `setpriv` and `sudo -E` leave in the variables of another user."""
    plain = Path.glob

    def glob(self: Path, pattern: str) -> Any:
        if self.is_relative_to(tmp_path):
            raise PermissionError(13, "Permission denied", str(self))
        return plain(self, pattern)

    monkeypatch.setattr(Path, "glob", glob)
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert sys.version_info[:2] in interpreters.__wrapped__(str(tmp_path))


@pytest.fixture
def only_this_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("PYENV_ROOT", "HOME", "PATH"):
        monkeypatch.setenv(name, str(tmp_path))
    interpreters.cache_clear()
    yield
    interpreters.cache_clear()


def fetching(tmp_path: Path, *, allowed: bool) -> tuple[VenvBuilder, str]:
    """A builder, and a version that only a mirror has: a program that says it is that Python."""
    wanted = f"3.{sys.version_info[1] - 2}"
    mirror = tmp_path / "mirror"
    (mirror / "python/bin").mkdir(parents=True)
    program = mirror / f"python/bin/python{wanted}"
    program.write_text(f"#!/bin/sh\necho 3 {wanted.partition('.')[2]} {wanted}.99 cpython\n")
    program.chmod(0o755)
    with tarfile.open(mirror / "python.tar.gz", "w:gz") as archive:
        archive.add(mirror / "python", "python")
    downloads = {
        f"cpython-{wanted}.99-linux-{platform.machine()}-gnu": {
            "name": "cpython", "arch": {"family": platform.machine(), "variant": None}, "os": "linux", "libc": "gnu", "major": 3,
            "minor": int(wanted.partition(".")[2]), "patch": 99, "prerelease": "", "url": f"file://{mirror}/python.tar.gz", "sha256": None,
            "variant": None, "build": "1",
        }
    }  # fmt: skip
    (mirror / "downloads.json").write_text(json.dumps(downloads))
    settings = {"UV_PYTHON_DOWNLOADS_JSON_URL": f"file://{mirror}/downloads.json", "UV_FIND_LINKS": str(mirror)}
    configuration = PackageConfiguration(settings, cache=tmp_path / "cache")
    folder = tmp_path / "envs"
    folder.mkdir(mode=0o755)
    return VenvBuilder(folder, Isolation(False, False, 0), configuration, fetch_pythons=allowed), wanted


def test_a_python_that_is_missing_is_fetched_where_the_operator_lets_it_be(tmp_path: Path, only_this_python: None) -> None:
    builder, wanted = fetching(tmp_path, allowed=True)
    (fetched,) = builder.pythons.candidates(Requirements((), wanted), lambda line: None)
    assert fetched.full == f"{wanted}.99" and fetched.note == "" and fetched.path.is_relative_to(tmp_path / "envs")
    nearest = builder.pythons.candidates(Requirements((), "3.99"), lambda line: None)[0]
    assert nearest.note.startswith("Python 3.99 is not on this machine and could not be fetched (")
    assert f"Python {nearest.full} is used" in nearest.note


def test_no_python_is_fetched_unless_the_operator_says_so(tmp_path: Path, only_this_python: None) -> None:
    builder, wanted = fetching(tmp_path, allowed=False)
    said: list[str] = []
    nearest = builder.pythons.candidates(Requirements((), wanted), said.append)[0]
    assert nearest.note.startswith(f"Python {wanted} is not on this machine; Python") and said == []

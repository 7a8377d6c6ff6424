"""Environments as shared virtual environments made by uv, one per lock, under `envs/<key>`.

Only wheels are installed, and nothing of a package runs while it is built: once its packages are in it, an environment's own Python,
which runs what their `.pth` files say, is never started here, but the machine's Python of the same version. The user's own pip and uv configuration
(index, find-links, certificates) is honoured. A build is complete once `.complete` is there; anything else is redone.
"""

from __future__ import annotations

import configparser
import copy
import fcntl
import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from packaging.specifiers import SpecifierSet

from ...core import trees
from ...core.errors import Invalid, Unavailable
from ...ports.builder import Built, Lock, Requirements
from ...spec.requirements import Package, Sources, parse_package
from ..isolation import RUNTIME

SERVING_PACKAGES = ("httptools>=0.6,<1", "uvloop>=0.19,<1", "orjson>=3.9,<4", "werkzeug>=3,<4")
Log = Callable[[str], None]


class VenvBuilder:
    """Implements Builder."""

    def __init__(self, root: Path, wrap: Callable[[list[str], list[Path]], list[str]], extra_pythons: str = "") -> None:
        self.root = root
        self._wrap = wrap
        """Turns a command and the folders it may write into one that runs in the sandbox."""
        self._extra_pythons = extra_pythons

    def lock(self, requirements: Requirements, log: Log) -> Lock:
        python, version, note = self._interpreter(requirements.python)
        notes = [note] if note else []
        packages = [parse_package(line) for line in requirements.packages]
        constraints = [parse_package(line) for line in requirements.constraints]
        log(f"resolving {len(packages)} requirements for Python {version}")
        resolution = _compile(python, packages, requirements.sources, constraints)
        if resolution.returncode != 0 and note:
            # Pins of another Python, which is not here: what has no wheel for this one is taken in the next release that has.
            nearest, changed = _nearest(python, requirements.sources, packages)
            relaxed = _compile(python, nearest, requirements.sources, constraints) if changed else resolution
            if relaxed.returncode == 0:
                resolution = relaxed
                notes += [f"{old} has no wheel for Python {version}: it is {new}" for old, new in changed]
        if resolution.returncode != 0:
            raise Invalid(
                "the environment cannot be resolved:\n" + _readable(resolution.stderr),
                code="unresolvable_environment",
                hint="Change the packages named above; only packages with a wheel for this machine can be installed.",
            )
        pinned = "\n".join(
            sorted(_with_hashes(line.strip(), (*packages, *constraints)) for line in resolution.stdout.splitlines() if line.strip())
        )
        text = "\n".join((f"{version} {platform.machine()} {sys.platform}", pinned, "\n".join(requirements.sources.lines())))
        return Lock(version, pinned, hashlib.sha256(text.encode()).hexdigest()[:24], tuple(notes), requirements.sources)

    def find(self, key: str) -> Built | None:
        folder = self.root / key
        if not re.fullmatch(r"[0-9a-f]{24}", key) or not (folder / ".complete").exists():
            return None
        python = folder / "bin" / "python"
        base = python.resolve()
        if not base.exists():
            return None
        return Built(key, python, (folder, *_base_folders(base)))

    def build(self, lock: Lock, log: Log) -> Built:
        folder = self.root / lock.key
        with self._exclusive(lock.key):
            built = self.find(lock.key)
            if built is not None:
                return built
            shutil.rmtree(folder, ignore_errors=True)
            python, _, _ = self._interpreter(lock.python)
            log(f"building environment {lock.key}: {len(lock.packages.splitlines())} packages, Python {lock.python}")
            self._run([_uv(), "venv", "--quiet", "--python", str(python), str(folder)], folder, log)
            if lock.packages:
                requirements = folder / "requirements.txt"  # inside, where a confined build may read it
                requirements.write_text(_written(parse_package(line) for line in lock.packages.splitlines()))
                self._run(
                    [
                        _uv(), "pip", "install", "--python", str(folder / "bin" / "python"), "--only-binary", ":all:",
                        "--no-deps", *_source_options(lock.sources), "-r", str(requirements),
                    ],
                    folder,
                    log,
                )  # fmt: skip
                requirements.unlink()
                self._compile(python, folder)
            self._add_shims(folder)
            trees.replace(folder / "lock.txt", f"{lock.packages}\n".encode(), 0o644)
            self._complete(folder)
        done = self.find(lock.key)
        if done is None:
            raise Unavailable(f"environment {lock.key} vanished while it was built", code="build_failed", hint="Try again.")
        return done

    @staticmethod
    def _add_shims(folder: Path) -> None:
        """The yard's `mltable`, where the genuine one is not installed. What scoring scripts import is the model server's to bring."""
        target = next((folder / "lib").glob("python3*/site-packages")) / "mltable"
        if not target.exists():
            shutil.copytree(RUNTIME / "shims" / "mltable", target, ignore=shutil.ignore_patterns("__pycache__"))

    def serving_kit(self, built: Built) -> Path:
        base = built.python.resolve()
        known = re.fullmatch(r"python(\d+\.\d+)", base.name)
        versions = [f"{major}.{minor}" for (major, minor), (path, _) in _interpreters(self._extra_pythons).items() if path == base]
        version = known[1] if known else next(iter(versions), "")
        if not version:
            raise Unavailable(f"the Python {base} of environment {built.key} is not known here", code="python_not_found")
        kit = self.root / f"serving-{version}-{_digest(SERVING_PACKAGES)}"
        with self._exclusive(kit.name):
            if not (kit / ".complete").exists():
                shutil.rmtree(kit, ignore_errors=True)
                command = [
                    _uv(), "pip", "install", "--quiet", "--python", str(base), "--target", str(kit),
                    "--only-binary", ":all:", "--compile-bytecode", *SERVING_PACKAGES,
                ]  # fmt: skip
                self._run(command, kit, lambda line: None)
                self._complete(kit)
        return kit

    @staticmethod
    def _complete(folder: Path) -> None:
        # Everything reaches the disk before the mark does: a power cut never leaves a marked but torn environment.
        os.sync()
        # In place of a file of this name that a package may bring, which uv links to its cache.
        trees.replace(folder / ".complete", b"")
        os.sync()

    def _compile(self, python: Path, folder: Path) -> None:
        """Compile the packages; a file that cannot be is compiled by whoever imports it."""
        command = [str(python), "-I", "-m", "compileall", "-qq", "-j", "0", str(folder / "lib")]
        subprocess.run(self._wrap(command, [folder]), capture_output=True, env=_uv_environment(), cwd="/")

    def _run(self, command: list[str], folder: Path, log: Log) -> None:
        cache = Path(
            subprocess.run([_uv(), "cache", "dir"], capture_output=True, text=True, env=_uv_environment()).stdout.strip() or "/nonexistent"
        )
        cache.mkdir(parents=True, exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        if "venv" in command:
            command = [*command, "--clear"]
        wrapped = self._wrap(command, [folder, cache])
        # Not where the server was started: uv would read a project's settings there, or fail to.
        output: list[str] = []
        with subprocess.Popen(
            wrapped, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=_uv_environment(), cwd="/"
        ) as process:  # fmt: skip
            assert process.stdout is not None
            for line in process.stdout:
                output.append(line.rstrip())
                log(line.rstrip())
        if process.returncode != 0:
            shutil.rmtree(folder, ignore_errors=True)
            raise Invalid(
                "the environment cannot be built:\n" + _readable("\n".join(output)),
                code="build_failed",
                hint="The lines above name the package.",
            )

    @contextmanager
    def _exclusive(self, key: str) -> Iterator[None]:
        with _THREAD_LOCKS.setdefault(key, threading.Lock()), (self.root / f".{key}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _interpreter(self, requested: str) -> tuple[Path, str, str]:
        """(path, full version, note): an interpreter of the requested minor version, else the nearest, with a line about it."""
        interpreters = _interpreters(self._extra_pythons)
        minor = tuple(int(part) for part in requested.split(".")[:2]) if re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3})*", requested) else ()
        if len(minor) < 2:
            own_version = sys.version_info[:2]
            path, full = interpreters[own_version]
            return path, full, ""
        if minor in interpreters:
            path, full = interpreters[(minor[0], minor[1])]
            return path, full, ""
        nearest = min(interpreters, key=lambda candidate: (abs(candidate[1] - minor[1]), -candidate[1]))
        path, full = interpreters[nearest]
        return path, full, f"Python {requested} is not on this machine; Python {full} is used"


def _compile(
    python: Path, packages: Sequence[Package], sources: Sources, constraints: Sequence[Package] = (), *options: str
) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as folder:
        limits = Path(folder) / "constraints.txt"
        limits.write_text(_written(constraints))
        command = [
            _uv(), "pip", "compile", "-", "--python", str(python), "--only-binary", ":all:", "--constraints", str(limits),
            "--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links", "--quiet",
            *_source_options(sources), *options,
        ]  # fmt: skip
        return subprocess.run(command, input=_written(packages), capture_output=True, text=True, env=_uv_environment(), cwd="/")


def _written(packages: Iterable[Package]) -> str:
    """A requirements file of nothing but what was parsed."""
    return "".join(f"{package}\n" for package in packages)


def _source_options(sources: Sources) -> list[str]:
    """As arguments of uv, each one word. An option replaces the variable of the same meaning, so what the machine's
    configuration says goes along; only `--index-url` takes its place, as in pip."""
    machine = _uv_environment()
    links, hosts = machine.get("UV_FIND_LINKS", "").split(","), machine.get("UV_INSECURE_HOST", "").split()
    options = [f"--default-index={sources.index_url}"] if sources.index_url else []
    options += [f"--extra-index-url={url}" for url in sources.extra_index_urls]
    if sources.find_links:
        options += [f"--find-links={link}" for link in (*links, *sources.find_links) if link]
    if sources.trusted_hosts:
        options += [f"--allow-insecure-host={host}" for host in (*hosts, *sources.trusted_hosts)]
    if sources.no_index:
        options.append("--no-index")
    if sources.pre:
        options.append("--prerelease=allow")
    return options


def _with_hashes(line: str, packages: Sequence[Package]) -> str:
    """A line of the lock with the hashes that the definition asks for; uv leaves them out."""
    pinned = parse_package(line)
    hashes = dict.fromkeys(value for package in packages if package.name == pinned.name for value in package.hashes)
    return str(replace(pinned, hashes=tuple(hashes))) if hashes else line


def _nearest(python: Path, sources: Sources, packages: Sequence[Package]) -> tuple[list[Package], list[tuple[str, str]]]:
    """The packages, pins without a wheel for this Python replaced by the lowest later release that has one; and which were."""
    nearest, changed = [], []
    for package in packages:
        later = _or_later(package)
        if later is not None and _compile(python, [package], sources, (), "--no-deps").returncode != 0:
            lowest = _compile(python, [later], sources, (), "--no-deps", "--resolution", "lowest").stdout.strip().splitlines()
            if lowest:
                changed.append((str(package), lowest[-1]))
                package = parse_package(lowest[-1])
        nearest.append(package)
    return nearest, changed


def _or_later(package: Package) -> Package | None:
    """`>=1.2` for a plain pin `==1.2` or `==1.2.*`, else None. What has hashes is that file or none."""
    specifiers = list(package.requirement.specifier)
    if len(specifiers) != 1 or specifiers[0].operator != "==" or package.hashes or package.requirement.marker:
        return None
    later = copy.copy(package.requirement)
    later.specifier = SpecifierSet(f">={specifiers[0].version.removesuffix('.*')}")
    return Package(later)


_THREAD_LOCKS: dict[str, threading.Lock] = {}


def _uv() -> str:
    import uv

    return uv.find_uv_bin()


@functools.cache
def _interpreters(extra: str) -> dict[tuple[int, int], tuple[Path, str]]:
    """Every CPython 3.8+ found: this one, then those of the PATH, of pyenv and of uv, newest patch first."""
    interpreters: dict[tuple[int, int], tuple[Path, str]] = {}
    own = Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    folders = [Path(folder) for folder in [*extra.split(":"), *os.environ.get("PATH", "").split(":")] if folder]
    candidates = [own, Path(sys.executable)]
    for folder in folders:
        if "shims" not in folder.parts:
            candidates += sorted(folder.glob("python3.[0-9]*"))
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    candidates += sorted(pyenv.glob("3.*/bin/python3.[0-9]*"), reverse=True)
    candidates += sorted((Path.home() / ".local/share/uv/python").glob("cpython-3*/bin/python3.[0-9]*"), reverse=True)
    seen: set[Path] = set()
    for candidate in candidates:
        if not re.fullmatch(r"python(3(\.\d+)?)?", candidate.name) or not os.access(candidate, os.X_OK):
            continue
        real = candidate.resolve()
        if real in seen:
            continue
        seen.add(real)
        named = re.search(r"(\d+)\.(\d+)$", candidate.name)
        if named and (int(named[1]), int(named[2])) in interpreters:
            continue
        code = "import sys,platform; print(sys.version_info[0],sys.version_info[1],platform.python_version(),sys.implementation.name)"
        done = subprocess.run([str(real), "-I", "-c", code], capture_output=True, text=True)
        parts = done.stdout.split()
        if done.returncode == 0 and len(parts) == 4 and parts[3] == "cpython" and (int(parts[0]), int(parts[1])) >= (3, 8):
            interpreters.setdefault((int(parts[0]), int(parts[1])), (real, parts[2]))
    return interpreters


def _digest(packages: tuple[str, ...]) -> str:
    return hashlib.sha256("\n".join(packages).encode()).hexdigest()[:8]


def _base_folders(python: Path) -> tuple[Path, ...]:
    """What of the base interpreter a process must read: its prefix."""
    return (python.parent.parent,) if python.parent.name == "bin" else (python.parent,)


@functools.cache
def _uv_environment_cached(key: tuple[tuple[str, str], ...]) -> dict[str, str]:
    environment = dict(key)
    pip = _pip_configuration(environment)

    def carry(option: str, target: str, join: str = " ") -> None:
        value = pip.get(option)
        if value and target not in environment:
            environment[target] = join.join(value.split())

    carry("index-url", "UV_DEFAULT_INDEX")
    carry("extra-index-url", "UV_INDEX")
    carry("find-links", "UV_FIND_LINKS", ",")
    carry("trusted-host", "UV_INSECURE_HOST")
    if "UV_INDEX" in environment and "UV_INDEX_STRATEGY" not in environment:
        environment["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # what pip does with several indexes
    if pip.get("cert") and "SSL_CERT_FILE" not in environment:
        environment["SSL_CERT_FILE"] = pip["cert"]
    environment["UV_NO_PROGRESS"] = "1"
    environment["UV_PYTHON_DOWNLOADS"] = "never"
    return environment


def _uv_environment() -> dict[str, str]:
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("YARD_", "MLFLOW_")) and k not in ("VIRTUAL_ENV", "PYTHONPATH")}
    return _uv_environment_cached(tuple(sorted(keep.items())))


def _pip_configuration(environment: dict[str, str]) -> dict[str, str]:
    """pip's own settings, in its order: files from the machine's to the environment's, then PIP_ variables."""
    files = [Path("/etc/pip.conf"), Path("/etc/xdg/pip/pip.conf"), Path.home() / ".pip/pip.conf"]
    files += [Path(environment.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "pip/pip.conf", Path(sys.prefix) / "pip.conf"]
    if environment.get("PIP_CONFIG_FILE"):
        files.append(Path(environment["PIP_CONFIG_FILE"]))
    merged: dict[str, str] = {}
    for file in files:
        parser = configparser.RawConfigParser()
        try:
            parser.read(file)
        except (configparser.Error, OSError):
            continue
        for section in ("global", "install"):
            if parser.has_section(section):
                merged.update(parser.items(section))
    for name, value in environment.items():
        if name.startswith("PIP_") and value:
            merged[name.removeprefix("PIP_").lower().replace("_", "-")] = value
    return merged


def _readable(text: str) -> str:
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in text.splitlines()]
    keep = [line for line in lines if line and not line.lower().startswith(("warning:", "using python", "resolved "))]
    return "\n".join("  " + line for line in keep[-20:])

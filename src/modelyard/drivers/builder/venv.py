"""Environments as shared virtual environments made by uv, one per lock, under `envs/<key>`.

An environment is made at its final path, since it cannot be moved, by the user of the build; then the yard takes it over, read-only, and
writes `.complete`. While `.<key>.building` beside it is there it does not count, whatever is in it, so a kill at any instant costs a build
and nothing else. Packages come as wheels; what has none is built from source where code of packages can be run apart from the yard
(`sandbox`). The Python of an environment, which runs what packages' `.pth` files say, is started in such builds and by jobs alone: what
the yard knows of an environment it reads from files of its own.
"""

from __future__ import annotations

import copy
import fcntl
import hashlib
import json
import os
import platform
import re
import sys
import threading
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.specifiers import SpecifierSet

from modelyard_runtime.addresses import Allowed
from modelyard_runtime.files import sync_folder
from modelyard_runtime.protocol import BuildStep

from ...core import trees
from ...core.addresses import AddressGuard, refusal
from ...core.errors import Invalid, NotFound, Unavailable
from ...ports.builder import Built, Lock, Requirements
from ...spec.requirements import Package, Sources, parse_package
from ..isolation import RUNTIME, Isolation
from .configuration import PackageConfiguration, endpoint
from .interpreters import base_folder, interpreter, interpreters, version_of, wheel_of_pip
from .sandbox import BuildSandbox, Log, Workplace, uv

SERVING_PACKAGES = ("httptools>=0.6,<1", "uvloop>=0.19,<1", "orjson>=3.9,<4", "werkzeug>=3,<4")
PROBE = "packaging"
"""A package that every index has: where its file lies, files of the operator's indexes do."""
PROBE_S = 10
PURPOSE = "environments"
MOST_MARK = 1 << 16
PATH_OF_JOBS = (
    "import os, sys; p = os.environ.get('YARD_PACKAGES'); p and p not in sys.path and "
    "sys.path.insert(next((i for i, at in enumerate(sys.path) if at.endswith('site-packages')), len(sys.path)), p)\n"
)


@dataclass(frozen=True)
class Resolution:
    """How a resolution ended: the packages, each pinned, and the output of uv, which says why there are none."""

    pinned: tuple[str, ...] | None
    output: str
    refused: str = ""


class VenvBuilder:
    """Implements Builder."""

    def __init__(
        self, root: Path, isolation: Isolation, configuration: PackageConfiguration | None = None, guard: AddressGuard | None = None,
        extra_pythons: str = "", cache: str = "",
    ) -> None:  # fmt: skip
        self.root = root
        self.guard = guard or AddressGuard()
        configuration = configuration or PackageConfiguration.read(os.environ, Path.home())
        self.sandbox = BuildSandbox(root, isolation, configuration, self.guard.allowed, cache)
        self._extra_pythons = extra_pythons
        self._own_hosts: tuple[Allowed, ...] | None = None

    # Resolving

    def lock(self, requirements: Requirements, log: Log) -> Lock:
        python, version, note = interpreter(requirements.python, self._extra_pythons)
        notes = [note] if note else []
        packages = [parse_package(line) for line in requirements.packages]
        constraints = [parse_package(line) for line in requirements.constraints]
        sources = requirements.sources
        self._judge(sources, (*packages, *constraints))
        log(f"resolving {len(packages)} requirements for Python {version}")
        resolution = self._resolve(python, packages, sources, constraints)
        if resolution.pinned is None and note:
            # Pins of another Python, which is not here: what has no wheel for this one is taken in the next release that has.
            nearest, changed = self._nearest(python, sources, packages)
            relaxed = self._resolve(python, nearest, sources, constraints) if changed else resolution
            if relaxed.pinned is not None:
                resolution = relaxed
                notes += [f"{old} has no wheel for Python {version}: it is {new}" for old, new in changed]
        from_source: tuple[str, ...] = ()
        if resolution.pinned is None and self.sandbox.builds_source and not resolution.refused:
            log("not everything has a wheel: source distributions are looked at")
            built = self._resolve(python, packages, sources, constraints, from_source=True)
            if built.pinned is not None:
                resolution = built
                from_source = self._without_wheel(python, sources, built.pinned)
                notes += [f"{name} has no wheel for this machine and is built from source" for name in from_source]
            elif not built.refused:
                resolution = built
        if resolution.pinned is None:
            raise self._unresolvable(resolution)
        pinned = "\n".join(sorted(_with_hashes(line, (*packages, *constraints)) for line in resolution.pinned))
        text = "\n".join((f"{version} {platform.machine()} {sys.platform}", pinned, "\n".join(sources.lines())))
        if from_source:
            text += "\nfrom source: " + " ".join(from_source)
        return Lock(version, pinned, hashlib.sha256(text.encode()).hexdigest()[:24], tuple(notes), sources, from_source)

    def _judge(self, sources: Sources, packages: Iterable[Package]) -> None:
        """Every address that the definition names. Raises Invalid for one that is refused; what does not resolve here, the way out judges."""
        for url in _written_addresses(sources, packages):
            try:
                self.guard.judge(url, PURPOSE)
            except NotFound:
                continue
            except Invalid:
                if not self._is_own_index(url):
                    raise

    def _is_own_index(self, url: str) -> bool:
        """Whether an address is at a host of the operator's indexes, other than this machine."""
        try:
            AddressGuard().judge(url, PURPOSE, private=True)
        except Invalid:
            return False
        return endpoint(url) in (*self.sandbox.configuration.addresses(), *self._index_hosts())

    def _index_hosts(self) -> tuple[Allowed, ...]:
        """Where the operator's indexes and their files are, uv's own index included: asked for by the first guarded step, until answered."""
        if self._own_hosts is None:
            python = interpreters(self._extra_pythons)[sys.version_info[:2]][0]
            with self.sandbox.workplace() as place:
                ask = [
                    "/usr/bin/env", "UV_HTTP_RETRIES=0", f"UV_HTTP_TIMEOUT={PROBE_S}",
                    *self._compiling(place, python, [parse_package(PROBE)]), "--no-deps",
                ]  # fmt: skip
                files = place.folder / "pylock.toml"
                steps = [[*ask, "--emit-index-url", "-o", str(place.result)], [*ask, "--format", files.name, "-o", str(files)]]
                self.sandbox.run(place, [BuildStep(step, optional=True) for step in steps], python=base_folder(python))
                words = (word for line in place.text().splitlines() if line.startswith("--") for word in line.split()[1:])
                hosts = {entry for url in (*words, *_file_addresses(place.text(files.name))) if (entry := endpoint(url)) is not None}
            if not hosts:
                return ()
            self._own_hosts = tuple(hosts)
        return self._own_hosts

    def _resolve(
        self, python: Path, packages: Sequence[Package], sources: Sources, constraints: Sequence[Package] = (), *options: str,
        from_source: bool = False,
    ) -> Resolution:  # fmt: skip
        with self.sandbox.workplace(from_source=from_source) as place:
            limits = self.sandbox.write(place, "constraints.txt", _written(constraints))
            command = [
                *self._compiling(place, python, packages, sources), "--constraints", str(limits), "--no-annotate", "-o", str(place.result), *options,
            ]  # fmt: skip
            guarded = self._is_guarded(place, sources, (*packages, *constraints))
            done = self.sandbox.run(
                place, [BuildStep(command)], python=base_folder(python), guarded=guarded, own_hosts=self._index_hosts() if guarded else ()
            )
            if done.status != 0:
                return Resolution(None, done.output, done.refused)
            lines = [line.strip() for line in place.text().splitlines() if line.strip()]
        # What code of a package could have written is parsed like anything else that others wrote.
        return Resolution(tuple(str(parse_package(line, "the resolution")) for line in lines), done.output)

    def _compiling(self, place: Workplace, python: Path, packages: Sequence[Package], sources: Sources = Sources()) -> list[str]:
        requirements = self.sandbox.write(place, "requirements.in", _written(packages))
        return [
            uv(), "pip", "compile", str(requirements), "--python", str(python), *self._wheels(place), "--no-header", "--quiet",
            *_source_options(self.sandbox.configuration.settings, sources),
        ]  # fmt: skip

    @staticmethod
    def _is_guarded(place: Workplace, sources: Sources, packages: Iterable[Package]) -> bool:
        return place.from_source or any(_written_addresses(sources, packages))

    @staticmethod
    def _wheels(place: Workplace) -> list[str]:
        return [] if place.from_source else ["--only-binary", ":all:"]

    def _without_wheel(self, python: Path, sources: Sources, pinned: Iterable[str]) -> tuple[str, ...]:
        """Names of the packages that have no wheel at their version."""
        packages = [parse_package(line) for line in pinned]
        return tuple(package.name for package in packages if self._resolve(python, [package], sources, (), "--no-deps").pinned is None)

    def _nearest(self, python: Path, sources: Sources, packages: Sequence[Package]) -> tuple[list[Package], list[tuple[str, str]]]:
        """The packages, pins without a wheel for this Python replaced by the lowest later release that has one; and which were."""
        nearest, changed = [], []
        for package in packages:
            later = _or_later(package)
            if later is not None and self._resolve(python, [package], sources, (), "--no-deps").pinned is None:
                lowest = self._resolve(python, [later], sources, (), "--no-deps", "--resolution", "lowest").pinned
                if lowest:
                    changed.append((str(package), lowest[-1]))
                    package = parse_package(lowest[-1])
            nearest.append(package)
        return nearest, changed

    def _unresolvable(self, resolution: Resolution) -> Invalid:
        if resolution.refused:
            return self._refused(resolution.refused)
        can = "with a wheel for this machine, or a source distribution," if self.sandbox.builds_source else "with a wheel for this machine"
        return Invalid(
            "the environment cannot be resolved:\n" + _readable(resolution.output),
            code="unresolvable_environment",
            hint=f"Change the packages named above; only packages {can} can be installed.",
        )

    @staticmethod
    def _refused(reason: str) -> Invalid:
        return refusal(reason, "HOST:PORT=environments")

    # Building

    def find(self, key: str) -> Built | None:
        if not re.fullmatch(r"[0-9a-f]{24}", key):
            return None
        base = self._base(key)
        folder = self.root / key
        if base is None:
            return None
        configuration = self.sandbox.configuration
        sources = [path for path in configuration.paths(credentials=False) if path.exists()]
        readable = (folder, base_folder(base), *sources)
        return Built(key, folder / "bin" / "python", readable, base, wheel_of_pip(base), configuration.pip_options())

    def _base(self, name: str) -> Path | None:
        """The machine's Python that a complete environment was made for; None for one that is not complete, or whose Python is gone.

        An environment of an earlier version names none: it is what its own link leads to, if that is a Python known here.
        """
        if (self.root / f".{name}.building").exists():
            return None
        try:
            mark = trees.read(self.root / name / ".complete", MOST_MARK)
        except OSError:
            return None
        base = Path(json.loads(mark)["python"]) if mark else (self.root / name / "bin" / "python").resolve()
        return base if (base.exists() if mark else version_of(base, self._extra_pythons)) else None

    def build(self, lock: Lock, log: Log) -> Built:
        with self._exclusive(lock.key):
            built = self.find(lock.key)
            if built is not None:
                return built
            packages = [parse_package(line) for line in lock.packages.splitlines()]
            if lock.from_source and not self.sandbox.builds_source:
                raise Invalid(
                    f"{', '.join(lock.from_source)} would be built from source, and this machine cannot keep a build apart from the yard",
                    code="no_wheel", hint="Run the yard where Landlock or separate users work, or take releases with wheels.",
                )  # fmt: skip
            self._judge(lock.sources, packages)
            python, _, _ = interpreter(lock.python, self._extra_pythons)
            log(f"building environment {lock.key}: {len(packages)} packages, Python {lock.python}")
            with self._new_folder(lock.key, python) as folder:
                self._install(folder, python, lock, packages, log)
                self._close(folder)
                self._add_shims(folder)
                trees.replace(folder / "lock.txt", f"{lock.packages}\n".encode(), 0o644)
        done = self.find(lock.key)
        if done is None:
            raise Unavailable(f"environment {lock.key} vanished while it was built", code="build_failed", hint="Try again.")
        return done

    def _install(self, folder: Path, python: Path, lock: Lock, packages: Sequence[Package], log: Log) -> None:
        """Wheels by a fetch; then, where something is built from source, the rest by a user of this build alone."""
        wheels = [package for package in packages if package.name not in lock.from_source]
        others = [package for package in packages if package.name in lock.from_source]
        with self.sandbox.workplace() as place:
            steps = [BuildStep([uv(), "venv", "--quiet", "--clear", "--python", str(python), str(folder)])]
            if wheels:
                steps.append(self._installing(place, folder, wheels, lock.sources))
            if wheels and not others:
                steps.append(_bytecode(python, folder / "lib"))
            self._run(place, steps, folder, python, lock.sources, wheels, log)
        if others:
            with self.sandbox.workplace(from_source=True) as place:
                log(f"building from source: {', '.join(lock.from_source)}")
                steps = [self._installing(place, folder, others, lock.sources), _bytecode(python, folder / "lib")]
                self._run(place, steps, folder, python, lock.sources, others, log)

    def _installing(self, place: Workplace, folder: Path, packages: Sequence[Package], sources: Sources) -> BuildStep:
        requirements = self.sandbox.write(place, "requirements.txt", _written(packages))
        return BuildStep([
            uv(), "pip", "install", "--python", str(folder / "bin" / "python"), *self._wheels(place), "--no-deps",
            *_source_options(self.sandbox.configuration.settings, sources), "-r", str(requirements),
        ])  # fmt: skip

    def _run(
        self,
        place: Workplace,
        steps: Sequence[BuildStep],
        folder: Path,
        python: Path,
        sources: Sources,
        packages: Sequence[Package],
        log: Log,
    ) -> None:
        if place.uid is not None:
            trees.hand_over(folder, place.uid)
        guarded = self._is_guarded(place, sources, packages)
        done = self.sandbox.run(
            place, steps, python=base_folder(python), writable=[folder], guarded=guarded,
            own_hosts=self._index_hosts() if guarded else (), log=log,
        )  # fmt: skip
        if done.status != 0:
            if done.refused:
                raise self._refused(done.refused)
            raise Invalid(
                "the environment cannot be built:\n" + _readable(done.output), code="build_failed", hint="The lines above name the package."
            )

    @contextmanager
    def _new_folder(self, name: str, python: Path) -> Iterator[Path]:
        """The final folder of something that is built; it counts once the context has ended well, and not before."""
        folder, mark = self.root / name, self.root / f".{name}.building"
        trees.replace(mark, b"")
        sync_folder(self.root)
        try:
            trees.remove(folder)
            trees.make(folder, 0o755)
            yield folder
            trees.replace(folder / ".complete", json.dumps({"python": str(python)}).encode(), 0o644)
            # Everything reaches the disk before the mark is gone: a power cut never leaves a torn environment that counts.
            os.sync()
        except BaseException:
            trees.remove(folder)
            raise
        mark.unlink()
        sync_folder(self.root)

    @staticmethod
    def _close(folder: Path) -> None:
        try:
            trees.close(folder)
        except trees.NotPlain as error:
            raise Invalid(f"the environment cannot be kept: {error.strerror}", code="build_failed", hint="A package made it.") from None

    def _add_shims(self, folder: Path) -> None:
        """The yard's `mltable`, where the genuine one is not installed, and the way to what a job installs, for programs such as `torchrun`,
        which are run by the environment's own Python. What scoring scripts import is the model server's to bring."""
        try:
            with trees.Folder(folder / "lib") as lib:
                packages = next(f"{name}/site-packages" for name in lib.names() if name.startswith("python3"))
                lib.replace(f"{packages}/modelyard.pth", [PATH_OF_JOBS.encode()], 0o444)
                if lib.has(f"{packages}/mltable"):
                    return
                for file in sorted((RUNTIME / "shims" / "mltable").glob("*.py")):
                    lib.replace(f"{packages}/mltable/{file.name}", [file.read_bytes()], 0o444)
        except (trees.NotPlain, StopIteration):
            raise Invalid(
                "the environment cannot be kept: it has no folder of packages", code="build_failed", hint="A package took it away."
            ) from None

    def serving_kit(self, built: Built) -> Path:
        base = self._base(built.key)
        version = version_of(base, self._extra_pythons) if base is not None else ""
        if base is None or not version:
            raise Unavailable(f"the Python {base} of environment {built.key} is not known here", code="python_not_found")
        name = f"serving-{version}-{_digest(SERVING_PACKAGES)}"
        with self._exclusive(name):
            if self._base(name) is None:
                with self._new_folder(name, base) as kit, self.sandbox.workplace() as place:
                    command = [
                        uv(), "pip", "install", "--quiet", "--python", str(base), "--target", str(kit), "--only-binary", ":all:", *SERVING_PACKAGES,
                    ]  # fmt: skip
                    self._run(place, [BuildStep(command), _bytecode(base, kit)], kit, base, Sources(), (), lambda line: None)
                    self._close(kit)
        return self.root / name

    @contextmanager
    def _exclusive(self, key: str) -> Iterator[None]:
        with _THREAD_LOCKS.setdefault(key, threading.Lock()), (self.root / f".{key}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


_THREAD_LOCKS: dict[str, threading.Lock] = {}


def _bytecode(python: Path, folder: Path) -> BuildStep:
    """Compile packages by the machine's Python, which runs nothing of them. Their tests, half of all files, and what cannot be compiled
    are compiled by whoever imports them."""
    return BuildStep([str(python), "-I", "-m", "compileall", "-qq", "-j", "0", "-x", r"/tests?/", str(folder)], optional=True)


def _written(packages: Iterable[Package]) -> str:
    """A requirements file of nothing but what was parsed."""
    return "".join(f"{package}\n" for package in packages)


def _written_addresses(sources: Sources, packages: Iterable[Package]) -> Iterator[str]:
    """Addresses that the author of an environment wrote."""
    yield from (url for url in (sources.index_url, *sources.extra_index_urls, *sources.find_links) if url)
    yield from (package.requirement.url for package in packages if package.requirement.url)


def _file_addresses(pylock: str) -> list[str]:
    """Where the wheels of a lock file lie (PEP 751)."""
    try:
        packages = tomllib.loads(pylock).get("packages", [])
    except tomllib.TOMLDecodeError:
        return []
    return [str(wheel.get("url", "")) for package in packages for wheel in package.get("wheels", [])]


def _source_options(machine: Mapping[str, str], sources: Sources) -> list[str]:
    """Where packages come from, as arguments of uv, each one word: the same at every step. An option replaces the variable of the
    same meaning, so what the operator's configuration says goes along; only `--index-url` takes its place, as in pip."""
    links, hosts = machine.get("UV_FIND_LINKS", "").split(","), machine.get("UV_INSECURE_HOST", "").split()
    options = [f"--default-index={sources.index_url}"] if sources.index_url else []
    options += [f"--extra-index-url={url}" for url in sources.extra_index_urls]
    if sources.find_links:
        options += [f"--find-links={link}" for link in (*links, *sources.find_links) if link]
    if sources.trusted_hosts:
        options += [f"--allow-insecure-host={host}" for host in (*hosts, *sources.trusted_hosts)]
    if sources.no_index or machine.get("UV_NO_INDEX", "").lower() in ("1", "true", "yes", "on"):
        options.append("--no-index")  # uv reads no such variable
    if sources.pre:
        options.append("--prerelease=allow")
    return options


def _with_hashes(line: str, packages: Sequence[Package]) -> str:
    """A line of the lock with the hashes that the definition asks for; uv leaves them out."""
    pinned = parse_package(line)
    hashes = dict.fromkeys(value for package in packages if package.name == pinned.name for value in package.hashes)
    return str(replace(pinned, hashes=tuple(hashes))) if hashes else line


def _or_later(package: Package) -> Package | None:
    """`>=1.2` for a plain pin `==1.2` or `==1.2.*`, else None. What has hashes is that file or none."""
    specifiers = list(package.requirement.specifier)
    if len(specifiers) != 1 or specifiers[0].operator != "==" or package.hashes or package.requirement.marker:
        return None
    later = copy.copy(package.requirement)
    later.specifier = SpecifierSet(f">={specifiers[0].version.removesuffix('.*')}")
    return Package(later)


def _digest(packages: tuple[str, ...]) -> str:
    return hashlib.sha256("\n".join(packages).encode()).hexdigest()[:8]


def _readable(text: str) -> str:
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in text.splitlines()]
    keep = [line for line in lines if line and not line.lower().startswith(("warning:", "using python", "resolved "))]
    return "\n".join("  " + line for line in keep[-20:])

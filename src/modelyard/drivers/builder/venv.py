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
import functools
import hashlib
import json
import os
import platform
import re
import sys
import threading
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from modelyard_runtime.addresses import Allowed
from modelyard_runtime.files import sync_folder
from modelyard_runtime.protocol import BuildStep

from ...core import trees
from ...core.addresses import AddressGuard, refusal
from ...core.errors import Invalid, NotFound, Unavailable
from ...ports.builder import OLDEST_RUNTIME, Built, Lock, Requirements
from ...spec.requirements import Package, Sources, parse_package
from ..isolation import RUNTIME, Isolation
from . import releases
from .configuration import PackageConfiguration, endpoint
from .interpreters import OLDEST, Interpreter, base_folder, candidates, interpreter, interpreters, is_before, version_of, wheel_of_pip
from .sandbox import BuildSandbox, Log, Workplace, uv

SERVING_PACKAGES = ("httptools>=0.6,<1", "uvloop>=0.19,<1", "orjson>=3.9,<4", "werkzeug>=3,<4")
PROBE = "packaging"
"""A package that every index has: where its file lies, files of the operator's indexes do."""
PROBE_S = 10
PURPOSE = "environments"
MOST_MARK = 1 << 16
FETCHED = ".pythons"
"""The folder, beside the environments, of interpreters that were fetched for them."""
PATH_OF_JOBS = (
    "import os, sys; p = os.environ.get('YARD_PACKAGES'); p and p not in sys.path and "
    "sys.path.insert(next((i for i, at in enumerate(sys.path) if at.endswith('site-packages')), len(sys.path)), p)\n"
)
MOST_FROM_SOURCE = 40
"""Packages of one environment that are built from source."""
MOST_SUSPECTS = 25
"""Requirements among which those are searched that do not go together."""
_LACKING = re.compile(r"Wheels are required for `([\w.-]+)`")


@dataclass(frozen=True)
class Resolution:
    """How a resolution ended: the packages, each pinned, and the output of uv, which says why there are none."""

    pinned: tuple[str, ...] | None
    output: str
    refused: str = ""
    from_source: tuple[str, ...] = ()
    packages: tuple[Package, ...] = ()
    """What was to be resolved."""


@dataclass(frozen=True)
class _Asked:
    """What a definition asks for, parsed."""

    packages: tuple[Package, ...]
    constraints: tuple[Package, ...]
    sources: Sources
    python: str
    originals: tuple[tuple[str, str], ...]
    exact: bool
    programs: bool

    @classmethod
    def of(cls, requirements: Requirements) -> _Asked:
        packages, constraints = (tuple(map(parse_package, lines)) for lines in (requirements.packages, requirements.constraints))
        return cls(
            packages,
            constraints,
            requirements.sources,
            requirements.python,
            requirements.originals,
            requirements.exact,
            requirements.programs,
        )

    @property
    def names(self) -> set[str]:
        return {package.name for package in (*self.packages, *self.with_originals())}

    def with_originals(self) -> list[Package]:
        originals = dict(self.originals)
        return [parse_package(originals.get(str(package), str(package))) for package in self.packages]

    def replaced(self, pinned: Sequence[str]) -> list[str]:
        """Lines about what stands for a package after all, because what should have stood for it does not fit."""
        names = {parse_package(line).name for line in pinned}
        pairs = [(parse_package(new), parse_package(old)) for new, old in self.originals]
        return [
            f"{new.name} does not fit the other requirements: {old.name} itself is taken" for new, old in pairs if new.name not in names
        ]


class VenvBuilder:
    """Implements Builder."""

    def __init__(
        self, root: Path, isolation: Isolation, configuration: PackageConfiguration | None = None, guard: AddressGuard | None = None,
        extra_pythons: str = "", fetch_pythons: bool = False, cache: str = "",
    ) -> None:  # fmt: skip
        self.root = root
        self.guard = guard or AddressGuard()
        configuration = configuration or PackageConfiguration.read(os.environ, Path.home())
        self.sandbox = BuildSandbox(root, isolation, configuration, self.guard.allowed, cache)
        self._given_pythons = extra_pythons
        self._fetches_pythons = fetch_pythons
        self._own_hosts: tuple[Allowed, ...] | None = None

    # Interpreters

    @property
    def _extra_pythons(self) -> str:
        """Folders with interpreters: those that the operator names, and what was fetched."""
        fetched = sorted(str(folder) for folder in (self.root / FETCHED).glob("cpython-*/bin"))
        return ":".join(filter(None, (self._given_pythons, *fetched)))

    def _pythons(self, requirements: Requirements, log: Log) -> list[Interpreter]:
        """As `candidates`; one that is missing is fetched first, where the operator lets it be."""
        requested, oldest = requirements.python, OLDEST_RUNTIME if requirements.programs else OLDEST
        found = candidates(requested, self._extra_pythons, oldest)
        if not self._fetches_pythons or not requested or (found and not found[0].note):
            return found
        log(f"fetching Python {requested}")
        reason = self._fetch(requested, log)
        found = candidates(requested, self._extra_pythons, oldest)
        if not reason or not found[0].note:
            return found
        missing = f"Python {requested} is not on this machine and could not be fetched ({reason})"
        return [replace(python, note=f"{missing}; Python {python.full} is used") for python in found]

    def _fetch(self, requested: str, log: Log) -> str:
        """Why an interpreter could not be fetched; empty when it is here."""
        folder = self.root / FETCHED
        command = [
            "/usr/bin/env",
            "UV_PYTHON_DOWNLOADS=manual",
            uv(),
            "python",
            "install",
            requested,
            "--install-dir",
            str(folder),
            "--no-bin",
        ]
        with self._exclusive(FETCHED.lstrip(".")), self.sandbox.workplace() as place:
            trees.make(folder, 0o755)
            if place.uid is not None:
                trees.hand_over(folder, place.uid)
            base = base_folder(Path(sys.executable).resolve())
            done = self.sandbox.run(place, [BuildStep(command)], python=base, writable=[folder], log=log)
            self._close(folder)
        return _reason(done.output) if done.status != 0 else ""

    # Resolving

    def lock(self, requirements: Requirements, log: Log) -> Lock:
        asked = _Asked.of(requirements)
        self._judge(asked.sources, (*asked.packages, *asked.constraints))
        asked = self._with_names(asked)
        python, resolution, relaxed = self._resolved(asked, self._pythons(requirements, log), log)
        if resolution.pinned is None:
            raise self._unresolvable(asked, python, resolution)
        notes = [*([python.note] if python.note else []), *relaxed, *asked.replaced(resolution.pinned)]
        resolution, of_their_time = self._of_their_time(asked, python, resolution)
        assert resolution.pinned is not None
        notes += of_their_time
        notes += [f"{name} has no wheel for this machine and is built from source" for name in resolution.from_source]
        notes += releases.notes(resolution.pinned)
        version, sources, variables = python.full, asked.sources, requirements.variables
        pinned = "\n".join(sorted(_with_hashes(line, (*asked.packages, *asked.constraints)) for line in resolution.pinned))
        text = "\n".join((f"{version} {platform.machine()} {sys.platform}", pinned, "\n".join(sources.lines())))
        if resolution.from_source:
            text += "\nfrom source: " + " ".join(resolution.from_source)
        if variables:
            text += "\nvariables: " + json.dumps(variables)
        key = hashlib.sha256(text.encode()).hexdigest()[:24]
        return Lock(version, pinned, key, tuple(notes), sources, resolution.from_source, variables)

    def _resolved(self, asked: _Asked, pythons: Sequence[Interpreter], log: Log) -> tuple[Interpreter, Resolution, list[str]]:
        """A Python with the resolution for it, and lines about versions other than those asked for. Own versions come first: as wheels on
        any of the Pythons, then relaxed where the Python that was asked for is not here, then built from source."""
        first: Resolution | None = None
        for python in pythons:
            log(f"resolving {len(asked.packages)} requirements for Python {python.full}")
            resolution = self._exactly(asked, python, None if len(pythons) == 1 else self._wheels_for(asked, pythons))
            if resolution.pinned is not None or resolution.refused:
                return python, resolution, []
            first = first or resolution
        assert first is not None
        if len(pythons) > 1:
            if pythons[0].note and not asked.exact:
                log("these versions were not made for the Pythons of this machine: later ones are looked for")
                resolution, lines = self._relaxed(asked, pythons[0])
                if resolution.pinned is not None:
                    return pythons[0], resolution, lines
            return pythons[0], self._exactly(asked, pythons[0], None), []
        return pythons[0], first, []

    def _with_names(self, asked: _Asked) -> _Asked:
        """With the names of the packages of which only an address of their source is known; code of theirs says what they are."""
        packages = []
        for package in asked.packages:
            if package.unnamed:
                if not self.sandbox.builds_source:
                    raise self._apart([package.name])
                python = interpreter("", self._extra_pythons)
                found = self._resolve(python.path, [package], asked.sources, (), "--no-deps", built=None)
                if not found.pinned:
                    raise self._unresolvable(replace(asked, packages=(package,)), python, found)
                named = parse_package(found.pinned[0])
                if marker := package.requirement.marker:
                    named.requirement.marker = marker
                package = named
            packages.append(package)
        return replace(asked, packages=tuple(packages))

    def _exactly(self, asked: _Asked, python: Interpreter, has_wheel: Callable[[Package], bool] | None) -> Resolution:
        """The versions that were asked for. What has no wheel is built from source, unless `has_wheel`, which is asked about each, knows
        a Python for which it has one. Where what stands for a package cannot be had, the package itself is taken."""
        resolution = self._from_source_too(asked.packages, asked, python, has_wheel)
        names = {parse_package(line).name for line in resolution.pinned or ()}
        doubled = any(parse_package(old).name in names and parse_package(new).name in names for new, old in asked.originals)
        if asked.originals and not resolution.refused and (resolution.pinned is None or doubled):
            originals = self._from_source_too(asked.with_originals(), asked, python, has_wheel)
            if originals.pinned is not None:
                return originals
        return resolution

    def _from_source_too(
        self, packages: Sequence[Package], asked: _Asked, python: Interpreter, has_wheel: Callable[[Package], bool] | None
    ) -> Resolution:  # fmt: skip
        built = {package.name for package in packages if package.is_source}
        if built and not self.sandbox.builds_source:
            raise self._apart(built)
        while True:
            resolution = self._resolve(python.path, packages, asked.sources, asked.constraints, built=built)
            if resolution.pinned is not None or resolution.refused or not self.sandbox.builds_source:
                return resolution
            lacking = {canonicalize_name(name) for name in _LACKING.findall(_one_line(resolution.output))} - built
            if not lacking or len(built) >= MOST_FROM_SOURCE:
                return resolution
            if has_wheel is not None:
                pins = {package.name: package for package in packages}
                lacking = {name for name in lacking if not has_wheel(pins.get(name) or parse_package(name))}
                if not lacking:
                    return resolution
            built |= lacking

    def _wheels_for(self, asked: _Asked, pythons: Sequence[Interpreter]) -> Callable[[Package], bool]:
        """Whether a package has a wheel for the Python that was asked for, though that is not here, or for any of `pythons`."""
        versions = [asked.python, *(python.minor for python in pythons)]

        def has_wheel(package: Package) -> bool:
            return any(
                self._resolve(pythons[0].path, [package], asked.sources, (), "--no-deps", "--python-version", version).pinned is not None
                for version in versions
                if re.fullmatch(r"[0-9]+\.[0-9.]+", version)
            )

        return functools.cache(has_wheel)

    def _relaxed(self, asked: _Asked, python: Interpreter) -> tuple[Resolution, list[str]]:
        """Each package that has no wheel for this Python in the versions asked for, in the lowest later release that has one; where those
        do not go together, every version asked for is a lower limit. With a line about each that is not as it was asked for."""
        nearest, limits = [], []
        for package in asked.with_originals():
            later = _or_later(package)
            limits.append(later or package)
            if later is not None and self._resolve(python.path, [package], asked.sources, (), "--no-deps").pinned is None:
                lowest = self._resolve(python.path, [later], asked.sources, (), "--no-deps", "--resolution", "lowest").pinned
                if lowest:
                    package = parse_package(lowest[-1])
            nearest.append(package)
        for packages in (nearest, limits):
            resolution = self._from_source_too(packages, asked, python, None)
            if resolution.pinned is not None:
                break
        lines = [
            f"{package} has no wheel for Python {python.full}: it is {pinned.requirement}"
            for package in asked.with_originals()
            if (pinned := _pinned(package, resolution.pinned or ())) is not None and not _allows(package, pinned)
        ]
        return resolution, lines

    def _of_their_time(self, asked: _Asked, python: Interpreter, resolution: Resolution) -> tuple[Resolution, list[str]]:
        """The same versions, beside others of the time of them: what their metadata leaves open, see `releases`. Never against what was
        asked for."""
        limits: dict[str, str] = {}
        refused: dict[str, str] = {}
        while further := {line: why for line, why in releases.needs(resolution.pinned or ()).items() if line not in {**limits, **refused}}:
            for some in (further, *({line: why} for line, why in further.items() if len(further) > 1)):
                again = self._limited(asked, python, resolution, [*limits, *some])
                if again.pinned is not None:
                    resolution = again
                    limits |= some
                elif len(some) == 1:
                    refused |= some
                if some is further and again.pinned is not None:
                    break
        return resolution, [*limits.values(), *(f"{why}, which the other requirements do not allow" for why in refused.values())]

    def _limited(self, asked: _Asked, python: Interpreter, resolution: Resolution, limits: Sequence[str]) -> Resolution:
        """What was asked for at the versions that it has, within further limits."""
        constraints = tuple(map(parse_package, limits))
        kept = asked.names - {limit.name for limit in constraints}
        pins = [parse_package(line) for line in resolution.pinned or () if " @ " not in line and parse_package(line).name in kept]
        further = (*asked.constraints, *constraints, *pins)
        return self._from_source_too(resolution.packages, replace(asked, constraints=further), python, None)

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
        built: Collection[str] | None = (),
    ) -> Resolution:  # fmt: skip
        """`built`: names of the packages that may be built from source; None for all."""
        with self.sandbox.workplace(from_source=built is None or len(built) > 0) as place:
            limits = self.sandbox.write(place, "constraints.txt", _written(constraints))
            wheels = [] if built is None else ["--only-binary", ":all:", *(f"--no-binary={name}" for name in sorted(built))]
            command = [
                *self._compiling(place, python, packages, sources), *wheels, "--constraints", str(limits), "--no-annotate", "-o", str(place.result),
                *options,
            ]  # fmt: skip
            guarded = self._is_guarded(place, sources, (*packages, *constraints))
            done = self.sandbox.run(
                place, [BuildStep(command)], python=base_folder(python), guarded=guarded, own_hosts=self._index_hosts() if guarded else ()
            )
            if done.status != 0:
                return Resolution(None, done.output, done.refused, packages=tuple(packages))
            lines = [line.strip() for line in place.text().splitlines() if line.strip()]
        # What code of a package could have written is parsed like anything else that others wrote.
        pinned = tuple(str(parse_package(line, "the resolution")) for line in lines)
        from_source = sorted({parse_package(line).name for line in pinned} & set(built or ()))
        return Resolution(pinned, done.output, from_source=tuple(from_source), packages=tuple(packages))

    def _compiling(self, place: Workplace, python: Path, packages: Sequence[Package], sources: Sources = Sources()) -> list[str]:
        requirements = self.sandbox.write(place, "requirements.in", _written(packages))
        return [
            uv(), "pip", "compile", str(requirements), "--python", str(python), "--no-header", "--quiet",
            *_source_options(self.sandbox.configuration.settings, sources),
        ]  # fmt: skip

    @staticmethod
    def _is_guarded(place: Workplace, sources: Sources, packages: Iterable[Package]) -> bool:
        return place.from_source or any(_written_addresses(sources, packages))

    @staticmethod
    def _wheels(place: Workplace) -> list[str]:
        return [] if place.from_source else ["--only-binary", ":all:"]

    def _unresolvable(self, asked: _Asked, python: Interpreter, resolution: Resolution) -> Invalid:
        if resolution.refused:
            return self._refused(resolution.refused)
        against, output = self._against_each_other(asked, python, resolution)
        what = f": {against[0]} cannot be had for Python {python.full}" if len(against) == 1 else ""
        if len(against) > 1:
            what = f" for Python {python.full}: {', '.join(against[:-1])} and {against[-1]} do not go together"
        can = "with a wheel for this machine, or a source distribution," if self.sandbox.builds_source else "with a wheel for this machine"
        hint = f"Change the packages named above; only packages {can} can be installed."
        if asked.python and python.note and is_before(asked.python, OLDEST_RUNTIME) and asked.programs:
            hint = "Log the model again on a later Python, or give the deployment an environment; or change the packages named above."
        elif asked.python and python.note:
            hint = f"Install Python {asked.python} on this machine, or name its folder in the setting `python`; or change the packages named above."
        return Invalid(f"the environment cannot be resolved{what}\n" + _readable(output), code="unresolvable_environment", hint=hint)

    def _against_each_other(self, asked: _Asked, python: Interpreter, failed: Resolution) -> tuple[list[str], str]:
        """The fewest requirements that cannot be resolved together, and what uv says of them alone. Searched among those that its output
        names; empty where those are not enough."""
        words = {canonicalize_name(word) for word in re.findall(r"[a-z0-9]+(?:[._-][a-z0-9]+)*", failed.output.lower())}
        suspects = [package for package in failed.packages if package.name in words]

        def tried(packages: Sequence[Package]) -> Resolution:
            return self._from_source_too(packages, asked, python, None)

        if not suspects or len(suspects) > MOST_SUSPECTS or (alone := tried(suspects)).pinned is not None:
            return [], failed.output
        for package in list(suspects):
            fewer = [other for other in suspects if other is not package]
            if fewer and (without := tried(fewer)).pinned is None:
                suspects, alone = fewer, without
        return [str(package.requirement) for package in suspects], alone.output

    @staticmethod
    def _apart(names: Iterable[str]) -> Invalid:
        return Invalid(
            f"{', '.join(sorted(names))} would be built from source, and this machine cannot keep a build apart from the yard",
            code="no_wheel",
            hint="Run the yard where Landlock or separate users work, or take releases with wheels.",
        )

    @staticmethod
    def _refused(reason: str) -> Invalid:
        return refusal(reason, "HOST:PORT=environments")

    # Building

    def find(self, key: str) -> Built | None:
        if not re.fullmatch(r"[0-9a-f]{24}", key):
            return None
        base = self._base(key)
        if base is None:
            return None
        folder, mark = self.root / key, self._mark(key)
        minor = re.fullmatch(r"(\d+)\.(\d+)", version_of(base, self._extra_pythons))
        version = (int(minor[1]), int(minor[2])) if minor else OLDEST_RUNTIME
        declared = tuple((str(name), str(value)) for name, value in mark.get("variables", ()))
        configuration = self.sandbox.configuration
        sources = [path for path in configuration.paths(credentials=False) if path.exists()]
        readable = (folder, base_folder(base), *sources)
        return Built(key, folder / "bin" / "python", readable, base, wheel_of_pip(base), configuration.pip_options(), version, declared)

    def _mark(self, name: str) -> dict[str, Any]:
        """What the mark of a complete environment says; nothing, where it is of an earlier version."""
        mark = trees.read(self.root / name / ".complete", MOST_MARK)
        return dict(json.loads(mark)) if mark else {}

    def _base(self, name: str) -> Path | None:
        """The machine's Python that a complete environment was made for; None for one that is not complete, or whose Python is gone.

        An environment of an earlier version names none: it is what its own link leads to, if that is a Python known here.
        """
        if (self.root / f".{name}.building").exists():
            return None
        try:
            mark = self._mark(name)
        except OSError:
            return None
        base = Path(mark["python"]) if mark else (self.root / name / "bin" / "python").resolve()
        return base if (base.exists() if mark else version_of(base, self._extra_pythons)) else None

    def build(self, lock: Lock, log: Log) -> Built:
        with self._exclusive(lock.key):
            built = self.find(lock.key)
            if built is not None:
                return built
            packages = [parse_package(line) for line in lock.packages.splitlines()]
            if lock.from_source and not self.sandbox.builds_source:
                raise self._apart(lock.from_source)
            self._judge(lock.sources, packages)
            python = interpreter(lock.python, self._extra_pythons).path
            log(f"building environment {lock.key}: {len(packages)} packages, Python {lock.python}")
            with self._new_folder(lock.key, python, lock.variables) as folder:
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
    def _new_folder(self, name: str, python: Path, variables: Sequence[tuple[str, str]] = ()) -> Iterator[Path]:
        """The final folder of something that is built; it counts once the context has ended well, and not before."""
        folder, mark = self.root / name, self.root / f".{name}.building"
        trees.replace(mark, b"")
        sync_folder(self.root)
        try:
            trees.remove(folder)
            trees.make(folder, 0o755)
            yield folder
            complete = {"python": str(python), **({"variables": variables} if variables else {})}
            trees.replace(folder / ".complete", json.dumps(complete).encode(), 0o644)
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
        if not built.runs_programs:
            version = ".".join(map(str, built.python_version))
            raise Invalid(
                f"the environment has Python {version}; models are served from {'.'.join(map(str, OLDEST_RUNTIME))} on",
                code="python_too_old", hint="Give the deployment an environment with a later Python; commands of jobs run on this one.",
            )  # fmt: skip
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
    yield from (package.requirement.url.removeprefix("git+") for package in packages if package.requirement.url)


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
    """Without its upper limits: `>=1.2` for `==1.2`, `==1.2.*` and `~=1.2`, and for `<=1.2`, of which nothing earlier can be had. None
    for a package without a version, at an address, or with hashes, which is that file or none."""
    specifiers = list(package.requirement.specifier)
    lowest = [item.version.removesuffix(".*") for item in specifiers if item.operator in ("==", "===", "~=", ">=", ">")]
    highest = [item.version.removesuffix(".*") for item in specifiers if item.operator in ("<", "<=")]
    if not (lowest or highest) or package.hashes or package.requirement.url:
        return None
    later = copy.copy(package.requirement)
    later.specifier = SpecifierSet(
        ",".join([f">={version}" for version in lowest or highest] + [str(i) for i in specifiers if i.operator == "!="])
    )
    return Package(later)


def _pinned(package: Package, pinned: Sequence[str]) -> Package | None:
    """The release of a package among those of a lock."""
    return next((other for line in pinned if (other := parse_package(line)).name == package.name), None)


def _allows(package: Package, pinned: Package) -> bool:
    version = next((item.version for item in pinned.requirement.specifier), "")
    return not version or package.requirement.specifier.contains(version, prereleases=True)


def _one_line(text: str) -> str:
    """Output of a tool that breaks its lines, and colours them."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", text).split())


def _digest(packages: tuple[str, ...]) -> str:
    return hashlib.sha256("\n".join(packages).encode()).hexdigest()[:8]


def _readable(text: str) -> str:
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in text.splitlines()]
    keep = [line for line in lines if line and not line.lower().startswith(("warning:", "using python", "resolved "))]
    return "\n".join("  " + line for line in keep[-20:])


def _reason(output: str) -> str:
    """The last line of what uv says of a failure."""
    return (_readable(output).splitlines() or ["no reason is known"])[-1].strip()

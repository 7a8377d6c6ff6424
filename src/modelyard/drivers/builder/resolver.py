"""From what a definition asks for to a lock: with its own pins, on the Python that has them; relaxed and from source only where nothing else is."""

from __future__ import annotations

import functools
import hashlib
import json
import platform
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from ...core.errors import Invalid
from ...ports.builder import OLDEST_RUNTIME, Lock, Requirements
from ...spec.requirements import Package, Sources, parse_package
from . import releases
from .index import PackageIndex, Resolution, apart, refused
from .interpreters import Interpreter, interpreter, is_before
from .pythons import Pythons
from .sandbox import Log, readable

MOST_FROM_SOURCE = 40
"""Packages of one environment that are built from source."""
MOST_SUSPECTS = 25
"""Requirements among which those are searched that do not go together."""
_AWAY = re.compile(r"(?:Failed to fetch: `?|error sending request for url \()(https?://[^`)\s]+)")
_LACKING = re.compile(r"Wheels are required for `([\w.-]+)`")


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


class Resolver:
    def __init__(self, index: PackageIndex, pythons: Pythons) -> None:
        self.index, self.pythons = index, pythons

    def lock(self, requirements: Requirements, log: Log) -> Lock:
        asked = _Asked.of(requirements)
        self.index.judge(asked.sources, (*asked.packages, *asked.constraints))
        asked = self._with_names(asked)
        python, resolution, relaxed = self._resolved(asked, self.pythons.candidates(requirements, log), log)
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
                if not self.index.sandbox.builds_source:
                    raise apart([package.name])
                python = interpreter("", self.pythons.folders)
                found = self.index.resolve(python.path, [package], asked.sources, (), "--no-deps", built=None)
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
        if built and not self.index.sandbox.builds_source:
            raise apart(built)
        while True:
            resolution = self.index.resolve(python.path, packages, asked.sources, asked.constraints, built=built)
            if resolution.pinned is not None or resolution.refused or not self.index.sandbox.builds_source:
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
                self.index.resolve(pythons[0].path, [package], asked.sources, (), "--no-deps", "--python-version", version).pinned
                is not None
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
            if later is not None and self.index.resolve(python.path, [package], asked.sources, (), "--no-deps").pinned is None:
                lowest = self.index.resolve(python.path, [later], asked.sources, (), "--no-deps", "--resolution", "lowest").pinned
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

    def _unresolvable(self, asked: _Asked, python: Interpreter, resolution: Resolution) -> Invalid:
        if resolution.refused:
            return refused(resolution.refused)
        if away := _AWAY.search(_one_line(resolution.output)):
            return Invalid(
                f"the environment cannot be resolved: {away[1]} cannot be reached\n" + readable(resolution.output), code="index_unreachable",
                hint="Try again when it answers, or leave this address out.",
            )  # fmt: skip
        against, output = self._against_each_other(asked, python, resolution)
        what = f": {against[0]} cannot be had for Python {python.full}" if len(against) == 1 else ""
        if len(against) > 1:
            what = f" for Python {python.full}: {', '.join(against[:-1])} and {against[-1]} do not go together"
        can = (
            "with a wheel for this machine, or a source distribution,"
            if self.index.sandbox.builds_source
            else "with a wheel for this machine"
        )
        hint = f"Change the packages named above; only packages {can} can be installed."
        if asked.python and python.note and is_before(asked.python, OLDEST_RUNTIME) and asked.programs:
            hint = "Log the model again on a later Python, or give the deployment an environment; or change the packages named above."
        elif asked.python and python.note:
            hint = f"Install Python {asked.python} on this machine, or name its folder in the setting `python`; or change the packages named above."
        return Invalid(f"the environment cannot be resolved{what}\n" + readable(output), code="unresolvable_environment", hint=hint)

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
    later = Requirement(str(package.requirement))
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

"""What is asked of uv about packages, each step apart from the yard: what goes into its files and options, which addresses it may reach, and what it answers."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelyard_runtime.addresses import Allowed
from modelyard_runtime.protocol import BuildStep

from ...core.addresses import AddressGuard, refusal
from ...core.errors import Invalid, NotFound
from ...spec.requirements import Package, Sources, parse_package
from .configuration import endpoint
from .interpreters import base_folder, interpreters
from .pythons import Pythons
from .sandbox import BuildSandbox, Workplace, uv

PROBE = "packaging"
"""A package that every index has: where its file lies, files of the operator's indexes do."""
PROBE_S = 10
PURPOSE = "environments"


@dataclass(frozen=True)
class Resolution:
    """How a resolution ended: the packages, each pinned, and the output of uv, which says why there are none."""

    pinned: tuple[str, ...] | None
    output: str
    refused: str = ""
    from_source: tuple[str, ...] = ()
    packages: tuple[Package, ...] = ()
    """What was to be resolved."""


class PackageIndex:
    """The indexes of the operator and those that a definition names, asked within the address guard."""

    def __init__(self, sandbox: BuildSandbox, guard: AddressGuard, pythons: Pythons) -> None:
        self.sandbox, self.guard, self.pythons = sandbox, guard, pythons
        self._own_hosts: tuple[Allowed, ...] | None = None

    def judge(self, sources: Sources, packages: Iterable[Package]) -> None:
        """Every address that the definition names. Raises Invalid for one that is refused; what does not resolve here, the way out judges."""
        for url in written_addresses(sources, packages):
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
        return endpoint(url) in (*self.sandbox.configuration.addresses(), *self.hosts())

    def hosts(self) -> tuple[Allowed, ...]:
        """Where the operator's indexes and their files are, uv's own index included: asked for by the first guarded step, until answered."""
        if self._own_hosts is None:
            python = interpreters(self.pythons.folders)[sys.version_info[:2]][0]
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

    def resolve(
        self, python: Path, packages: Sequence[Package], sources: Sources, constraints: Sequence[Package] = (), *options: str,
        built: Collection[str] | None = (),
    ) -> Resolution:  # fmt: skip
        """`built`: names of the packages that may be built from source; None for all."""
        with self.sandbox.workplace(from_source=built is None or len(built) > 0) as place:
            limits = self.sandbox.write(place, "constraints.txt", written(constraints))
            wheels = [] if built is None else ["--only-binary", ":all:", *(f"--no-binary={name}" for name in sorted(built))]
            command = [
                *self._compiling(place, python, packages, sources), *wheels, "--constraints", str(limits), "--no-annotate", "-o", str(place.result),
                *options,
            ]  # fmt: skip
            guarded = is_guarded(place, sources, (*packages, *constraints))
            done = self.sandbox.run(
                place, [BuildStep(command)], python=base_folder(python), guarded=guarded, own_hosts=self.hosts() if guarded else ()
            )
            if done.status != 0:
                return Resolution(None, done.output, done.refused, packages=tuple(packages))
            lines = [line.strip() for line in place.text().splitlines() if line.strip()]
        # What code of a package could have written is parsed like anything else that others wrote.
        pinned = tuple(str(parse_package(line, "the resolution")) for line in lines)
        from_source = sorted({parse_package(line).name for line in pinned} & set(built or ()))
        return Resolution(pinned, done.output, from_source=tuple(from_source), packages=tuple(packages))

    def _compiling(self, place: Workplace, python: Path, packages: Sequence[Package], sources: Sources = Sources()) -> list[str]:
        requirements = self.sandbox.write(place, "requirements.in", written(packages))
        return [
            uv(), "pip", "compile", str(requirements), "--python", str(python), "--no-header", "--quiet",
            *source_options(self.sandbox.configuration.settings, sources),
        ]  # fmt: skip


def is_guarded(place: Workplace, sources: Sources, packages: Iterable[Package]) -> bool:
    return place.from_source or any(written_addresses(sources, packages))


def apart(names: Iterable[str]) -> Invalid:
    return Invalid(
        f"{', '.join(sorted(names))} would be built from source, and this machine cannot keep a build apart from the yard",
        code="no_wheel",
        hint="Run the yard where Landlock or separate users work, or take releases with wheels.",
    )


def refused(reason: str) -> Invalid:
    return refusal(reason, "HOST:PORT=environments")


def written(packages: Iterable[Package]) -> str:
    """A requirements file of nothing but what was parsed."""
    return "".join(f"{package}\n" for package in packages)


def written_addresses(sources: Sources, packages: Iterable[Package]) -> Iterator[str]:
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


def source_options(machine: Mapping[str, str], sources: Sources) -> list[str]:
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

"""Environments as shared virtual environments made by uv, one per lock, under `envs/<key>`.

An environment is made at its final path, since it cannot be moved, by the user of the build; then the yard takes it over, read-only, and
writes `.complete`. While `.<key>.building` beside it is there it does not count, whatever is in it, so a kill at any instant costs a build
and nothing else. Packages come as wheels; what has none is built from source where code of packages can be run apart from the yard
(`sandbox`). The Python of an environment, which runs what packages' `.pth` files say, is started in such builds and by jobs alone: what
the yard knows of an environment it reads from files of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelyard_runtime.files import sync_folder
from modelyard_runtime.protocol import BuildStep

from ...core import trees
from ...core.addresses import AddressGuard
from ...core.errors import Invalid, Unavailable
from ...ports.builder import OLDEST_RUNTIME, Built, Lock, Requirements, dotted
from ...spec.requirements import Package, Sources, parse_package
from ..isolation import RUNTIME, Isolation
from .configuration import PackageConfiguration
from .index import PackageIndex, apart, is_guarded, refused, source_options, written
from .interpreters import base_folder, interpreter, version_of, wheel_of_pip
from .pythons import Pythons
from .resolver import Resolver
from .sandbox import BuildSandbox, Log, Workplace, exclusive, readable, uv

SERVING_PACKAGES = ("httptools>=0.6,<1", "uvloop>=0.19,<1", "orjson>=3.9,<4", "werkzeug>=3,<4")
MOST_MARK = 1 << 16
PATH_OF_JOBS = (
    "import os, sys; p = os.environ.get('YARD_PACKAGES'); p and p not in sys.path and "
    "sys.path.insert(next((i for i, at in enumerate(sys.path) if at.endswith('site-packages')), len(sys.path)), p)\n"
)


class VenvBuilder:
    """Implements Builder."""

    def __init__(
        self, root: Path, isolation: Isolation, configuration: PackageConfiguration | None = None, guard: AddressGuard | None = None,
        extra_pythons: str = "", fetch_pythons: bool = False, cache: str = "",
    ) -> None:  # fmt: skip
        self.root = root
        guard = guard or AddressGuard()
        configuration = configuration or PackageConfiguration.read(os.environ, Path.home())
        self.sandbox = BuildSandbox(root, isolation, configuration, guard.allowed, cache)
        self.pythons = Pythons(root, self.sandbox, extra_pythons, fetch_pythons)
        self.index = PackageIndex(self.sandbox, guard, self.pythons)
        self._resolver = Resolver(self.index, self.pythons)

    def lock(self, requirements: Requirements, log: Log) -> Lock:
        return self._resolver.lock(requirements, log)

    def find(self, key: str) -> Built | None:
        if not re.fullmatch(r"[0-9a-f]{24}", key):
            return None
        base = self._base(key)
        if base is None:
            return None
        folder, mark = self.root / key, self._mark(key)
        minor = re.fullmatch(r"(\d+)\.(\d+)", version_of(base, self.pythons.folders))
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
        return base if (base.exists() if mark else version_of(base, self.pythons.folders)) else None

    def build(self, lock: Lock, log: Log) -> Built:
        with exclusive(self.root, lock.key):
            built = self.find(lock.key)
            if built is not None:
                return built
            packages = [parse_package(line) for line in lock.packages.splitlines()]
            if lock.from_source and not self.sandbox.builds_source:
                raise apart(lock.from_source)
            self.index.judge(lock.sources, packages)
            python = interpreter(lock.python, self.pythons.folders).path
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
        requirements = self.sandbox.write(place, "requirements.txt", written(packages))
        return BuildStep([
            uv(), "pip", "install", "--python", str(folder / "bin" / "python"), *_wheels(place), "--no-deps",
            *source_options(self.sandbox.configuration.settings, sources), "-r", str(requirements),
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
        guarded = is_guarded(place, sources, packages)
        done = self.sandbox.run(
            place, steps, python=base_folder(python), writable=[folder], guarded=guarded,
            own_hosts=self.index.hosts() if guarded else (), log=log,
        )  # fmt: skip
        if done.status != 0:
            if done.refused:
                raise refused(done.refused)
            raise Invalid(
                "the environment cannot be built:\n" + readable(done.output), code="build_failed", hint="The lines above name the package."
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
            raise Invalid(
                f"the environment has Python {dotted(built.python_version)}; models are served from {dotted(OLDEST_RUNTIME)} on",
                code="python_too_old", hint="Give the deployment an environment with a later Python; commands of jobs run on this one.",
            )  # fmt: skip
        base = self._base(built.key)
        version = version_of(base, self.pythons.folders) if base is not None else ""
        if base is None or not version:
            raise Unavailable(f"the Python {base} of environment {built.key} is not known here", code="python_not_found")
        name = f"serving-{version}-{_digest(SERVING_PACKAGES)}"
        with exclusive(self.root, name):
            if self._base(name) is None:
                with self._new_folder(name, base) as kit, self.sandbox.workplace() as place:
                    command = [
                        uv(), "pip", "install", "--quiet", "--python", str(base), "--target", str(kit), "--only-binary", ":all:", *SERVING_PACKAGES,
                    ]  # fmt: skip
                    self._run(place, [BuildStep(command), _bytecode(base, kit)], kit, base, Sources(), (), lambda line: None)
                    self._close(kit)
        return self.root / name


def _wheels(place: Workplace) -> list[str]:
    return [] if place.from_source else ["--only-binary", ":all:"]


def _bytecode(python: Path, folder: Path) -> BuildStep:
    """Compile packages by the machine's Python, which runs nothing of them. Their tests, half of all files, and what cannot be compiled
    are compiled by whoever imports them."""
    return BuildStep([str(python), "-I", "-m", "compileall", "-qq", "-j", "0", "-x", r"/tests?/", str(folder)], optional=True)


def _digest(packages: tuple[str, ...]) -> str:
    return hashlib.sha256("\n".join(packages).encode()).hexdigest()[:8]

"""The Python interpreters of this machine, which environments are made for."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from packaging.specifiers import InvalidSpecifier, SpecifierSet

Version = tuple[int, int]
_OWN_WHEELS = Path(os.__file__).parent / "ensurepip" / "_bundled"
OLDEST: Version = (3, 6)
"""Commands run on it and later ones."""


@functools.cache
def interpreters(extra: str) -> dict[Version, tuple[Path, str]]:
    """(path, full version) of every CPython 3.6+: this one, then those of the PATH, of pyenv and of uv, newest patch first.

    `extra`: folders with more of them, separated by `:`.
    """
    known: dict[Version, tuple[Path, str]] = {}
    own = Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    folders = [Path(folder) for folder in [*extra.split(":"), *os.environ.get("PATH", "").split(":")] if folder]
    candidates = [own, Path(sys.executable)]
    for folder in folders:
        if "shims" not in folder.parts:
            candidates += sorted(_glob(folder, "python3.[0-9]*"))
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    candidates += sorted(_glob(pyenv, "3.*/bin/python3.[0-9]*"), reverse=True)
    candidates += sorted(_glob(Path.home() / ".local/share/uv/python", "cpython-3*/bin/python3.[0-9]*"), reverse=True)
    seen: set[Path] = set()
    for candidate in candidates:
        if not re.fullmatch(r"python(3(\.\d+)?)?", candidate.name) or not os.access(candidate, os.X_OK):
            continue
        real = candidate.resolve()
        if real in seen:
            continue
        seen.add(real)
        named = re.search(r"(\d+)\.(\d+)$", candidate.name)
        if named and (int(named[1]), int(named[2])) in known:
            continue
        code = "import sys,platform; print(sys.version_info[0],sys.version_info[1],platform.python_version(),sys.implementation.name)"
        done = subprocess.run([str(real), "-I", "-c", code], capture_output=True, text=True)
        parts = done.stdout.split()
        if done.returncode == 0 and len(parts) == 4 and parts[3] == "cpython" and (int(parts[0]), int(parts[1])) >= OLDEST:
            known.setdefault((int(parts[0]), int(parts[1])), (real, parts[2]))
    return known


def _glob(folder: Path, pattern: str) -> list[Path]:
    """What there is; nothing in a folder of somebody else's that cannot be read, such as root's that the environment still names."""
    try:
        return list(folder.glob(pattern))
    except OSError:
        return []


@dataclass(frozen=True)
class Interpreter:
    path: Path
    full: str
    """Its version, such as `3.11.7`."""
    note: str = ""
    """Why it is taken, when it is not what was asked for."""

    @property
    def minor(self) -> str:
        return ".".join(self.full.split(".")[:2])


def candidates(requested: str, extra: str, oldest: Version = OLDEST) -> list[Interpreter]:
    """Interpreters that an environment may be made for, the best first: of the requested version that one only; where it is not on
    this machine the others, nearest first; of a range those within it; of no version the yard's own, then the others."""
    known = {version: found for version, found in interpreters(extra).items() if version >= oldest}
    own = (sys.version_info[0], sys.version_info[1])
    if re.fullmatch(r"[0-9]{1,3}\.[0-9]{1,3}(\..*)?", requested):
        major, minor = (int(part) for part in requested.split(".")[:2])
        if (major, minor) in known:
            return [Interpreter(*known[major, minor])]
        order = sorted(known, key=lambda version: (abs(version[1] - minor), -version[1]))
        return [_instead(requested, *known[version], oldest) for version in order]
    limits = _limits(requested)
    within = [version for version, (_, full) in known.items() if limits.contains(full) or limits.contains(f"{version[0]}.{version[1]}")]
    order = sorted(within or known, key=lambda version: (version != own, abs(version[1] - own[1]), -version[1]))
    if not within:
        return [_instead(requested, *known[version], oldest) for version in order]
    first = Interpreter(*known[order[0]])
    unwilling = f"these requirements have no packages for Python {first.full}"
    return [first, *(Interpreter(path, full, f"{unwilling}; Python {full} is used") for path, full in map(known.__getitem__, order[1:]))]


def _instead(requested: str, path: Path, full: str, oldest: Version) -> Interpreter:
    if is_before(requested, oldest):
        return Interpreter(
            path, full, f"models, parallel and distributed jobs run from Python 3.{oldest[1]} on, not {requested}; Python {full} is used"
        )
    return Interpreter(path, full, f"Python {requested} is not on this machine; Python {full} is used")


def is_before(requested: str, oldest: Version) -> bool:
    minor = re.match(r"3\.([0-9]{1,3})", requested)
    return bool(minor and (3, int(minor[1])) < oldest)


def _limits(requested: str) -> SpecifierSet:
    try:
        return SpecifierSet(requested)
    except InvalidSpecifier:
        return SpecifierSet()  # `3`, and what no version is


def interpreter(requested: str, extra: str) -> Interpreter:
    """The best of `candidates`."""
    return candidates(requested, extra)[0]


def version_of(path: Path, extra: str) -> str:
    """`3.11` for the path of a known interpreter; empty for any other."""
    return next((f"{major}.{minor}" for (major, minor), (known, _) in interpreters(extra).items() if known == path), "")


@functools.cache
def wheel_of_pip(python: Path) -> Path | None:
    """The pip that an interpreter brings along for `ensurepip`, or the machine, or the yard's own Python; None when there is none."""
    for folder in (*_glob(base_folder(python), "lib/python3.*/ensurepip/_bundled"), Path("/usr/share/python-wheels"), _OWN_WHEELS):
        if wheels := sorted(_glob(folder, "pip-*.whl")):
            return wheels[-1]
    return None


def base_folder(python: Path) -> Path:
    """What of a base interpreter a process must read: its prefix."""
    return python.parent.parent if python.parent.name == "bin" else python.parent

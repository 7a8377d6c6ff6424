"""The Python interpreters of this machine, which environments are made for."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

Version = tuple[int, int]
_OWN_WHEELS = Path(os.__file__).parent / "ensurepip" / "_bundled"


@functools.cache
def interpreters(extra: str) -> dict[Version, tuple[Path, str]]:
    """(path, full version) of every CPython 3.8+: this one, then those of the PATH, of pyenv and of uv, newest patch first.

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
        if done.returncode == 0 and len(parts) == 4 and parts[3] == "cpython" and (int(parts[0]), int(parts[1])) >= (3, 8):
            known.setdefault((int(parts[0]), int(parts[1])), (real, parts[2]))
    return known


def _glob(folder: Path, pattern: str) -> list[Path]:
    """What there is; nothing in a folder of somebody else's that cannot be read, such as root's that the environment still names."""
    try:
        return list(folder.glob(pattern))
    except OSError:
        return []


def interpreter(requested: str, extra: str) -> tuple[Path, str, str]:
    """(path, full version, note): an interpreter of the requested minor version, else the nearest, with a line about it."""
    known = interpreters(extra)
    minor = tuple(int(part) for part in requested.split(".")[:2]) if re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3})*", requested) else ()
    if len(minor) < 2:
        path, full = known[sys.version_info[:2]]
        return path, full, ""
    if minor in known:
        path, full = known[(minor[0], minor[1])]
        return path, full, ""
    nearest = min(known, key=lambda candidate: (abs(candidate[1] - minor[1]), -candidate[1]))
    path, full = known[nearest]
    return path, full, f"Python {requested} is not on this machine; Python {full} is used"


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

"""How user code is isolated on this machine, detected once at start, and the runner's terms for it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from modelyard_runtime import files, protocol

from ..core import ids, trees
from ..core.errors import Invalid
from ..ports.replicas import Sandbox

RUNTIME = Path(files.RUNTIME)
HIDDEN = ("control", "endpoints", "interpreters")
"""Folders of the home in which sockets lie."""


def program(name: str, *arguments: str) -> list[str]:
    """A program of the runtime on the yard's own Python; nothing of the environment or the working directory is imported by it."""
    return [sys.executable, "-I", str(RUNTIME), name, *arguments]


@dataclass(frozen=True)
class Isolation:
    """`user`: every process gets a user id of its own. `namespace`: closed folders on its way are opened privately."""

    user: bool
    namespace: bool
    landlock: int
    private: bool = False
    """`/tmp` and `/dev/shm` of its own for each process, and nothing to be seen in the folders of `hidden`."""
    processes: bool = False
    """Nobody sees the processes of others."""
    hidden: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        return "+".join(word for word, on in (("user", self.user), ("landlock", self.landlock > 0)) if on) or "none"

    def notices(self) -> list[str]:
        if self.name == "none":
            return ["single user: jobs and models have your rights, and can read the yard's keys"]
        notices = []
        if not self.user and self.landlock < 6:
            notices.append("this kernel's Landlock does not confine signals: a hostile job could end the yard's own processes")
        if not self.private:
            notices.append(
                "jobs share /dev/shm, and can call model servers whose socket they know: this machine has no private mounts for them"
            )
        if not self.processes:
            notices.append("jobs see the command lines of other processes of this machine")
        return notices

    def confinement(self, sandbox: Sandbox | None) -> protocol.Confinement | None:
        """The `sandbox` of a runner's request."""
        if sandbox is None or self.name == "none":
            return None
        return protocol.Confinement(
            writable=[str(path) for path in sandbox.writable],
            readable=[str(path) for path in sandbox.readable],
            uid="own" if self.user else None,
            namespace=self.namespace,
            landlock=self.landlock > 0,
            private=self.private,
            tmp=str(sandbox.tmp) if sandbox.tmp is not None else None,
            hidden=[str(path) for path in self.hidden],
        )


def detect(home: Path, mode: str) -> Isolation:
    """Ask the kernel, by trying. `mode` is the setting: `off` uses nothing, `landlock` no separate users."""
    if mode not in ("auto", "landlock", "off"):
        raise Invalid(f"setting isolation: {mode!r} is not one of auto, landlock, off")
    if mode == "off" or not sys.platform.startswith("linux"):
        return Isolation(False, False, 0)
    probe = json.loads(subprocess.run(program("sandbox", "--probe"), capture_output=True, text=True, check=True).stdout)
    private, hidden = bool(probe["private"]), tuple(home / name for name in HIDDEN)
    if mode == "landlock":
        return Isolation(False, False, int(probe["landlock"]), private, False, hidden)
    namespace = bool(probe["namespace"])
    reachable = all(_open_to_others(path) for path in (home, Path(sys.base_prefix), RUNTIME))
    user = bool(probe["root"]) and (namespace or reachable)
    return Isolation(user, namespace, int(probe["landlock"]), private, user and bool(probe["processes"]), hidden)


def _open_to_others(path: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in path.resolve().parents if parent.exists())


def wrapped_command(isolation: Isolation, tmp: Path, command: list[str], writable: list[Path]) -> list[str]:
    """A command of the yard's own (uv) that may write only where it must: same user, confined by Landlock."""
    if not isolation.landlock:
        return command
    from ..core.home import Home

    home = Home(tmp.parent)
    scratch = tmp / "build"
    scratch.mkdir(exist_ok=True)
    readable = ["/root", "/home", "/usr/local", *{str(Path(part)) for part in os.environ.get("PATH", "").split(":") if part}]
    confinement = protocol.Confinement(
        writable=[str(path) for path in (*writable, scratch)],
        readable=_without(readable, home.root) + [sys.base_prefix, sys.prefix, *_configured_folders()],
        landlock=True,
    )
    file = tmp / f"sandbox-{ids.hex32()}.json"  # not in `scratch`: what runs beside it could change it
    trees.replace(file, json.dumps(protocol.document(confinement)).encode())
    return ["/usr/bin/env", f"TMPDIR={scratch}", *program("sandbox", str(file), "--", *command)]


def _without(folders: list[str], excluded: Path) -> list[str]:
    """Folders as Landlock rules, with the one that holds the yard's home replaced by its other entries."""
    remaining: list[str] = []
    for folder in folders:
        path = Path(folder)
        if not path.is_dir():
            continue
        if excluded == path or path in excluded.parents:
            remaining += _without([str(child) for child in path.iterdir() if child != excluded], excluded)
        elif excluded not in path.parents and path != excluded:
            remaining.append(folder)
    return remaining


def _configured_folders() -> list[str]:
    """Local package folders in the settings of pip or uv."""
    values = (value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_")))
    words = [word for value in values for word in re.split(r"[\s,]+", value)]  # pip's lists have spaces, some of uv's commas
    return [word.removeprefix("file://") for word in words if word.startswith(("/", "file:///"))]

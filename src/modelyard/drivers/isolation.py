"""How user code is isolated on this machine, detected once at start, and the runner's terms for it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from modelyard_runtime import files, protocol

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
    """`user`: every process gets a user id of its own. `namespace`: closed folders on its way are opened privately.
    `network`: a build gets a network of its own."""

    user: bool
    namespace: bool
    landlock: int
    private: bool = False
    """`/tmp` and `/dev/shm` of its own for each process, and nothing to be seen in the folders of `hidden`."""
    processes: bool = False
    """Nobody sees the processes of others."""
    hidden: tuple[Path, ...] = ()
    network: bool = False

    @property
    def name(self) -> str:
        return "+".join(word for word, on in (("user", self.user), ("landlock", self.landlock > 0)) if on) or "none"

    def notices(self) -> list[str]:
        return [*self._weaknesses(), *self._of_builds()]

    def _weaknesses(self) -> list[str]:
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

    def _of_builds(self) -> list[str]:
        """What is weaker of builds than with namespaces."""
        if self.network or not sys.platform.startswith("linux"):
            return []
        kept = "by Landlock, which knows ports but no hosts" if self.landlock >= 4 else "by its variables alone"
        return [f"no private network can be made here: a package that is built is kept to the yard's proxy {kept}"]

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
    if not sys.platform.startswith("linux"):
        return Isolation(False, False, 0)
    probe = json.loads(subprocess.run(program("sandbox", "--probe"), capture_output=True, text=True, check=True).stdout)
    network, landlock = bool(probe["network"]), int(probe["landlock"])
    private, hidden = bool(probe["private"]), tuple(home / name for name in HIDDEN)
    if mode == "off":
        return Isolation(False, False, 0, network=network)
    if mode == "landlock":
        return Isolation(False, False, landlock, private, False, hidden, network)
    namespace = bool(probe["namespace"])
    reachable = all(_open_to_others(path) for path in (home, Path(sys.base_prefix), RUNTIME))
    user = bool(probe["root"]) and (namespace or reachable)
    return Isolation(user, namespace, landlock, private, user and bool(probe["processes"]), hidden, network)


def _open_to_others(path: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in path.resolve().parents if parent.exists())

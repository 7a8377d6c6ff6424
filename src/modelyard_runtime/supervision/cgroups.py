"""Control groups: they end a whole tree of processes at once, bound its memory and number, and count what the kernel ended for memory.

A machine has the unified hierarchy (v2), older ones with a controller each (v1), or both, mounted wherever it likes; each controller is in
one of them. Nothing is assumed: where a group can be made is found by trying, from this process's own group upwards. Where none can be had,
processes are ended by their descent and by a mark in their environment (`processes.marked`).
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

from modelyard_runtime.protocol import ControlGroup
from modelyard_runtime.supervision import processes

CONTROLLERS = ("memory", "pids")
PROCESSES = 16384
"""Processes and threads that one command may have: far more than any needs, far fewer than the machine has."""
PROCS = "cgroup.procs"


class Place:
    """A folder of a hierarchy below which groups are made. `unified`: of v2, where a controller is handed on by each folder to those below."""

    def __init__(self, folder: str, unified: bool) -> None:
        self.folder, self.unified = folder, unified

    def make(self, *names: str) -> str:
        """The folder of a group below it. Raises OSError."""
        path = self.folder
        for name in names:
            if self.unified:
                self._hand_on(path)
            path = os.path.join(path, name)
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, 0o755)
        return path

    @staticmethod
    def _hand_on(folder: str) -> None:
        for controller in CONTROLLERS:
            with contextlib.suppress(OSError):  # not there, or processes lie in this folder itself
                _write(os.path.join(folder, "cgroup.subtree_control"), "+" + controller)


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()


def own_folders(groups: str, mounts: str) -> dict[str, tuple[str, str]]:
    """(folder, mount point) of this process's group, by controller; "" is the unified hierarchy. From `/proc/self/{cgroup,mountinfo}`."""
    mounted: dict[str, tuple[str, str]] = {}
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        root, point = _unescaped(fields[3]), _unescaped(fields[4])
        for name in ("",) if kind[0] == "cgroup2" else kind[2].split(","):
            mounted.setdefault(name, (root, point))
    found: dict[str, tuple[str, str]] = {}
    for line in groups.splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        for name in names.split(","):
            if name not in mounted or ".." in path.split("/"):
                continue
            root, point = mounted[name]
            below = os.path.relpath(path, root)
            if not below.startswith(".."):  # else it lies outside what this mount shows
                found[name] = (os.path.normpath(os.path.join(point, below)), point)
    return found


def _unescaped(text: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text


class Groups:
    """The groups of one yard, which are named `yard-NAME/…`."""

    def __init__(self, name: str) -> None:
        self.name = "yard-" + name
        self.kill: Place | None = None
        self.limits: dict[str, Place] = {}
        """By controller."""
        try:
            found = own_folders(_read("/proc/self/cgroup"), _read("/proc/self/mountinfo"))
        except OSError:
            return
        for controller in CONTROLLERS:
            place = self._place(found, controller)
            if place is not None:
                self.limits[controller] = place
        unified = [place for place in self.limits.values() if place.unified]
        self.kill = unified[0] if unified else self._usable(found, "", "cgroup.kill")

    def _place(self, found: dict[str, tuple[str, str]], controller: str) -> Place | None:
        shown = {"memory": ("memory.limit_in_bytes", "memory.max"), "pids": ("pids.max", "pids.max")}[controller]
        return self._usable(found, controller, shown[0]) or self._usable(found, "", shown[1])

    def _usable(self, found: dict[str, tuple[str, str]], hierarchy: str, file: str) -> Place | None:
        """The nearest folder, from our own upwards, in which we can make a group with `file` that a process of ours can join."""
        if hierarchy not in found:
            return None
        folder, top = found[hierarchy]
        while True:
            place = Place(folder, hierarchy == "")
            if self._works(place, file):
                return place
            if folder == top or folder == os.path.dirname(folder):
                return None
            folder = os.path.dirname(folder)

    def _works(self, place: Place, file: str) -> bool:
        trial = "trial-%d" % os.getpid()
        try:
            path = place.make(self.name, trial)
        except OSError:
            return False
        try:
            return os.path.exists(os.path.join(path, file)) and _can_join(path)
        finally:
            for folder in (path, os.path.dirname(path)):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)

    def make(self, name: str) -> ControlGroup | None:
        """A group for one command; None where there are none."""
        group = ControlGroup()
        places = {"kill": self.kill, **self.limits}
        for field, place in places.items():
            if place is not None:
                with contextlib.suppress(OSError):
                    setattr(group, field, place.make(self.name, name))
        return group if folders(group) else None

    def remove(self) -> None:
        """Of all commands, as far as they are empty."""
        for place in {place.folder: place for place in (self.kill, *self.limits.values()) if place is not None}.values():
            base = os.path.join(place.folder, self.name)
            with contextlib.suppress(OSError):
                for name in os.listdir(base):
                    with contextlib.suppress(OSError):
                        os.rmdir(os.path.join(base, name))
                os.rmdir(base)


def _can_join(folder: str) -> bool:
    child = os.fork()
    if child == 0:
        try:
            _write(os.path.join(folder, PROCS), "0")
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def folders(group: ControlGroup | None) -> list[str]:
    """Each folder once."""
    return sorted({folder for folder in (group.kill, group.memory, group.pids) if folder}) if group is not None else []


def join(group: ControlGroup | None, pid: int) -> None:
    """Put a process, and what it starts from then on, into a group. Raises ProcessLookupError for one that has ended, and OSError."""
    for folder in folders(group):
        _write(os.path.join(folder, PROCS), str(pid))


def limit(group: ControlGroup, memory_bytes: int | None) -> None:
    """Bound what is in the group; a limit that cannot be set is left out."""
    if group.pids:
        with contextlib.suppress(OSError):
            _write(os.path.join(group.pids, "pids.max"), str(PROCESSES))
    if group.memory and memory_bytes:
        for name, text in (
            ("memory.limit_in_bytes", str(memory_bytes)), ("memory.memsw.limit_in_bytes", str(memory_bytes)),
            ("memory.max", str(memory_bytes)), ("memory.swap.max", "0"), ("memory.oom.group", "1"),
        ):  # fmt: skip
            with contextlib.suppress(OSError):
                _write(os.path.join(group.memory, name), text)


def limits_memory(group: ControlGroup | None) -> bool:
    """Whether the kernel holds a group to a limit of memory."""
    return group is not None and _number(group.memory, "memory.max", "memory.limit_in_bytes") is not None


def memory_kills(group: ControlGroup | None) -> int:
    """Processes of the group that the kernel ended for want of memory, by the group's limit or the machine's."""
    for name in ("memory.events", "memory.oom_control"):
        for line in _lines(group.memory if group is not None else None, name):
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def memory_peak(group: ControlGroup | None) -> int | None:
    """The most bytes that the group held; None where the kernel does not count them."""
    return _number(group.memory if group is not None else None, "memory.peak", "memory.max_usage_in_bytes")


def _number(folder: str | None, *names: str) -> int | None:
    for name in names:
        for line in _lines(folder, name):
            if line.strip().isdigit() and int(line) < 1 << 60:  # v1 writes no limit as a large number
                return int(line)
    return None


def _lines(folder: str | None, name: str) -> list[str]:
    try:
        return _read(os.path.join(folder, name)).splitlines() if folder else []
    except OSError:
        return []


def pids(group: ControlGroup | None) -> Iterator[int]:
    """The processes of the group that still run."""
    seen = set()
    for folder in folders(group):
        for line in _lines(folder, PROCS):
            pid = int(line)
            if pid not in seen and processes.start_time(pid) is not None:
                seen.add(pid)
                yield pid


def kill(group: ControlGroup | None) -> None:
    """End all that is in the group, what it starts meanwhile included where the kernel can."""
    if group is not None and group.kill:
        with contextlib.suppress(OSError):
            _write(os.path.join(group.kill, "cgroup.kill"), "1")
            return
    for pid in pids(group):
        processes.send(pid, signal.SIGKILL)


def remove(group: ControlGroup | None) -> None:
    """The folders of a group in which nothing is any more."""
    for folder in folders(group):
        with contextlib.suppress(OSError):
            os.rmdir(folder)

"""Processes by what the kernel says of them: who is whose child, and which is the very one that was started."""

from __future__ import annotations

import os
import select
import signal
from typing import Any


def boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""


def start_time(pid: int) -> int | None:
    """The kernel's start time of a process, which with its pid and the boot id names it for good; None when it is gone."""
    try:
        fields = _bytes("/proc/%d/stat" % pid).rsplit(b")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def identity(pid: int) -> dict[str, Any]:
    return {"pid": pid, "start": start_time(pid), "boot": boot_id()}


def is_alive(known: dict[str, Any] | None) -> bool:
    """Whether the very process of an `identity` still runs."""
    return known is not None and known["boot"] == boot_id() and known["start"] is not None and start_time(known["pid"]) == known["start"]


def children(pid: int) -> list[int]:
    """The processes that `pid` is the parent of."""
    pids: list[int] = []
    try:
        for thread in os.listdir("/proc/%d/task" % pid):
            pids += [int(child) for child in _bytes("/proc/%d/task/%s/children" % (pid, thread)).split()]
    except FileNotFoundError:
        if not os.path.exists("/proc/self/task/%d/children" % os.getpid()):
            return _children_by_parent().get(pid, [])  # a kernel without these files
    except (OSError, ValueError):
        pass
    return pids


def _children_by_parent() -> dict[int, list[int]]:
    children_of: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                parent = int(_bytes("/proc/%s/stat" % name).rsplit(b")", 1)[1].split()[1])
            except (OSError, IndexError, ValueError):
                continue
            children_of.setdefault(parent, []).append(int(name))
    return children_of


def _bytes(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        content = os.read(descriptor, 1 << 16)
        while len(content) % (1 << 16) == 0 and content:
            chunk = os.read(descriptor, 1 << 16)
            if not chunk:
                break
            content += chunk
        return content
    finally:
        os.close(descriptor)


def descendants(pid: int) -> list[int]:
    """Every process below `pid`, parents before their children."""
    pids = []
    unvisited = children(pid)
    while unvisited:
        current = unvisited.pop()
        pids.append(current)
        unvisited += children(current)
    return pids


def end_descendants(rounds: int) -> None:
    """Kill whatever is left below this process, and reap it, until nothing is; 10 ms a round."""
    for _ in range(rounds):
        below = descendants(os.getpid())
        if not below:
            return
        for pid in below:
            send(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            continue
        select.select([], [], [], 0.01)


def tree(pid: int) -> list[int]:
    """`pid` and every process below it, the order in which they are ended: what is below cannot flee to a parent that is there still."""
    return [*descendants(pid), pid]


MARK = "MODELYARD_COMMAND"
"""The variable in which each command and what it starts carry whose they are: YARD/COMMAND, both digests."""


OWN_USERS = range(52000, 60000)
"""User ids that a supervisor of root gives out to commands."""


def marked(mark: str, uid: int | None = None) -> list[int]:
    """What still runs of a command: what carries its `mark` (which may be the beginning of one), and what carries none and is of the user
    `uid`, which is the command's alone.

    Without such a user, a process that was started with another environment and has lost its parents is not found.
    """
    if not mark:
        return []
    found = []
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        if not name.isdigit() or int(name) == os.getpid():
            continue
        pid = int(name)
        try:
            owner = _owner(pid)
            ours = owner == os.geteuid() or (os.geteuid() == 0 and owner in OWN_USERS)
            carried = _mark(pid) if ours else None
        except (OSError, ValueError):
            continue
        # Another yard of this machine may have given the same user to a command of its own.
        hit = carried.startswith(mark) if carried else ours and owner == uid
        if hit and start_time(pid) is not None:
            found.append(pid)
    return found


def _mark(pid: int) -> str:
    """What a process was started with; empty when it carries no mark."""
    word = (MARK + "=").encode()
    parts = (part[len(word) :] for part in _bytes("/proc/%d/environ" % pid).split(b"\0") if part.startswith(word))
    return next(parts, b"").decode("utf-8", "replace")


def _owner(pid: int) -> int:
    """The real user of a process; the owner of its folder is root while it is closed to others."""
    for line in _bytes("/proc/%d/status" % pid).splitlines():
        if line.startswith(b"Uid:"):
            return int(line.split()[1])
    raise ValueError("a process without a user")


def send(pid: int, number: int) -> None:
    """A signal, to a process that may be gone."""
    try:
        os.kill(pid, number)
    except OSError:
        pass

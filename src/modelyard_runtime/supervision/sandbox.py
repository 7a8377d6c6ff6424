"""Keeping user code apart from the yard: another user, a private view of the mounts, Landlock.

As root the process gets a user id of its own; folders on the way that are closed to others (such as /root) are replaced,
in its private mount namespace, by empty ones that hold just what it needs. Landlock then limits files, and (from its
ABI 6, Linux 6.12) signals; it also keeps the process from tracing anything outside. Without root, Landlock alone, and, where the machine lets
its users have user namespaces, a private view of the mounts too: `/dev/shm` and `/tmp` of its own, and empty folders where sockets lie.

Run as a program: `sandbox --probe` prints what works here as JSON; `sandbox CONFINEMENT.json -- COMMAND…` runs a command.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import signal
import socket
import stat
import struct
import sys
from collections.abc import Callable
from typing import Any

from modelyard_runtime import protocol

SYSTEM_READABLE = (
    "/usr",
    "/lib",
    "/lib64",
    "/lib32",
    "/bin",
    "/sbin",
    "/etc",
    "/opt",
    "/proc",
    "/sys",
    "/run/systemd/resolve",
    "/var/lib/dpkg",
)
DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm")

_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1
_MS_BIND, _MS_REC, _MS_PRIVATE, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 4096, 16384, 1 << 18, 2, 4, 8
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_SET_CHILD_SUBREAPER = 1, 4, 24, 38, 36
_CAPABILITIES = 64
_SYS_LANDLOCK_CREATE, _SYS_LANDLOCK_ADD, _SYS_LANDLOCK_RESTRICT = 444, 445, 446

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_CONNECT_TCP, _RULE_PATH, _RULE_PORT = 2, 1, 2
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV

_libc = ctypes.CDLL(None, use_errno=True)


class _RulesetAttr(ctypes.Structure):
    _fields_ = [("handled_access_fs", ctypes.c_uint64), ("handled_access_net", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _PathBeneathAttr(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32)]


class _NetPortAttr(ctypes.Structure):
    _fields_ = [("allowed_access", ctypes.c_uint64), ("port", ctypes.c_uint64)]


def landlock_abi() -> int:
    """The kernel's Landlock version; 0 where there is none."""
    if not sys.platform.startswith("linux"):
        return 0
    version = int(_libc.syscall(_SYS_LANDLOCK_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1)))
    return max(0, version)


def probe() -> dict[str, Any]:
    """What works here: {root, namespace, landlock, private, processes, network}. Tried in a child, so that this process stays as it is."""
    root = os.name == "posix" and hasattr(os, "geteuid") and os.geteuid() == 0
    return {
        "root": root, "namespace": root and _try(_private_mounts), "landlock": landlock_abi(), "private": _try(_try_private),
        "processes": root and _try(_try_processes), "network": sys.platform.startswith("linux") and _try(private_network),
    }  # fmt: skip


def _try_private() -> None:
    _private_mounts()
    _private_memory()


def _try_processes() -> None:
    _private_mounts()
    _hide_processes()


def _try(action: Callable[[], None]) -> bool:
    child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def become_subreaper() -> None:
    """Orphans among our descendants become our children, so that none escapes."""
    if sys.platform.startswith("linux"):
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def hide() -> None:
    """Close this process's memory and environment to others of the same user; what it executes is open again."""
    if sys.platform.startswith("linux"):
        _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def die_with_parent(signal_number: int) -> None:
    if sys.platform.startswith("linux"):
        _libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)


def die_with(parent: int) -> None:
    """Be killed when `parent`, which forked this process, ends. A change of user undoes it, so it comes after `enter`; and the parent may be
    gone by then, in which case this process ends now."""
    die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(126)


def enter(confinement: protocol.Confinement) -> None:
    """Confine this process for good, just before it executes user code.

    Raises OSError when a part that was asked for does not work: never run unconfined by mistake.
    """
    writable = [path for path in confinement.writable if os.path.exists(path)]
    readable = [path for path in confinement.readable if os.path.exists(path)]
    uid = confinement.uid
    if isinstance(uid, str):
        raise OSError(errno.EINVAL, "nobody has chosen a user id for this process")
    own_namespace = confinement.private and os.geteuid() != 0
    if confinement.private or (uid is not None and confinement.namespace):
        _private_mounts()
    if uid is not None and confinement.namespace:
        _open_the_way([*writable, *readable])
    if confinement.private:
        _own_view(confinement, [*writable, *readable], processes=uid is not None)
    if uid is not None:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    elif os.geteuid() == 0 or own_namespace:
        _drop_capabilities()
    if sys.platform.startswith("linux"):
        _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    if confinement.landlock:
        _landlock(writable, readable, confinement.tcp)


def private_network() -> None:
    """Leave the machine's network for an empty one that has a loopback only, of its own. Without root it comes with a user namespace.

    Raises OSError, with nothing changed, where the kernel does not allow it.
    """
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        _check(_libc.unshare(_CLONE_NEWNET), "unshare")
    else:
        _libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # else the files below belong to root
        _check(_libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET), "unshare")
        for name, text in (("setgroups", "deny"), ("uid_map", "%d %d 1" % (uid, uid)), ("gid_map", "%d %d 1" % (gid, gid))):
            with open("/proc/self/" + name, "w") as file:
                file.write(text)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", _IFF_UP))


def _drop_capabilities() -> None:
    """Root in name only, where a user of its own cannot be had."""
    for number in range(_CAPABILITIES):
        _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    none = (ctypes.c_uint32 * 6)()
    _check(_libc.capset(header, none), "capset")


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, "%s: %s" % (what, os.strerror(number)))
    return result


def _private_mounts() -> None:
    if os.geteuid() == 0:
        _check(_libc.unshare(_CLONE_NEWNS), "unshare")
    else:
        _own_user_namespace()
    _check(_libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None), "mount --make-rprivate /")


def _open_the_way(paths: list[str]) -> None:
    """Replace folders that others cannot traverse by empty ones holding only what of `paths` lies inside."""
    inside: dict[str, list[str]] = {}
    for path in paths:
        closed = _closed_ancestor(os.path.realpath(path))
        if closed:
            inside.setdefault(closed, []).append(os.path.realpath(path))
    for closed, needed in inside.items():
        _cover(closed, needed, _mount_empty)


def _cover(folder: str, needed: list[str], mount: Callable[[str], None]) -> None:
    """Put something else in the place of a folder, and into it what is needed of the folder."""
    held = [(path, os.open(path, os.O_PATH | os.O_CLOEXEC), os.path.isdir(path)) for path in sorted(needed, key=len)]
    mount(folder)
    for path, descriptor, is_folder in held:
        if is_folder:
            os.makedirs(path, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if not os.path.exists(path):
                os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))
        _bind(descriptor, path)
        os.close(descriptor)


def _mount_empty(folder: str) -> None:
    _check(_libc.mount(b"tmpfs", folder.encode(), b"tmpfs", _MS_NOSUID | _MS_NODEV, b"mode=0755,size=1m"), "mount " + folder)


def _bind(descriptor: int, path: str) -> None:
    source = "/proc/self/fd/%d" % descriptor
    _check(_libc.mount(source.encode(), path.encode(), None, _MS_BIND | _MS_REC, None), "bind " + path)


def _own_user_namespace() -> None:
    """Mounts without root. The user stays who it is, and can have no user namespace below this one."""
    uid, gid = os.geteuid(), os.getegid()
    _libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # or the files below belong to root
    _check(_libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", "%d %d 1" % (uid, uid)), ("gid_map", "%d %d 1" % (gid, gid))):
        _write("/proc/self/" + name, text)
    _write("/proc/sys/user/max_user_namespaces", "0")


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _own_view(confinement: protocol.Confinement, needed: list[str], processes: bool) -> None:
    paths = [os.path.realpath(path) for path in needed]
    for folder in map(os.path.realpath, confinement.hidden):
        if os.path.isdir(folder) and not any(folder == path or folder.startswith(path + os.sep) for path in paths):
            _cover(folder, [path for path in paths if path.startswith(folder + os.sep)], _mount_empty)
    _private_memory()
    if confinement.tmp is not None and os.path.isdir("/tmp"):
        inside = [path for path in paths if path.startswith("/tmp/")]
        if inside:
            # Landlock lets a process do with a path what it may do with any folder above it, across mounts: what only may be read must not
            # lie below a folder that may be written.
            _cover("/tmp", inside, _mount_empty)
        else:
            own = os.open(confinement.tmp, os.O_PATH | os.O_CLOEXEC)
            _bind(own, "/tmp")
            os.close(own)
    if processes:
        try:
            _hide_processes()
        except OSError:
            pass  # told apart by `probe`


def _private_memory() -> None:
    if os.path.isdir("/dev/shm"):
        _check(_libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", _MS_NOSUID | _MS_NODEV, b"mode=1777"), "mount /dev/shm")


def _hide_processes() -> None:
    """A `/proc` that shows a user only its own processes. Raises OSError where that cannot be had for one mount alone."""
    if tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2]) < (5, 8):
        raise OSError(errno.ENOSYS, "the options of /proc are those of the whole machine")
    _check(_libc.mount(b"proc", b"/proc", b"proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, b"hidepid=2"), "mount /proc")


def _closed_ancestor(path: str) -> str | None:
    """The topmost folder above `path` that others may not traverse, or None."""
    current = "/"
    for part in path.strip("/").split("/")[:-1]:
        current = os.path.join(current, part)
        if not os.stat(current).st_mode & stat.S_IXOTH:
            return current
    return None


def _landlock(writable: list[str], readable: list[str], tcp: list[int] | None = None) -> None:
    abi = landlock_abi()
    handled = (1 << 13) - 1
    if abi >= 2:
        handled |= _REFER
    if abi >= 3:
        handled |= _TRUNCATE
    if abi >= 5:
        handled |= _IOCTL_DEV
    network = _CONNECT_TCP if tcp is not None and abi >= 4 else 0
    attributes = _RulesetAttr(handled, network, 3 if abi >= 6 else 0)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    ruleset = _check(_libc.syscall(_SYS_LANDLOCK_CREATE, ctypes.byref(attributes), ctypes.c_size_t(size), ctypes.c_uint32(0)), "landlock")
    read = _EXECUTE | _READ_FILE | _READ_DIR
    devices = ["/dev/" + name for name in DEVICES]
    try:
        devices += ["/dev/" + name for name in os.listdir("/dev") if name.startswith(("nvidia", "dri", "kfd", "fuse"))]
    except PermissionError:
        pass  # confined already: what is added now can only be less
    for path in [*SYSTEM_READABLE, *readable]:
        _allow(ruleset, path, read & handled)
    for path in [*devices, *writable]:
        _allow(ruleset, path, handled & ~_REFER if path in devices else handled)
    for port in tcp or () if network else ():
        _rule(ruleset, _RULE_PORT, _NetPortAttr(network, port), "port %d" % port)
    _check(_libc.syscall(_SYS_LANDLOCK_RESTRICT, ctypes.c_int(ruleset), ctypes.c_uint32(0)), "landlock_restrict_self")
    os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _FILE_RIGHTS
        _rule(ruleset, _RULE_PATH, _PathBeneathAttr(rights, descriptor), path)
    finally:
        os.close(descriptor)


def _rule(ruleset: int, kind: int, rule: ctypes.Structure, what: str) -> None:
    result = _libc.syscall(_SYS_LANDLOCK_ADD, ctypes.c_int(ruleset), ctypes.c_int(kind), ctypes.byref(rule), ctypes.c_uint32(0))
    _check(result, "landlock rule for " + what)


def main(arguments: list[str]) -> int:
    if arguments == ["--probe"]:
        print(json.dumps(probe()))
        return 0
    if len(arguments) < 3 or arguments[1] != "--":
        print("usage: sandbox --probe | sandbox CONFINEMENT.json -- COMMAND…", file=sys.stderr)
        return 2
    specification, _, *command = arguments
    with open(specification) as file:
        confinement = protocol.read(protocol.Confinement, json.load(file))
    os.unlink(specification)  # written for this one start
    enter(confinement)
    os.execvp(command[0], command)
    raise AssertionError("exec does not return")

"""Small durable files and process identities, shared by the runner and the supervisor."""

import json
import os


def write(path, document, durably=False):
    """Write JSON so that it is there whole or not at all, for whoever reads it meanwhile and after a kill."""
    partial = path + ".partial"
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(document, file)
        if durably:
            file.flush()
            os.fsync(file.fileno())
    os.rename(partial, path)


def write_durably(path, document):
    """As `write`, and after a power cut too: temporary file, sync, rename, sync the folder."""
    write(path, document, durably=True)
    folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read(path):
    """The document at `path`, or None when it is absent or not whole."""
    try:
        with open(path) as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def boot_id():
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""


def start_time(pid):
    """The kernel's start time of a process, which with its pid and the boot id names it for good; None when it is gone."""
    try:
        fields = _bytes("/proc/%d/stat" % pid).rsplit(b")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def identity(pid):
    return {"pid": pid, "start": start_time(pid), "boot": boot_id()}


def is_alive(known):
    """Whether the very process of an `identity` still runs."""
    return bool(known) and known["boot"] == boot_id() and known["start"] is not None and start_time(known["pid"]) == known["start"]


def children(pid):
    """The processes that `pid` is the parent of."""
    found = []
    try:
        for thread in os.listdir("/proc/%d/task" % pid):
            found += [int(child) for child in _bytes("/proc/%d/task/%s/children" % (pid, thread)).split()]
    except FileNotFoundError:
        if not os.path.exists("/proc/self/task/%d/children" % os.getpid()):
            return _children_by_parent().get(pid, [])  # a kernel without these files
    except (OSError, ValueError):
        pass
    return found


def _children_by_parent():
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                parent = int(_bytes("/proc/%s/stat" % name).rsplit(b")", 1)[1].split()[1])
            except (OSError, IndexError, ValueError):
                continue
            found.setdefault(parent, []).append(int(name))
    return found


def _bytes(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        found = os.read(descriptor, 1 << 16)
        while len(found) % (1 << 16) == 0 and found:
            more = os.read(descriptor, 1 << 16)
            if not more:
                break
            found += more
        return found
    finally:
        os.close(descriptor)


def descendants(pid):
    """Every process below `pid`, parents before their children."""
    found = []
    waiting = children(pid)
    while waiting:
        current = waiting.pop()
        found.append(current)
        waiting += children(current)
    return found

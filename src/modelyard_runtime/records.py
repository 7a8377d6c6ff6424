"""Small durable files and process identities, shared by the runner and the supervisor."""

import json
import os


def write_durably(path, document):
    """Write JSON so that it is there whole after a power cut: temporary file, sync, rename, sync the folder."""
    partial = path + ".partial"
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(partial, path)
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
        with open("/proc/%d/stat" % pid) as file:
            fields = file.read().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])


def identity(pid):
    return {"pid": pid, "start": start_time(pid), "boot": boot_id()}


def is_alive(known):
    """Whether the very process of an `identity` still runs."""
    return bool(known) and known["boot"] == boot_id() and known["start"] is not None and start_time(known["pid"]) == known["start"]


def descendants(pid):
    """Every process below `pid`, children before their children."""
    children = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open("/proc/%s/stat" % name) as file:
                    parent = int(file.read().rsplit(")", 1)[1].split()[1])
            except (OSError, IndexError, ValueError):
                continue
            children.setdefault(parent, []).append(int(name))
    found = []
    waiting = list(children.get(pid, ()))
    while waiting:
        current = waiting.pop()
        found.append(current)
        waiting.extend(children.get(current, ()))
    return found

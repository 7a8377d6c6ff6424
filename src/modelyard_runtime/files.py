"""Files that are there whole or not at all, for the server, the client and these programs alike, and unix sockets whose path is longer than
their address may be. Standard library only."""

import contextlib
import errno
import hashlib
import json
import os
import socket
import stat
import sys
from typing import Any, Iterator, Union

AnyPath = Union[str, "os.PathLike[str]"]
RUNTIME = os.path.dirname(os.path.realpath(__file__))


def write_whole(path: AnyPath, data: Union[bytes, str], mode: int = 0o600, *, durable: bool = False) -> None:
    """Whoever reads `path`, meanwhile or after a kill, gets all of the data or what was there before; `durable`: after a power cut too.

    The file has `mode` from its first byte on, so that a secret is never readable by others.
    """
    folder, name = os.path.split(os.fspath(path))
    partial = os.path.join(folder, ".%s.%s.partial" % (name, os.urandom(8).hex()))
    try:
        # A name that nobody can guess, and that must not exist: no link of somebody else's leads out of the folder.
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
        if durable:
            rename_durably(partial, path)
        else:
            os.rename(partial, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)
        raise


def rename_durably(partial: AnyPath, path: AnyPath) -> None:
    """Give a file that was written under another name its own; both the content and the name survive a power cut."""
    with open(partial, "rb") as file:
        os.fsync(file.fileno())
    os.rename(partial, path)
    sync_folder(os.path.dirname(os.fspath(path)))


def sync_folder(folder: AnyPath) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: str, document: Any, durable: bool = False) -> None:
    write_whole(path, json.dumps(document), durable=durable)


def read_json(path: str) -> Any:
    """The document at `path`, or None when it is absent or not whole."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def socket_address(path: str) -> Iterator[str]:
    """A spelling of a unix socket's path for `connect` and `bind`, valid inside the context: an address has 107 bytes at most, a path has not."""
    if not sys.platform.startswith("linux"):
        yield path
        return
    folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield "/proc/self/fd/%d/%s" % (folder, os.path.basename(path))
    finally:
        os.close(folder)


@contextlib.contextmanager
def existing_socket(path: str) -> Iterator[str]:
    """As `socket_address`, of a socket in a folder that others can write: the very socket that is there, never what a link leads to."""
    if not sys.platform.startswith("linux"):
        yield path
        return
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            raise FileNotFoundError(errno.ENOENT, "this is no socket", path)
        yield "/proc/self/fd/%d" % descriptor
    finally:
        os.close(descriptor)


def bound_socket(path: str, mode: int) -> socket.socket:
    """A unix socket bound to `path`, not listening yet; the socket file of an earlier process is replaced."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old = os.umask(0o177)
    try:
        with socket_address(path) as address:
            bound.bind(address)
        os.chmod(path, mode)
    except OSError:
        bound.close()
        raise
    finally:
        os.umask(old)
    return bound


def code_digest(room: str) -> str:
    """Of the code of one room and of what all rooms share: another version of a program is known by it."""
    digest = hashlib.sha256()
    for folder in (RUNTIME, os.path.join(RUNTIME, room)):
        for name in sorted(os.listdir(folder)):
            if name.endswith(".py"):
                with open(os.path.join(folder, name), "rb") as file:
                    digest.update(file.read())
    return digest.hexdigest()[:16]

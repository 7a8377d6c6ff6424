"""Files that are there whole or not at all, for the server, the client and these programs alike, and unix sockets whose path is longer than
their address may be. Standard library only."""

import contextlib
import errno
import hashlib
import json
import os
import socket
import stat
import struct
import sys
from typing import Any, Iterator, Optional, Union

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


class Reserve:
    """Room on the disk that is taken beforehand, so that the record at `path` can be written when there is none left.

    It is written over in place and then renamed, which takes no further room; where every change is written elsewhere (btrfs, ZFS) a writer
    still waits for room.
    """

    BYTES = 8192

    def __init__(self, path: str) -> None:
        self._record = path
        self._path = os.path.join(os.path.dirname(path), ".%s.reserve" % os.path.basename(path))

    def take(self) -> bool:
        """Whether the room is there."""
        try:
            if os.stat(self._path).st_size >= self.BYTES:
                return True
        except OSError:
            pass
        try:
            write_whole(self._path, b"\0" * self.BYTES)
        except OSError:
            return False
        return True

    def write(self, data: bytes) -> None:
        """Make `data` the record, durably. Raises OSError when there is no reserve, or it is too small."""
        if len(data) > self.BYTES:
            raise OSError(errno.EFBIG, "the record is larger than its reserve", self._record)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.pwrite(descriptor, data, 0)
            os.ftruncate(descriptor, len(data))
        finally:
            os.close(descriptor)
        rename_durably(self._path, self._record)

    def drop(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._path)


def may_pass(error: OSError) -> bool:
    """Whether a record that could not be written may be written later: not when its folder is gone."""
    return error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)


def report(text: str) -> None:
    """A line on standard error, the log of these programs. One that cannot be written is dropped: a full disk ends no program."""
    with contextlib.suppress(OSError):
        os.write(2, (text + "\n").encode("utf-8", "replace"))


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


def peer_uid(connection: socket.socket) -> Optional[int]:
    """The user that connected to a unix socket, as the kernel says; None where it does not."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(uid)


def is_own_peer(connection: socket.socket) -> bool:
    """Whether who connected is this process's user, or root."""
    return peer_uid(connection) in (None, 0, os.geteuid())


def code_digest(room: str) -> str:
    """Of the code of one room and of what all rooms share: another version of a program is known by it."""
    digest = hashlib.sha256()
    for folder in (RUNTIME, os.path.join(RUNTIME, room)):
        for name in sorted(os.listdir(folder)):
            if name.endswith(".py"):
                with open(os.path.join(folder, name), "rb") as file:
                    digest.update(file.read())
    return digest.hexdigest()[:16]

"""Files in folders that user code can write, reached so that nothing in them leads elsewhere.

A path is absolute and is opened one component at a time from `/`, each relative to the descriptor of the one before and none
through a symbolic link: what user code puts in the way of a path makes it fail, never makes it another one. A pipe, a socket or a
device is refused by the descriptor that was opened (without waiting for its other end): a check by name before the open could be outrun.
`Home` has resolved the links on the way to a yard's own folder.

This is the only module that may touch files which user code can write (`tests/house/test_architecture.py`).
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from . import ids
from .errors import Unavailable

MAX_DEPTH = 64
"""Folders below each other that are walked; each holds a descriptor."""
MAX_LINKS = 40
"""Links followed on the way to one file, as in the kernel."""
MAX_NAMES = 1_000_000
"""Entries read when the other names of a hard link are searched."""
_BATCH = 1_000
_NO_LINK = os.O_NOFOLLOW | os.O_CLOEXEC
_PASS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | _NO_LINK
_LIST = os.O_RDONLY | os.O_DIRECTORY | _NO_LINK
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | _NO_LINK
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | _NO_LINK
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK
_IN_THE_WAY = (errno.ELOOP, errno.ENOTDIR, errno.ENXIO)
"""What the kernel answers for a link, a file instead of a folder, a socket or a pipe without a reader."""


class NotPlain(OSError):
    """A link, a pipe, a socket, a device, or a file where a folder belongs (or the reverse) is in the way of a path."""

    def __init__(self, name: str) -> None:
        super().__init__(errno.ELOOP, f"{name!r} is a link, or no plain file or folder")


class TooMany(OSError):
    """A tree has more entries than its reader takes."""

    def __init__(self, most: int) -> None:
        super().__init__(errno.E2BIG, f"there are more than {most:,} entries")


class Reason(StrEnum):
    """Why an entry of a tree is not read."""

    OUTSIDE = "is a link that leads out of the folder"
    DANGLING = "is a link to nothing"
    LOOP = "is a link to a folder that it lies in, which is not followed again"
    SPECIAL = "is a pipe, a socket or a device"
    HARD_LINK = "is a hard link to a file outside the job's folder"
    UNREADABLE = "cannot be read"
    EMPTY = "is an empty folder"
    DEEP = f"lies more than {MAX_DEPTH} folders deep"


@dataclass(frozen=True)
class Plain:
    """A plain file, open for reading until the next entry of the walk."""

    path: str
    file: BinaryIO


@dataclass(frozen=True)
class Refused:
    path: str
    reason: Reason


class Folder:
    """An open folder. What is named relative to it lies below it; the names on the way are no links.

    `make`: the mode of folders that are missing on the way, when they may be. Raises NotPlain, FileNotFoundError.
    """

    def __init__(self, path: Path, *, make: int | None = None) -> None:
        if not path.is_absolute():
            raise ValueError(f"{path} is not absolute")
        self.path = path
        top = os.open("/", _PASS)
        try:
            self._descriptor = _descend(top, path.parts[1:], make)
        finally:
            os.close(top)

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._descriptor)

    @contextmanager
    def _parent(self, name: str, make: int | None = None) -> Iterator[tuple[int, str]]:
        *folders, last = name.split("/")
        _check(last)
        descriptor = _descend(self._descriptor, folders, make)
        try:
            yield descriptor, last
        finally:
            os.close(descriptor)

    def open(self, name: str) -> BinaryIO:
        """A plain file, for reading."""
        with self._parent(name) as (parent, last):
            return os.fdopen(_plain(_open(last, _READ, parent), last), "rb")

    def create(self, name: str, mode: int = 0o600) -> BinaryIO:
        """A new file for writing; missing folders on the way are created (0755). Raises FileExistsError."""
        with self._parent(name, 0o755) as (parent, last):
            descriptor = _open(last, _CREATE, parent, mode)
        os.fchmod(descriptor, mode)
        return os.fdopen(descriptor, "wb")

    def append(self, name: str, data: bytes, mode: int = 0o600, *, durable: bool = False) -> None:
        with self._parent(name) as (parent, last):
            descriptor = _plain(_open(last, _APPEND, parent, mode), last)
        with os.fdopen(descriptor, "ab") as file:
            if os.fstat(descriptor).st_nlink != 1:
                raise NotPlain(last)
            file.write(data)
            if durable:
                file.flush()
                os.fsync(descriptor)

    def replace(self, name: str, chunks: Iterable[bytes], mode: int = 0o600) -> None:
        """Write a file that is there whole or not at all, replacing whatever had its name; folders on the way are created (0755)."""
        # Not `write_whole`: user code can change the folders on the way, so that every name is one below a descriptor.
        with self._parent(name, 0o755) as (parent, last):
            partial = f".{ids.hex32()}.partial"
            try:
                with os.fdopen(_open(partial, _CREATE, parent, mode), "wb") as file:
                    os.fchmod(file.fileno(), mode)
                    file.writelines(chunks)
                os.rename(partial, last, src_dir_fd=parent, dst_dir_fd=parent)
            except BaseException:
                _unlink(parent, partial)
                raise

    def make(self, name: str, mode: int = 0o700) -> None:
        """A folder of this mode, created when it is missing, like the folders on the way."""
        with self._parent(name, mode) as (parent, last):
            descriptor = _descend(parent, [last], mode)
        try:
            if stat.S_IMODE(os.fstat(descriptor).st_mode) != mode:
                _set_mode(descriptor, mode)
        finally:
            os.close(descriptor)

    def has(self, name: str) -> bool:
        """Whether there is a plain file or folder of this name."""
        try:
            with self._parent(name) as (parent, last):
                mode = os.stat(last, dir_fd=parent, follow_symlinks=False).st_mode
        except (FileNotFoundError, NotPlain):
            return False
        return stat.S_ISREG(mode) or stat.S_ISDIR(mode)

    def names(self, most: int = MAX_NAMES) -> list[str]:
        """What lies in it, sorted."""
        descriptor = _open(".", _LIST, self._descriptor)
        try:
            return _names(descriptor, most)
        finally:
            os.close(descriptor)

    def remove(self, name: str) -> None:
        """Remove a file, a link itself, or a folder with everything in it. Nothing happens when there is none."""
        with self._parent(name) as (parent, last):
            if _remove_single(parent, last):
                return
            top = _open_to_empty(parent, last)
            try:
                _empty(top)
            finally:
                os.close(top)
            os.rmdir(last, dir_fd=parent)

    def entries(self, most: int, within: Path | None = None) -> Iterator[Plain | Refused]:
        """Every file in it and below, folder by folder, names sorted; a folder that holds nothing is refused as one.

        A link to a file or folder inside is that file or folder. A file with several names (hard links) is read when all of them lie `within`; without
        `within` that is not asked. Raises TooMany beyond `most` entries.
        """
        return _Walk(self, most, within).entries()

    def entry(self, name: str, within: Path | None = None) -> Plain | Refused | None:
        """One file of this folder, as `entries` shows it; None when there is none."""
        return _Walk(self, 1, within).entry(name)


_LinkedFolder = tuple[list[int], list[int]]
"""Where a link to a folder leads: the folders from the top to it, and those of them that were opened for it."""


class _Level:
    """A folder of a walk. `chain`: the folders that it lies in, from the top down to itself, which for one that a link named are not
    those of the walk; `own`: those to be closed with it."""

    def __init__(self, prefix: str, chain: list[int], own: list[int]) -> None:
        self.prefix, self.chain, self.own = prefix, chain, own
        self.names: Iterator[str] = iter(())
        status = os.fstat(chain[-1])
        self.identity = status.st_dev, status.st_ino

    def close(self) -> None:
        for descriptor in self.own:
            os.close(descriptor)


def _not_entered(levels: list[_Level]) -> Reason | None:
    """Why a walk does not enter the last of its folders."""
    if len(levels) > MAX_DEPTH + 1 or sum(len(level.own) for level in levels) > 2 * MAX_DEPTH:
        return Reason.DEEP
    return Reason.LOOP if any(level.identity == levels[-1].identity for level in levels[:-1]) else None


class _Walk:
    def __init__(self, top: Folder, most: int, within: Path | None) -> None:
        self.top = top
        self.remaining = self.most = most
        self.within = within
        self._names: Counter[tuple[int, int]] | None = None

    def entries(self) -> Iterator[Plain | Refused]:
        top = _open(".", _LIST, self.top._descriptor)
        levels = [_Level("", [top], [top])]
        try:
            levels[0].names = iter(self._listed(top))
            while levels:
                level = levels[-1]
                name = next(level.names, None)
                if name is None:
                    levels.pop().close()
                    continue
                entry = self._open(level.chain, name)
                path = level.prefix + name
                if entry is None:
                    continue
                if isinstance(entry, Reason):
                    yield Refused(path, entry)
                elif isinstance(entry, int) and stat.S_ISREG(os.fstat(entry).st_mode):
                    with os.fdopen(entry, "rb") as file:
                        yield Plain(path, file)
                else:
                    below = _Level(f"{path}/", [*level.chain, entry], [entry]) if isinstance(entry, int) else _Level(f"{path}/", *entry)
                    levels.append(below)
                    if (reason := _not_entered(levels)) is not None:
                        levels.pop().close()
                        yield Refused(path, reason)
                    elif names := self._listed(below.chain[-1]):
                        below.names = iter(names)
                    else:
                        yield Refused(path, Reason.EMPTY)
        finally:
            for level in levels:
                level.close()

    def entry(self, name: str) -> Plain | Refused | None:
        _check(name)
        entry = self._open([self.top._descriptor], name)
        if entry is None:
            return None
        if isinstance(entry, Reason):
            return Refused(name, entry)
        if isinstance(entry, tuple):
            _Level("", *entry).close()
            raise NotPlain(name)
        if not stat.S_ISREG(os.fstat(entry).st_mode):
            os.close(entry)
            raise NotPlain(name)
        return Plain(name, os.fdopen(entry, "rb"))

    def _listed(self, descriptor: int) -> list[str]:
        try:
            names = _names(descriptor, self.remaining)
        except TooMany:
            raise TooMany(self.most) from None
        self.remaining -= len(names)
        return names

    def _open(self, descriptors: list[int], name: str) -> int | _LinkedFolder | Reason | None:
        """A descriptor of the plain file or the folder `name` in the last of the folders from the top; None when it is gone."""
        try:
            descriptor = os.open(name, _READ, dir_fd=descriptors[-1])
        except OSError as error:
            if error.errno == errno.ELOOP:
                return self._follow(descriptors, name)
            return _reason(error)
        return self._checked(descriptor)

    def _checked(self, descriptor: int) -> int | Reason:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            return descriptor
        if not stat.S_ISREG(status.st_mode):
            reason = Reason.SPECIAL
        elif (
            status.st_nlink > 1
            and self.within is not None
            and self._known_names(self.within)[status.st_dev, status.st_ino] < status.st_nlink
        ):
            reason = Reason.HARD_LINK
        else:
            return descriptor
        os.close(descriptor)
        return reason

    def _known_names(self, within: Path) -> Counter[tuple[int, int]]:
        """(device, inode) → how many names it has below `within`; counted once, when the first file with several comes."""
        if self._names is None:
            try:
                with Folder(within) as whole:
                    self._names = _hard_links(whole._descriptor)
            except TooMany:
                self._names = Counter()  # none is known to be the job's
        return self._names

    def _follow(self, descriptors: list[int], name: str) -> int | _LinkedFolder | Reason | None:
        """The file or folder that a link names, each part of its target opened beneath the top; `..` never leaves it."""
        borrowed = len(descriptors)
        opened_folders, parts, links = list(descriptors), deque([name]), 0

        def back_to(depth: int) -> None:
            """Go up to the folder of this depth; those of `descriptors` stay open."""
            nonlocal borrowed
            for descriptor in opened_folders[max(borrowed, depth) :]:
                os.close(descriptor)
            borrowed = min(borrowed, depth)
            del opened_folders[depth:]

        try:
            while parts:
                part = parts.popleft()
                if part in ("", "."):
                    continue
                if part == "..":
                    if len(opened_folders) == 1:
                        return Reason.OUTSIDE
                    back_to(len(opened_folders) - 1)
                    continue
                try:
                    entry = os.open(part, _READ, dir_fd=opened_folders[-1])
                except OSError as error:
                    if error.errno != errno.ELOOP:
                        return _reason(error) or Reason.DANGLING
                    links += 1
                    if links > MAX_LINKS:
                        return Reason.DANGLING
                    target = os.readlink(part, dir_fd=opened_folders[-1])
                    if target.startswith("/"):
                        inside = _beneath(self.top.path, target)
                        if inside is None:
                            return Reason.OUTSIDE
                        target = inside
                        back_to(1)
                    parts.extendleft(reversed(target.split("/")))
                    continue
                if stat.S_ISDIR(os.fstat(entry).st_mode):
                    opened_folders.append(entry)
                    if len(opened_folders) > MAX_DEPTH:
                        return Reason.DEEP
                elif any(parts):
                    os.close(entry)
                    return Reason.DANGLING
                else:
                    return self._checked(entry)
            chain, own = list(opened_folders), opened_folders[borrowed:]
            del opened_folders[borrowed:]  # theirs, who enter the folder
            return chain, own
        except FileNotFoundError:
            return None  # user code replaced it meanwhile
        finally:
            back_to(0)


# One file by its absolute path


def read(path: Path, limit: int, offset: int = 0, *, own: bool = False) -> bytes:
    """At most `limit` bytes of a plain file, from `offset` on. Raises FileNotFoundError, NotPlain.

    `own`: the file has no other name; a hard link could lead to what only the reader may see.
    """
    with Folder(path.parent) as folder, folder.open(path.name) as file:
        if own and os.fstat(file.fileno()).st_nlink != 1:
            raise NotPlain(path.name)
        file.seek(offset)
        return file.read(limit)


def fingerprint(path: Path) -> str | None:
    """A digest over the names, sizes and times of change of a file, or of all files of a folder; None when nothing is there.

    Tells that something was written there, without reading a byte of it. Raises TooMany.
    """
    total = hashlib.sha256()
    try:
        with Folder(path) as folder:
            for entry in folder.entries(MAX_NAMES):
                if isinstance(entry, Plain):
                    total.update(_state(path / entry.path, entry.file))
    except NotPlain:  # a file where a folder could be
        with Folder(path.parent) as folder, folder.open(path.name) as file:
            total.update(_state(path, file))
    except FileNotFoundError:
        return None
    return total.hexdigest()


def _state(path: Path, file: BinaryIO) -> bytes:
    status = os.fstat(file.fileno())
    return f"{path} {status.st_size} {status.st_mtime_ns}\n".encode("utf-8", "surrogateescape")


def read_end(path: Path, limit: int) -> bytes:
    """The last `limit` bytes of a plain file. Raises FileNotFoundError, NotPlain."""
    with Folder(path.parent) as folder, folder.open(path.name) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - limit))
        return file.read(limit)


def read_log(path: Path, limit: int, offset: int) -> bytes:
    """At most `limit` bytes of a log from `offset` on; nothing where none is. Raises Unavailable when something that is no plain file has its name."""
    try:
        return read(path, limit, offset)
    except FileNotFoundError:
        return b""
    except NotPlain as error:
        raise Unavailable(f"the log {path.name} is not read: {error.strerror}", code="log_not_read") from None


def append(path: Path, text: str, make: int = 0o700) -> None:
    """Add to a file, which is created (0600) when it is missing, like the folders on the way."""
    with Folder(path.parent, make=make) as folder:
        folder.append(path.name, text.encode("utf-8", "replace"))


def replace(path: Path, data: bytes, mode: int = 0o600) -> None:
    with Folder(path.parent) as folder:
        folder.replace(path.name, [data], mode)


def make(path: Path, mode: int = 0o700) -> None:
    """A folder of this mode, created when it is missing, like those on the way."""
    with Folder(path.parent, make=mode) as folder:
        folder.make(path.name, mode)


def link(path: Path, target: Path) -> None:
    """A new symbolic link at `path`; folders on the way are created (0755). Raises FileExistsError."""
    with Folder(path.parent, make=0o755) as folder, folder._parent(path.name) as (parent, last):
        os.symlink(target, last, dir_fd=parent)


def has(path: Path) -> bool:
    """Whether there is a plain file or folder at a path without links."""
    try:
        with Folder(path.parent) as folder:
            return folder.has(path.name)
    except (FileNotFoundError, NotPlain):
        return False


def remove(path: Path) -> None:
    """Remove what is there, with everything below it and through no link; nothing happens when nothing is."""
    try:
        with Folder(path.parent) as folder:
            folder.remove(path.name)
    except FileNotFoundError:
        return


def hand_over(path: Path, uid: int) -> None:
    """Give a folder and everything in it to a user, while nobody writes there. Raises NotPlain for what `close` refuses."""
    _own(path, uid, closed=False)


def close(path: Path) -> None:
    """Take over a folder that others have filled, once nobody writes there any more: all of it is ours, and files are read-only.

    Raises NotPlain for a pipe, a socket, a device, or a file with several names, which could be one of somebody else's.
    """
    _own(path, os.geteuid(), closed=True)


def _own(path: Path, uid: int, *, closed: bool) -> None:
    gid = os.getegid() if uid == os.geteuid() else uid
    with Folder(path) as folder:
        top = _open(".", _LIST, folder._descriptor)
    try:
        os.fchown(top, uid, gid)
        for _, folders, files, descriptor in os.fwalk(".", dir_fd=top, onerror=_raise):
            for name in (*folders, *files):
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                plain = stat.S_ISREG(status.st_mode)
                if not (plain or stat.S_ISDIR(status.st_mode) or stat.S_ISLNK(status.st_mode)) or (plain and status.st_nlink > 1):
                    raise NotPlain(name)
                os.chown(name, uid, gid, dir_fd=descriptor, follow_symlinks=False)
                if closed and not stat.S_ISLNK(status.st_mode):
                    mode = (0o555 if status.st_mode & 0o111 else 0o444) if plain else 0o755
                    os.chmod(name, mode, dir_fd=descriptor)
        if closed:
            os.fchmod(top, 0o755)
    except RecursionError:
        raise NotPlain(path.name) from None
    finally:
        os.close(top)


def _raise(error: OSError) -> None:
    raise error


@contextmanager
def socket_address(path: Path) -> Iterator[str]:
    """Where to connect to for the unix socket at `path`: the very socket that was opened, not what its name leads to later.

    Short as well: the path of a unix socket has 107 bytes at most. Raises FileNotFoundError, NotPlain.
    """
    with Folder(path.parent) as folder:
        if not hasattr(os, "O_PATH"):
            yield str(path)
            return
        descriptor = os.open(path.name, os.O_PATH | _NO_LINK, dir_fd=folder._descriptor)
        try:
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                raise NotPlain(path.name)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)


# Descriptors


def _check(name: str) -> None:
    if name in ("", ".", "..") or "/" in name:
        raise NotPlain(name)


def _open(name: str, flags: int, parent: int, mode: int = 0) -> int:
    try:
        return os.open(name, flags, mode, dir_fd=parent)
    except OSError as error:
        if error.errno in _IN_THE_WAY:
            raise NotPlain(name) from None
        raise


def _plain(descriptor: int, name: str) -> int:
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise NotPlain(name)


def _descend(start: int, names: Iterable[str], make: int | None) -> int:
    """A new descriptor of the folder that the names lead to from `start`."""
    current = os.dup(start)
    try:
        for name in names:
            _check(name)
            try:
                following = _open(name, _PASS, current)
            except FileNotFoundError:
                if make is None:
                    raise
                following = _make(current, name, make)
            os.close(current)
            current = following
    except BaseException:
        os.close(current)
        raise
    return current


def _make(parent: int, name: str, mode: int) -> int:
    """A descriptor of a new folder, of this mode whatever the umask is."""
    try:
        os.mkdir(name, mode, dir_fd=parent)
    except FileExistsError:
        return _open(name, _PASS, parent)  # created by another process at the same time
    descriptor = _open(name, _PASS, parent)
    if stat.S_IMODE(os.fstat(descriptor).st_mode) != mode:
        _set_mode(descriptor, mode)
    return descriptor


def _names(descriptor: int, most: int) -> list[str]:
    with os.scandir(descriptor) as entries:
        names = [entry.name for entry in islice(entries, most + 1)]
    if len(names) > most:
        raise TooMany(most)
    return sorted(names)


def _reason(error: OSError) -> Reason | None:
    """Why an entry could not be opened; None when there is none any more."""
    if error.errno == errno.ENOENT:
        return None
    if error.errno == errno.ENXIO:
        return Reason.SPECIAL
    if error.errno in (errno.EACCES, errno.EPERM):
        return Reason.UNREADABLE
    raise error


def _beneath(top: Path, target: str) -> str | None:
    """An absolute target relative to `top`, by its text alone; None when it is not below it."""
    own = f"{top}/"
    return target.removeprefix(own) if target.startswith(own) else None


def _hard_links(top: int) -> Counter[tuple[int, int]]:
    """(device, inode) → how many names it has below a folder, of files with several. Raises TooMany beyond `MAX_NAMES` entries."""
    counted: Counter[tuple[int, int]] = Counter()
    remaining = MAX_NAMES
    waiting: list[tuple[int, list[str]]] = []

    def enter(descriptor: int) -> None:
        """Count the files of one folder, and note its folders; the descriptor is ours to close."""
        nonlocal remaining
        waiting.append((descriptor, []))
        for name in _names(descriptor, remaining):
            remaining -= 1
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                waiting[-1][1].append(name)
            elif status.st_nlink > 1:
                counted[status.st_dev, status.st_ino] += 1

    try:
        enter(_open(".", _LIST, top))
        while waiting:
            descriptor, folders = waiting[-1]
            if not folders:
                os.close(waiting.pop()[0])
            elif len(waiting) > MAX_DEPTH:
                folders.clear()  # a name down there is one that is missing, so that the file is refused
            else:
                try:
                    enter(os.open(folders.pop(), _LIST, dir_fd=descriptor))
                except OSError as error:
                    if isinstance(error, TooMany):
                        raise
    finally:
        for descriptor, _ in waiting:
            os.close(descriptor)
    return counted


def _unlink(parent: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        pass


def _remove_single(parent: int, name: str) -> bool:
    """Remove an empty folder or anything that is no folder; False for a folder that holds something."""
    try:
        os.rmdir(name, dir_fd=parent)
    except FileNotFoundError:
        return True
    except NotADirectoryError:
        _unlink(parent, name)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


def _open_to_empty(parent: int, name: str) -> int:
    """A folder opened to be emptied. User code may have closed it to everybody, its owner included."""
    descriptor = _open(name, _PASS, parent)
    try:
        _set_mode(descriptor, 0o700)
        return _open(".", _LIST, descriptor)
    finally:
        os.close(descriptor)


def _set_mode(descriptor: int, mode: int) -> None:
    """Of an open folder; `fchmod` refuses descriptors that were opened to pass only."""
    if hasattr(os, "O_PATH"):
        os.chmod(f"/proc/self/fd/{descriptor}", mode)
    else:
        os.fchmod(descriptor, mode)


def _empty(top: int) -> None:
    """Remove everything in a folder. Folders are moved up to it as they come, so that no depth is too deep."""
    while names := _first_names(top):
        for name in names:
            if _remove_single(top, name):
                continue
            folder = _open_to_empty(top, name)
            try:
                while inner := _first_names(folder):
                    for below in inner:
                        if not _remove_single(folder, below):
                            os.close(_open_to_empty(folder, below))
                            os.rename(below, ids.hex32(), src_dir_fd=folder, dst_dir_fd=top)
            finally:
                os.close(folder)
            os.rmdir(name, dir_fd=top)


def _first_names(descriptor: int) -> list[str]:
    """The first names of a folder, which may have very many."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    with os.scandir(descriptor) as entries:
        return [entry.name for entry in islice(entries, _BATCH)]

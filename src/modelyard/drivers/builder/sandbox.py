"""Where the steps of builds run: under users of their own, in a sandbox and a network of their own, with nothing of the server's environment.

There are two kinds. A *fetch* runs uv and the machine's Python only, never code of a package; the shared cache of downloads belongs to its
user, and to no other. A build *from source* runs code of packages; it has a user of its own, a cache that is thrown away, and none of the
operator's credentials. So nothing that a package does reaches what other builds are made of.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from modelyard_runtime import protocol
from modelyard_runtime.addresses import Allowed
from modelyard_runtime.protocol import BuildRequest, BuildStep, Confinement, Egress

from ...core import ids, trees
from ...core.errors import Unavailable
from ..isolation import RUNTIME, Isolation, program
from .configuration import PackageConfiguration

PROXY_USER, FETCH_USER, FIRST_BUILD_USER, BUILD_USERS = 51_798, 51_799, 51_800, 200
"""Below those of jobs, which begin at 52,000."""
MOST_SECONDS = 3600.0
MOST_LINES = 5_000
"""Of a build's output, what is passed on; the end is kept in any case."""
MOST_LINE = 2_000
MOST_RESULT = 8 << 20
"""Bytes of a file that a step leaves as its result."""
PATH = "/usr/local/bin:/usr/bin:/bin"
Log = Callable[[str], None]


@dataclass(frozen=True)
class Done:
    status: int
    output: str

    @property
    def refused(self) -> str:
        """Why the way out refused an address; empty when it refused none."""
        lines = [line for line in self.output.splitlines() if line.startswith(REFUSED)]
        return lines[-1].removeprefix(REFUSED) if lines else ""


REFUSED = "[modelyard] refused: "


@dataclass(frozen=True)
class Workplace:
    """The folder, the user and the cache of one build."""

    folder: Path
    uid: int | None
    cache: Path
    from_source: bool

    @property
    def result(self) -> Path:
        """Where a step leaves what it found out."""
        return self.folder / "result"

    def text(self, name: str = "result") -> str:
        """A file that a step left; empty when it left none."""
        try:
            return trees.read(self.folder / name, MOST_RESULT).decode("utf-8", "replace")
        except FileNotFoundError:
            return ""


class BuildSandbox:
    def __init__(
        self, root: Path, isolation: Isolation, configuration: PackageConfiguration, allowed: Sequence[Allowed] = (), cache: str = ""
    ) -> None:
        """`root`: the folder of environments. `allowed`: private addresses that the operator has opened."""
        self.root = root
        self.isolation = isolation
        self.configuration = configuration
        self.allowed = tuple(allowed)
        owner = FETCH_USER if isolation.user else os.geteuid()
        self.cache = (Path(cache).expanduser() if cache else configuration.cache / "modelyard").resolve() / f"packages-{owner}"
        self.scratch = root / ".scratch"
        self._remove_left()

    @property
    def builds_source(self) -> bool:
        """Whether code of packages can be run apart from the yard; never as root."""
        return self.isolation.user or (self.isolation.landlock > 0 and os.geteuid() != 0)

    def _remove_left(self) -> None:
        """Folders of builds whose server was killed; nobody has their lock any more."""
        trees.make(self.scratch, 0o711)
        with _locked(self.scratch, wait=True):  # no folder that is made just now, and not locked yet
            for folder in self.scratch.iterdir():
                with _locked(folder) as locked:
                    if locked:
                        trees.remove(folder)

    @contextmanager
    def workplace(self, *, from_source: bool = False) -> Iterator[Workplace]:
        folder = self.scratch / ids.hex32()
        with ExitStack() as locks:
            with _locked(self.scratch, wait=True):
                trees.make(folder, 0o700)
                locks.enter_context(_locked(folder))
            uid = locks.enter_context(self._user(from_source))
            cache = folder / "cache" if from_source else self._shared_cache()
            for part in ("home", "tmp", "cache"):
                trees.make(folder / part)
            place = Workplace(folder, uid, cache, from_source)
            if not from_source and self.configuration.netrc is not None:
                trees.replace(folder / "home/.netrc", self.configuration.netrc.read_bytes(), 0o600)
            try:
                yield place
            finally:
                trees.remove(folder)

    def _shared_cache(self) -> Path:
        trees.make(self.cache.parent, 0o755)
        trees.make(self.cache, 0o700)
        if self.isolation.user and self.cache.stat().st_uid != FETCH_USER:
            os.chown(self.cache, FETCH_USER, FETCH_USER)
        return self.cache

    @contextmanager
    def _user(self, from_source: bool) -> Iterator[int | None]:
        """A user id: that of all fetches, or one that no other build has as long as this lasts."""
        if not self.isolation.user or not from_source:
            yield FETCH_USER if self.isolation.user else None
            return
        users = self.root / ".users"
        trees.make(users)
        for uid in range(FIRST_BUILD_USER, FIRST_BUILD_USER + BUILD_USERS):
            (users / str(uid)).touch(0o600)
            with _locked(users / str(uid)) as locked:
                if locked:
                    yield uid
                    return
        raise Unavailable(
            f"{BUILD_USERS} builds from source are in progress", code="too_many_builds", hint="Try again later.", transient=True
        )

    def write(self, place: Workplace, name: str, text: str) -> Path:
        """A file for the steps to read."""
        path = place.folder / name
        trees.replace(path, text.encode(), 0o644)
        return path

    def run(
        self, place: Workplace, steps: Sequence[BuildStep], *, python: Path, writable: Sequence[Path] = (), guarded: bool = False,
        own_hosts: Sequence[Allowed] = (), log: Log = lambda line: None,
    ) -> Done:  # fmt: skip
        """Run the steps to their end. `guarded`: an address among theirs is a user's, or code of a package runs, so that private networks
        are closed but for the operator's indexes, `own_hosts`, and what the setting opens."""
        if place.uid is not None:
            trees.hand_over(place.folder, place.uid)
        allowed = [*self.allowed, *self.configuration.addresses(), *own_hosts]
        strict = guarded or place.from_source
        proxy_user = PROXY_USER if self.isolation.user else None
        request = BuildRequest(
            steps=list(steps), environment=self._environment(place, strict), folder=str(place.folder), seconds=MOST_SECONDS,
            egress=Egress([str(entry) for entry in allowed], not strict, self.configuration.proxies, proxy_user),
            sandbox=self._confinement(place, python, writable), alone=place.from_source,
        )  # fmt: skip
        return _run(request, log)

    def _environment(self, place: Workplace, strict: bool) -> dict[str, str]:
        # The way out refuses an address as often as it is asked.
        fewer = {"UV_HTTP_RETRIES": "1"} if strict else {}
        return {
            **fewer,
            **self.configuration.variables(credentials=not place.from_source),
            "PATH": PATH, "LANG": "C.UTF-8", "HOME": str(place.folder / "home"), "TMPDIR": str(place.folder / "tmp"),
            "UV_CACHE_DIR": str(place.cache), "UV_NO_CONFIG": "1", "UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "never",
            "UV_LINK_MODE": "clone" if _clones(place.cache, self.root) else "copy",
        }  # fmt: skip

    def _confinement(self, place: Workplace, python: Path, writable: Sequence[Path]) -> Confinement | None:
        if self.isolation.name == "none":
            return None
        # The program itself and uv; what is to be read of the yard is the environment, which is among `writable`.
        paths = self.configuration.paths(credentials=not place.from_source)
        readable = [python, Path(sys.prefix), Path(sys.base_prefix), RUNTIME, Path(uv()).parent, *paths]
        return Confinement(
            [str(path) for path in (place.folder, *([] if place.from_source else [place.cache]), *writable)], [str(path) for path in readable], place.uid,
            self.isolation.namespace, self.isolation.landlock > 0,
        )  # fmt: skip


def uv() -> str:
    import uv as package

    return package.find_uv_bin()


def _run(request: BuildRequest, log: Log) -> Done:
    last: deque[str] = deque(maxlen=200)
    passed = 0
    with subprocess.Popen(
        program("build"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={"PATH": PATH, "LANG": "C.UTF-8"},
        cwd="/", start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(protocol.document(request)).encode() + b"\n")
        process.stdin.flush()
        while line := process.stdout.readline(MOST_LINE):
            text = line.decode("utf-8", "replace").rstrip()
            last.append(text)
            if (passed := passed + 1) <= MOST_LINES:
                log(text)
        process.stdin.close()
        status = process.wait()
    return Done(status, "\n".join(last))


@contextmanager
def _locked(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Whether this process has it for itself; by a lock that ends with the process."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            locked = True
        except BlockingIOError:
            locked = False
        yield locked
    finally:
        os.close(descriptor)


_FICLONE = 0x40049409


def _clones(source: Path, target: Path) -> bool:
    """Whether files of one folder can be cloned into another (copy on write): as quick as a hard link, and as separate as a copy."""
    try:
        with tempfile.TemporaryFile(dir=source) as one, tempfile.TemporaryFile(dir=target) as other:
            one.write(b"x")
            one.flush()
            fcntl.ioctl(other.fileno(), _FICLONE, one.fileno())
            return True
    except OSError:
        return False


@contextmanager
def exclusive(root: Path, key: str) -> Iterator[None]:
    """Nobody else builds this meanwhile, in this process or in another."""
    with _THREAD_LOCKS.setdefault(key, threading.Lock()), (root / f".{key}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


_THREAD_LOCKS: dict[str, threading.Lock] = {}


def readable(text: str) -> str:
    """The end of what uv says, without colours and what is only progress."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in text.splitlines()]
    keep = [line for line in lines if line and not line.lower().startswith(("warning:", "using python", "resolved "))]
    return "\n".join("  " + line for line in keep[-20:])

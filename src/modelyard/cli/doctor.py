"""`yard doctor`: what could go wrong on this machine, each with what mends it. It changes nothing."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..core.home import UNUSABLE, Home
from .server import alarms, is_ready, running_server

FREE_BYTES = 2 * 2**30
"""An environment with PyTorch needs about as much."""
OPEN_FILES = 1024
"""Of the server: connections, job logs, sockets of model servers."""

Check = dict[str, Any]


def examined(home: Home) -> list[Check]:
    """A row {check, ok, found, mend} for each check; `mend` is empty where all is well."""
    return [{"check": name, "ok": ok, "found": found, "mend": "" if ok else mend} for name, ok, found, mend in _checks(home)]


def drawn(checks: list[Check]) -> Iterator[str]:
    """For a person: what mends something stands below it, whole."""
    import textwrap

    from . import table
    from .table import terminal_width

    marks = table.Column("", ["ok" if check["ok"] else "WRONG" for check in checks])
    names = table.Column("", [check["check"] for check in checks])
    found = table.Column("", [check["found"] for check in checks])
    indent = " " * (marks.widest + table.GAP)
    for check, line in zip(checks, table.rows([(column, column.widest) for column in (marks, names, found)]), strict=True):
        yield line
        room = max(20, min(terminal_width(), 120) - len(indent))
        yield from (indent + part for part in textwrap.wrap(check["mend"], room, break_long_words=False, break_on_hyphens=False))


def _checks(home: Home) -> Iterator[tuple[str, bool, str, str]]:
    """(check, whether all is well, what was found, what to do otherwise)"""
    version = sys.version.split()[0]
    yield "python", (3, 11) <= sys.version_info < (3, 14), version, "Install modelyard with Python 3.11, 3.12 or 3.13."
    yield _command()
    yield from _server(home)
    yield _connection(home)
    yield _home(home)
    yield _disk(home)
    yield from _control(home)
    yield _uv()
    yield _git()
    yield _open_files()


def _command() -> tuple[str, bool, str, str]:
    own = Path(sys.argv[0]).resolve()
    found = shutil.which("yard")
    if found is None:
        return (
            "yard on PATH",
            False,
            "no",
            f"Add its folder to PATH: export PATH={own.parent}:$PATH. `uv tool install modelyard` does it for good.",
        )
    other = Path(found).resolve()
    mend = f"{found} is another installation than the one that runs now ({own}); remove one, or change the order of PATH."
    return "yard on PATH", other == own or own.name != "yard", found, mend


def _server(home: Home) -> Iterator[tuple[str, bool, str, str]]:
    record = running_server(home)
    yield "server", True, record["url"] if record else f"none runs at {home.root}; `yard up` starts it", ""
    if record is None:
        return
    url, log = str(record["url"]), home.server_log
    yield "ready", is_ready(url), f"{url}/readyz", f"Look into {log} (yard logs), then: yard down, yard up."
    kind = str(record.get("isolation"))
    mend = "Run the yard as root or on a kernel with Landlock (5.13 or newer); until then run only code that you trust."
    yield "isolation", kind != "none", kind, mend
    codes = alarms(url)
    found = ", ".join(f"{code}: {count}" for code, count in codes.items()) or "none"
    yield "alarms", not codes, found, "docs/guide/operating.md says what each means; `yard fsck` looks at what is stored."


def _connection(home: Home) -> tuple[str, bool, str, str]:
    """Whether the yard that commands talk to answers, and takes the token."""
    from ..core.errors import Unauthenticated, YardError
    from ..sdk.client import MLClient

    if running_server(home) is None and not os.environ.get("YARD_URL"):
        return "connection", True, "no yard is asked for", ""
    try:
        client = MLClient(as_documents=True)
        list(client.workspaces.list())
    except Unauthenticated as error:
        return "connection", False, error.message, "Sign in again: yard login. A YARD_TOKEN in the environment goes before the profile."
    except YardError as error:
        mend = "YARD_URL, or the profile of `yard login`, names a yard that does not answer: unset it, or log in to another."
        return "connection", False, error.message, mend
    return "connection", True, f"{client.connection.url}, workspace {client.workspace_name}", ""


def _home(home: Home) -> tuple[str, bool, str, str]:
    existing = _existing(home.root)
    ok = os.access(existing, os.W_OK | os.X_OK) and existing.is_dir()
    reason = next((text for number, text in UNUSABLE.items() if not ok and number == _errno_of(existing)), "this user may not write there")
    return (
        "home",
        ok,
        str(home.root) if ok else f"{home.root}: {reason}",
        "Make it writable for this user, or set YARD_HOME to a folder that is.",
    )


def _errno_of(folder: Path) -> int:
    import errno

    return errno.EEXIST if not folder.is_dir() else errno.EROFS if os.statvfs(folder).f_flag & os.ST_RDONLY else errno.EACCES


def _disk(home: Home) -> tuple[str, bool, str, str]:
    free = shutil.disk_usage(_existing(home.root)).free
    mend = f"{FREE_BYTES / 2**30:.0f} GiB are wanted. `yard gc` removes what nothing refers to; YARD_HOME may lie on another disk."
    return "disk", free > FREE_BYTES, f"{free / 2**30:.1f} GiB free", mend


def _control(home: Home) -> Iterator[tuple[str, bool, str, str]]:
    if home.control.exists():
        mode = home.control.stat().st_mode & 0o777
        yield "control folder", mode == 0o700, f"{home.control} has mode {mode:o}", f"chmod 700 {home.control}: it holds the yard's keys."


def _uv() -> tuple[str, bool, str, str]:
    mend = "It builds environments. Install modelyard anew: uv belongs to it."
    try:
        import uv

        return "uv", True, uv.find_uv_bin(), mend
    except (ImportError, FileNotFoundError) as error:
        return "uv", False, str(error), mend


def _git() -> tuple[str, bool, str, str]:
    path = shutil.which("git")
    return "git", path is not None, path or "not found", "Install git: a job keeps the commit of its code only with it."


def _open_files() -> tuple[str, bool, str, str]:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        "open files",
        soft >= OPEN_FILES,
        f"{soft:,} allowed",
        f"ulimit -n {max(OPEN_FILES, 4096)} before `yard up` (at most {hard:,} here).",
    )


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())

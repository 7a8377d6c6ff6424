"""The data folder and what lies where in it. `control/` is the yard's own: nothing that runs user code may read it."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from .errors import Unavailable

UNUSABLE = {
    errno.EROFS: "it lies in a file system that is mounted read-only",
    errno.EACCES: "this user may not write there",
    errno.EPERM: "it belongs to another user",
    errno.ENOTDIR: "a part of the path is a file",
    errno.EEXIST: "there is a file of this name",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "this user's quota is used up",
}


@dataclass(frozen=True)
class Home:
    root: Path

    @classmethod
    def default(cls) -> Home:
        return cls(Path(os.environ.get("YARD_HOME") or Path.home() / ".modelyard").expanduser().resolve())

    @property
    def control(self) -> Path:
        """Database, keys, tokens, the supervisor's state: mode 0700."""
        return self.root / "control"

    @property
    def database(self) -> Path:
        return self.control / "yard.db"

    @property
    def database_record(self) -> Path:
        """Which database this home belongs to: its identity, and its address when it is not `database`."""
        return self.control / "database.json"

    @property
    def clean_mark(self) -> Path:
        """Left by a clean stop, with what the database was then; absent while the yard runs, and after a kill."""
        return self.control / "clean"

    @property
    def ports(self) -> Path:
        """The ports that the last start listened on."""
        return self.control / "ports.json"

    @property
    def audit(self) -> Path:
        """What is known of the audit log outside the database: keys, head, anchors."""
        return self.control / "audit"

    @property
    def backups(self) -> Path:
        return self.control / "backups"

    @property
    def master_key(self) -> Path:
        return self.control / "master.key"

    @property
    def admin_token(self) -> Path:
        return self.control / "admin.token"

    @property
    def server_record(self) -> Path:
        """Where the running server writes its pid and address."""
        return self.control / "server.json"

    @property
    def supervisor(self) -> Path:
        return self.control / "supervisor"

    @property
    def server_log(self) -> Path:
        return self.control / "server.log"

    @property
    def blobs(self) -> Path:
        return self.root / "blobs"

    @property
    def interpreters(self) -> Path:
        """Warm interpreters, a folder each."""
        return self.root / "interpreters"

    @property
    def envs(self) -> Path:
        return self.root / "envs"

    @property
    def trees(self) -> Path:
        """Folders laid out from blobs, read-only and shared: inputs, code and models, by digest."""
        return self.root / "trees"

    @property
    def jobs(self) -> Path:
        return self.root / "jobs"

    @property
    def endpoints(self) -> Path:
        return self.root / "endpoints"

    @property
    def tmp(self) -> Path:
        return self.root / "tmp"

    def prepare(self) -> None:
        """Make the folders with their modes. Job and endpoint folders are traversable, not listable, by others.

        Raises Unavailable, saying why, where they cannot be made.
        """
        try:
            self._make_folders()
        except OSError as error:
            reason = UNUSABLE.get(error.errno or 0) or error.strerror or str(error)
            at = f" ({error.filename})" if error.filename and str(error.filename) != str(self.root) else ""
            raise Unavailable(
                f"the home {self.root} cannot be written{at}: {reason}", code="home_not_writable",
                hint="A yard keeps its database, content and logs there. Make it writable for the user that runs the yard, "
                "or set YARD_HOME to a folder that is.",
            ) from None  # fmt: skip

    def _make_folders(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        for folder, mode in (
            (self.root, 0o711),
            (self.control, 0o700),
            (self.backups, 0o700),
            (self.audit, 0o700),
            (self.supervisor, 0o700),
            (self.blobs, 0o700),
            (self.tmp, 0o700),
            (self.envs, 0o755),
            (self.trees, 0o711),
            (self.jobs, 0o711),
            (self.endpoints, 0o711),
            (self.interpreters, 0o711),
        ):
            folder.mkdir(exist_ok=True)
            folder.chmod(mode)

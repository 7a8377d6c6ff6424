"""One job's folder on this machine: its code, inputs, outputs and logs, laid out before the command and gathered after it.

jobs/<name>/code/                 the working directory, a copy of the snapshot; ./outputs and ./logs become artifacts
            inputs/  outputs/     one entry per port
            home/  tmp/           the command's own HOME and TMPDIR
            logs/                 user_logs/std_log.txt, system_logs/yard.log
            attempt-<n>/          request and exit record, closed to user code
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from modelyard_runtime import files

from ...core import trees
from ...core.errors import Invalid
from ...core.names import as_one_word, safe_path
from ...core.trees import Folder, NotPlain, Plain, Reason, Refused, TooMany
from ...engine.yard import Yard
from ...ports.objects import File, Tree
from ...ports.processes import Sandbox
from ...spec.inputs import Output
from .model import LOG, SYSTEM_LOG, JobRecord

MAX_OUTPUT_FILES = 200_000
MAX_OUTPUT_ENTRIES = 2 * MAX_OUTPUT_FILES
"""Files, folders and whatever else lies among the outputs."""
MOST_NAMED = 10
"""Names in one message."""
NOTHING_LOST = (Reason.DANGLING, Reason.FOLDER)
log = logging.getLogger(__name__)


class JobFolder:
    def __init__(self, yard: Yard, record: JobRecord, attempt: int) -> None:
        self.yard = yard
        self.record = record
        self.root = yard.home.jobs / record.name
        self.attempt = self.root / f"attempt-{attempt}"
        self.code = self.root / "code"
        self.inputs = self.root / "inputs"
        self.outputs = self.root / "outputs"
        self.home = self.root / "home"
        self.tmp = self.root / "tmp"
        self.log = self.root / "logs" / LOG
        self.system_log = self.root / "logs" / SYSTEM_LOG
        self.readable: list[Path] = []
        self.notes: list[str] = []
        """What was left out of the outputs without harm."""
        self.problems: list[str] = []
        """What of them could not be kept, for which the job fails."""
        self.private = False
        """The command reads nothing but this folder: inputs are copied into it."""

    def say(self, line: str) -> None:
        """A line in the job's system log: what the yard did for it."""
        trees.append(self.system_log, f"{time.strftime('%H:%M:%S')} {line}\n")

    def prepare(self) -> None:
        """Empty folders for a new attempt; the logs of an earlier one stay."""
        trees.make(self.root, 0o711)
        self._empty()
        own = (self.code, self.inputs, self.outputs, self.home, self.tmp)
        for folder in (*own, self.attempt, self.log.parent.parent, self.log.parent):
            trees.make(folder)

    def put_code(self, tree: Tree) -> None:
        self.yard.layout.copy_out(tree, self.code, programs=(".sh",))
        trees.make(self.code)

    def put_program(self, name: str) -> Path:
        """One of the runtime's programs under one path, which the command may read: a link to the runtime that is named after it."""
        program = self.root / "program" / name
        trees.link(program, Path(files.RUNTIME))
        self.readable += [program.parent, Path(files.RUNTIME)]
        return program

    def make_artifact_folders(self) -> None:
        """Scripts write to `./outputs` and `./logs` without making them first."""
        for name in ("outputs", "logs"):
            trees.make(self.code / name, 0o755)

    def put_input(self, port: str, tree: Tree, mode: str | None, as_file: bool) -> Path:
        """Shared and read-only for mounts; a copy of its own for `download`. The path the command sees."""
        if self.private or mode in ("download", "eval_download"):
            folder = self.inputs / port
            self.yard.layout.copy_out(tree, folder)
        else:
            folder = self.yard.layout.lay_out(tree)
            self.readable.append(folder)
        return folder / tree.files[0].path if as_file else folder

    def put_link(self, port: str, target: Path) -> Path:
        """A path to `target`, a place of this machine, whose name is one word in a command."""
        link = self.inputs / port / as_one_word(target.name)
        trees.link(link, target)
        return link

    def empty_input(self, port: str) -> Path:
        """What an earlier job wrote, when that was nothing."""
        path = self.inputs / port
        trees.make(path, 0o755)
        return path

    def output_path(self, port: str, output: Output) -> Path:
        """Where the command writes an output."""
        if output.type != "uri_file":
            return self.outputs / port
        name = (output.path or "").rstrip("/").rsplit("/", 1)[-1] if output.path and not output.path.endswith("/") else port
        return self.outputs / f"{port}.file" / as_one_word(name)  # it stands in the command; where it is kept has the name as it is

    def make_output(self, port: str, output: Output) -> Path:
        """`output_path`, once the folder exists that it is or lies in."""
        path = self.output_path(port, output)
        trees.make(path.parent if output.type == "uri_file" else path, 0o755)
        return path

    def sandbox(self, environment: tuple[Path, ...], writable: list[Path]) -> Sandbox:
        own = (self.code, self.inputs, self.outputs, self.home, self.tmp)
        return Sandbox((*own, *writable), (*environment, *self.readable))

    def keep(self, what: str, path: Path, *, pipes: bool = False) -> list[File]:
        """Store every plain file below a folder; none when the folder is gone.

        What is not kept fails the job (`problems`), but for links to nothing, links to folders and, where `pipes` may lie, the
        pipes and sockets that tools leave behind: these are named in the system log (`notes`).
        """
        kept: list[File] = []
        try:
            with Folder(path) as folder:
                for entry in folder.entries(MAX_OUTPUT_ENTRIES, self.root):
                    if len(kept) >= MAX_OUTPUT_FILES:
                        raise Invalid(f"a job keeps {MAX_OUTPUT_FILES:,} output files at most", code="too_many_files")
                    kept += self._keep(what, entry, pipes)
        except FileNotFoundError:
            pass
        except NotPlain:
            self.problems.append(f"{what} is a link or no folder")
        except TooMany:
            raise Invalid(f"{what} has more than {MAX_OUTPUT_ENTRIES:,} files and folders", code="too_many_files") from None
        return kept

    def keep_file(self, what: str, path: Path) -> list[File]:
        """Store one file; none when the command did not write it."""
        try:
            with Folder(path.parent) as folder:
                entry = folder.entry(path.name, self.root)
        except FileNotFoundError:
            return []
        except NotPlain:
            self.problems.append(f"{what} is no plain file in a plain folder")
            return []
        if isinstance(entry, Plain):
            with entry.file:
                return self._keep(what, entry)
        return self._keep(what, entry) if entry is not None else []

    def _keep(self, what: str, entry: Plain | Refused, pipes: bool = False) -> list[File]:
        if isinstance(entry, Refused):
            harmless = entry.reason in NOTHING_LOST or (pipes and entry.reason is Reason.SPECIAL)
            (self.notes if harmless else self.problems).append(f"{what}: {_shown(entry.path)} {entry.reason}")
            return []
        try:
            relative = safe_path(entry.path)
        except Invalid:
            self.problems.append(f"{what}: {_shown(entry.path)} is not a name that can be kept")
            return []
        blob = self.yard.objects.put_open(entry.file)
        return [File(relative, blob.digest, blob.size)]

    def copy_to(self, file: File, target: Path) -> None:
        """Write a stored file to a path of this machine (a local datastore), through no link."""
        with Folder(target.parent, make=0o755) as folder:
            folder.replace(target.name, self.yard.objects.open(file.digest), 0o644)

    def clean(self) -> None:
        """Once everything is kept: only the logs and the attempts' records stay."""
        try:
            self._empty()
        except OSError as error:
            log.warning("what job %s left in %s could not be removed: %s", self.record.name, self.root, error)

    def _empty(self) -> None:
        for folder in (self.code, self.inputs, self.outputs, self.home, self.tmp, self.root / "program"):
            trees.remove(folder)

    def log_tail(self, lines: int = 20) -> list[str]:
        try:
            text = trees.read_end(self.log, 16_384).decode("utf-8", "replace")
        except OSError:
            return []
        return [line[:500] for line in text.splitlines()[-lines:]]


def first_of(lines: list[str]) -> str:
    """The first few of many findings, in one line."""
    more = f" (and {len(lines) - MOST_NAMED} more)" if len(lines) > MOST_NAMED else ""
    return "; ".join(lines[:MOST_NAMED]) + more


def _shown(name: str) -> str:
    """A name that a command chose, as one line of text."""
    return name if name.isprintable() else ascii(name)

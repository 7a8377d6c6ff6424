"""What a command left in its folder, stored: through no link, and nothing that is not its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ....core.errors import NO_ROOM, Invalid, Unavailable, YardError, disk_full
from ....core.names import path_problem
from ....core.trees import Folder, NotPlain, Plain, Reason, Refused, TooMany
from ....ports.executor import LOG, AttemptId, Collected, OutputPort
from ....ports.objects import File, ObjectStore
from . import packages
from .folder import JobFolder

MAX_OUTPUT_FILES = 200_000
MAX_OUTPUT_ENTRIES = 2 * MAX_OUTPUT_FILES
"""Files, folders and other entries among the outputs."""
MAX_OUTPUT_PATH = 3_000
"""Bytes of a file's path in an output: with the path of the output before it, it is one that can be stored."""
NOTHING_LOST = (Reason.DANGLING, Reason.LOOP, Reason.EMPTY)


def gather(folder: JobFolder, id: AttemptId, objects: ObjectStore, outputs: Mapping[str, OutputPort]) -> Collected:
    """What cannot be stored is named, and everything else is stored nevertheless. Raises what passes by itself, such as a full disk: then
    all of it is gathered later."""
    gathering = _Gathering(folder, objects)
    try:
        gathering.collect(outputs)
        for port, held in folder.present(id).items():
            gathering.collected.unchanged[port] = {
                file.path for file in gathering.collected.outputs.get(port, ()) if held.get(file.path) == file.digest
            }  # fmt: skip
    except YardError as problem:
        if problem.transient:
            raise
        gathering.collected.stopped = problem
    except OSError as problem:
        if problem.errno in NO_ROOM:
            raise disk_full("the outputs are kept as soon as there is room") from problem
        gathering.collected.stopped = Unavailable(str(problem), code="outputs_not_kept")
    return gathering.collected


class _Gathering:
    def __init__(self, folder: JobFolder, objects: ObjectStore) -> None:
        self.collected = Collected()
        self._folder = folder
        self._objects = objects

    def collect(self, outputs: Mapping[str, OutputPort]) -> None:
        self.collected.logs = self._log()
        self.collected.installed = packages.installed(self._folder.packages)
        for port, output in outputs.items():
            path = self._folder.output(port, output)
            self.collected.outputs[port] = self._file(f"output {port}", path) if output.file else self._files(f"output {port}", path)
        for name in ("outputs", "logs"):
            files = self._files(f"./{name}", self._folder.code / name, pipes=True)
            self.collected.artifacts += [File(f"{name}/{file.path}", file.digest, file.size) for file in files]

    def _log(self) -> list[File]:
        try:
            with Folder(self._folder.log.parent) as folder, folder.open(self._folder.log.name) as file:
                blob = self._objects.put_open(file)
        except (FileNotFoundError, NotPlain):
            return []
        return [File(LOG, blob.digest, blob.size)]

    def _files(self, what: str, path: Path, *, pipes: bool = False) -> list[File]:
        """Store every plain file below a folder; none when the folder is gone.

        What is not stored is refused, but for empty folders, links to nothing, links to the folders that they lie in and, where `pipes` may lie, the pipes and sockets
        that tools leave behind.
        """
        files: list[File] = []
        try:
            with Folder(path) as folder:
                for entry in folder.entries(MAX_OUTPUT_ENTRIES, self._folder.root):
                    if len(files) >= MAX_OUTPUT_FILES:
                        raise Invalid(f"a job keeps {MAX_OUTPUT_FILES:,} output files at most", code="too_many_files")
                    files += self._entry(what, entry, pipes)
        except FileNotFoundError:
            pass
        except NotPlain:
            self.collected.refused.append(f"{what} is a link or no folder")
        except TooMany:
            raise Invalid(f"{what} has more than {MAX_OUTPUT_ENTRIES:,} files and folders", code="too_many_files") from None
        return files

    def _file(self, what: str, path: Path) -> list[File]:
        """Store one file; none when the command did not write it."""
        try:
            with Folder(path.parent) as folder:
                entry = folder.entry(path.name, self._folder.root)
        except FileNotFoundError:
            return []
        except NotPlain:
            self.collected.refused.append(f"{what} is no plain file in a plain folder")
            return []
        if isinstance(entry, Plain):
            with entry.file:
                return self._entry(what, entry)
        return self._entry(what, entry) if entry is not None else []

    def _entry(self, what: str, entry: Plain | Refused, pipes: bool = False) -> list[File]:
        if isinstance(entry, Refused):
            harmless = entry.reason in NOTHING_LOST or (pipes and entry.reason is Reason.SPECIAL)
            (self.collected.left_out if harmless else self.collected.refused).append(f"{what}: {_shown(entry.path)} {entry.reason}")
            return []
        if problem := path_problem(entry.path) or _too_long(entry.path):
            self.collected.refused.append(f"{what}: {_shown(entry.path)} cannot be kept: {problem}")
            return []
        blob = self._objects.put_open(entry.file)
        return [File(entry.path, blob.digest, blob.size)]


def _too_long(path: str) -> str:
    size = len(path.encode())
    return f"its path has {size:,} bytes; {MAX_OUTPUT_PATH:,} are allowed" if size > MAX_OUTPUT_PATH else ""


def _shown(name: str) -> str:
    """A name that a command chose, as one line of text."""
    return name if name.isprintable() else ascii(name)

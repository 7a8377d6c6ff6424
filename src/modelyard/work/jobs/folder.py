"""One job's folder on this machine: its code, inputs, outputs and logs, laid out before the command and gathered after it.

jobs/<name>/code/                 the working directory, a copy of the snapshot; ./outputs and ./logs become artifacts
            inputs/  outputs/     one entry per port
            home/  tmp/           the command's own HOME and TMPDIR
            logs/                 user_logs/std_log.txt, system_logs/yard.log
            attempt-<n>/          request and exit record, closed to user code
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from pathlib import Path

import modelyard_runtime

from ...assets.files.layout import copy_out, lay_out
from ...assets.files.model import File, Tree
from ...core.errors import Invalid, Unavailable
from ...core.names import safe_path
from ...engine.yard import Yard
from ...ports.processes import Sandbox
from ...spec.inputs import Output
from .model import LOG, SYSTEM_LOG, JobRecord

MAX_OUTPUT_FILES = 200_000


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
        self.private = False
        """The command reads nothing but this folder: inputs are copied into it."""

    def say(self, line: str) -> None:
        """A line in the job's system log: what the yard did for it."""
        self.system_log.parent.mkdir(parents=True, exist_ok=True)
        with self.system_log.open("a") as file:
            file.write(f"{time.strftime('%H:%M:%S')} {line}\n")

    def prepare(self) -> None:
        """Empty folders for a new attempt; the logs of an earlier one stay."""
        try:
            self.root.mkdir()
        except FileExistsError:
            self.clean()
        self.root.chmod(0o711)
        for folder in (self.code, self.inputs, self.outputs, self.home, self.tmp):
            folder.mkdir(mode=0o700)
        self.attempt.mkdir(mode=0o700, exist_ok=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.parent.parent.chmod(0o700)

    def put_code(self, tree: Tree) -> None:
        self.code.rmdir()
        copy_out(self.yard, tree, self.code)
        self.code.chmod(0o700)
        for file in self.code.rglob("*.sh"):
            file.chmod(0o755)

    def put_program(self, name: str) -> Path:
        """A copy of one of the runtime's programs, which the command may read."""
        folder = self.root / "program"
        folder.mkdir(mode=0o755, exist_ok=True)
        target = folder / f"{name}.py"
        shutil.copyfile(Path(modelyard_runtime.__file__).parent / f"{name}.py", target)
        target.chmod(0o644)
        self.readable.append(folder)
        return target

    def make_artifact_folders(self) -> None:
        """Scripts write to `./outputs` and `./logs` without making them first."""
        for name in ("outputs", "logs"):
            (self.code / name).mkdir(exist_ok=True)

    def put_input(self, port: str, tree: Tree, mode: str | None, as_file: bool) -> Path:
        """Shared and read-only for mounts; a copy of its own for `download`. The path the command sees."""
        if self.private or mode in ("download", "eval_download"):
            folder = self.inputs / port
            copy_out(self.yard, tree, folder)
        else:
            folder = lay_out(self.yard, tree)
            self.readable.append(folder)
        return folder / tree.files[0].path if as_file else folder

    def empty_input(self, port: str) -> Path:
        """What an earlier job wrote, when that was nothing."""
        path = self.inputs / port
        path.mkdir(exist_ok=True)
        return path

    def output_path(self, port: str, output: Output) -> Path:
        """Where the command writes an output; the folder it lies in exists."""
        if output.type != "uri_file":
            path = self.outputs / port
            path.mkdir(exist_ok=True)
            return path
        name = (output.path or "").rstrip("/").rsplit("/", 1)[-1] if output.path and not output.path.endswith("/") else port
        folder = self.outputs / f"{port}.file"
        folder.mkdir(exist_ok=True)
        return folder / name

    def sandbox(self, environment: tuple[Path, ...], writable: list[Path]) -> Sandbox:
        own = (self.code, self.inputs, self.outputs, self.home, self.tmp)
        return Sandbox((*own, *writable), (*environment, *self.readable))

    def gather(self, folder: Path) -> list[File]:
        """Store every plain file under `folder`. Links and special files are left out, with a line in the system log."""
        found: list[File] = []
        for current, names, file_names in os.walk(folder):
            names.sort()
            for name in list(names):
                if (Path(current) / name).is_symlink():
                    names.remove(name)
                    self.say(f"output {Path(current) / name} is a link and is not kept")
            for name in sorted(file_names):
                path = Path(current) / name
                status = path.lstat()
                if not stat.S_ISREG(status.st_mode):
                    self.say(f"output {path} is not a plain file and is not kept")
                    continue
                if len(found) >= MAX_OUTPUT_FILES:
                    raise Invalid(f"a job keeps {MAX_OUTPUT_FILES:,} output files at most", code="too_many_files")
                try:
                    relative = safe_path(path.relative_to(folder).as_posix())
                except Invalid:
                    self.say(f"output {str(path)!r} has a name that is not kept")
                    continue
                blob = self.yard.objects.put_file(path)
                found.append(File(relative, blob.digest, blob.size))
        return found

    def gather_file(self, path: Path) -> File | None:
        try:
            status = path.lstat()
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(status.st_mode):
            raise Unavailable(f"output {path.name} is not a plain file")
        blob = self.yard.objects.put_file(path)
        return File(path.name, blob.digest, blob.size)

    def copy_to(self, source: Path, target: Path) -> None:
        """Copy an output into a folder of this machine (a local datastore): plain files only, links left out."""
        if source.is_file() and not source.is_symlink():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target, follow_symlinks=False)
            return
        for current, names, file_names in os.walk(source):
            names[:] = [name for name in names if not (Path(current) / name).is_symlink()]
            for name in file_names:
                path = Path(current) / name
                if stat.S_ISREG(path.lstat().st_mode):
                    place = target / path.relative_to(source)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, place, follow_symlinks=False)

    def clean(self) -> None:
        """Once everything is kept: only the logs and the attempts' records stay."""
        ends = (self.code / "outputs", self.code / "logs", self.code, self.inputs, self.outputs, self.home, self.tmp, self.root / "program")
        for folder in ends:
            try:
                folder.rmdir()  # most are empty, and this costs a tenth of a walk
            except FileNotFoundError:
                continue
            except OSError:
                shutil.rmtree(folder, ignore_errors=True)

    def log_tail(self, lines: int = 20) -> list[str]:
        try:
            with self.log.open("rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - 16_384))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return []
        return [line[:500] for line in text.splitlines()[-lines:]]

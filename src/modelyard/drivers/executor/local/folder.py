"""One job's folder on this machine.

jobs/<name>/code/                 the working directory, a copy of the snapshot; ./outputs and ./logs become artifacts
            inputs/  outputs/     one entry per port
            home/  tmp/           the command's own HOME and TMPDIR
            packages/             what the command installs: see `packages`
            program/              a link to the runtime, when the command runs one of its programs
            logs/                 user_logs/std_log.txt; beside it what the yard writes, system_logs/yard.log
            attempt-<n>/          request, exit record and what outputs held at first, closed to user code

The names stay from version to version: a job that runs while the server is upgraded is adopted by what lies here.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from modelyard_runtime import files

from ....core import trees
from ....core.errors import Invalid
from ....core.names import as_one_word, one_word, path_problem
from ....ports.builder import Built
from ....ports.executor import LOG, AttemptId, InputFiles, JobRun, MachinePath, OutputPort, RunInput
from ....ports.objects import Tree, TreeLayout
from . import packages

PRESENT = "present.json"
MAX_RECORD = 1 << 30
MAX_PRESENT = 400_000
"""Entries of a folder of this machine that is shown as an output."""


def copied_from(source: Path, target: Path, *, single: bool) -> dict[str, str]:
    """Copy a file or a folder of this machine, which others may write to meanwhile, by its plain files; path → digest. Nothing where
    nothing lies. Raises Invalid for too many files."""
    copied: dict[str, str] = {}
    try:
        if single:
            with trees.Folder(source.parent) as folder, folder.open(source.name) as file:
                return {target.name: _copied(file, target.parent, target.name)}
        with trees.Folder(source) as folder:
            for entry in folder.entries(MAX_PRESENT):
                if isinstance(entry, trees.Plain) and not path_problem(entry.path):
                    copied[entry.path] = _copied(entry.file, target, entry.path)
    except (FileNotFoundError, trees.NotPlain):
        pass
    except trees.TooMany:
        raise Invalid(f"{source} has more than {MAX_PRESENT:,} files and folders, too many to be shown as an output") from None
    return copied


def _copied(file: BinaryIO, target: Path, name: str) -> str:
    digest = hashlib.sha256()
    with trees.Folder(target) as folder, folder.create(name, 0o644) as copy:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            copy.write(chunk)
    return digest.hexdigest()


@dataclass
class LaidOut:
    """The text or path of each port, and what the command must be able to read besides its folder."""

    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    readable: list[Path] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    """By which the command uses its packages."""


class JobFolder:
    def __init__(self, jobs: Path, job: str) -> None:
        self.root = jobs / job
        self.code = self.root / "code"
        self.inputs = self.root / "inputs"
        self.outputs = self.root / "outputs"
        self.home = self.root / "home"
        self.tmp = self.root / "tmp"
        self.packages = self.root / "packages"
        self.program = self.root / "program"
        self.logs = self.root / "logs"
        self.log = self.logs / LOG

    @property
    def own(self) -> tuple[Path, ...]:
        """What the command may write."""
        return (self.code, self.inputs, self.outputs, self.home, self.tmp, self.packages)

    def attempt(self, id: AttemptId) -> Path:
        return self.root / f"attempt-{id.number}"

    def output(self, port: str, output: OutputPort) -> Path:
        """Where the command writes an output."""
        return self.outputs / f"{port}.file" / output.file if output.file else self.outputs / port

    def lay_out(self, run: JobRun, layout: TreeLayout, built: Built, private: bool) -> LaidOut:
        """Empty folders for a new attempt, filled; the logs of an earlier one stay. `private`: the command reads nothing outside them."""
        self._prepare(run.id)
        laid = LaidOut(variables=packages.lay_out(self.packages, built, run.constraints))
        for port, value in run.inputs.items():
            laid.inputs[port] = self._put_input(port, value, layout, private, laid)
        for port, output in run.outputs.items():
            laid.outputs[port] = str(self._make_output(port, output))
        self._put_present(run, layout)
        if run.code is not None:
            layout.copy_out(run.code, self.code, programs=(".sh",))
            trees.make(self.code)
        for name in ("outputs", "logs"):  # scripts write there without making them first
            trees.make(self.code / name, 0o755)
        if run.command.program:
            self._put_program(run.command.program, laid)
        return laid

    def _prepare(self, id: AttemptId) -> None:
        trees.make(self.root, 0o711)
        self.empty()
        for folder in (*self.own, self.attempt(id), self.logs, self.log.parent):
            trees.make(folder)

    def _put_input(self, port: str, value: RunInput, layout: TreeLayout, private: bool, laid: LaidOut) -> str:
        if isinstance(value, str):
            return value
        if isinstance(value, MachinePath):
            laid.readable.append(Path(value.path))
            return value.path if one_word(value.path) else str(self._put_link(port, Path(value.path)))
        folder = self._put_files(port, value, layout, private, laid)
        return str(folder / value.tree.files[0].path if value.single else folder)

    def _put_files(self, port: str, value: InputFiles, layout: TreeLayout, private: bool, laid: LaidOut) -> Path:
        """Shared and read-only, unless the command has a copy of its own."""
        if not value.tree.files:
            trees.make(self.inputs / port, 0o755)
            return self.inputs / port
        if private or value.copy:
            layout.copy_out(value.tree, self.inputs / port)
            return self.inputs / port
        laid.readable.append(shared := layout.lay_out(value.tree))
        return shared

    def _put_link(self, port: str, target: Path) -> Path:
        """A path to `target` that is one word in a command."""
        link = self.inputs / port / as_one_word(target.name)
        trees.link(link, target)
        return link

    def _make_output(self, port: str, output: OutputPort) -> Path:
        path = self.output(port, output)
        trees.make(path.parent if output.file else path, 0o755)
        return path

    def _put_present(self, run: JobRun, layout: TreeLayout) -> None:
        """Outputs that are not empty at first, with a record of what they held."""
        held = {port: self._put_into(port, output, layout) for port, output in run.outputs.items() if output.present is not None}
        if held:
            trees.replace(self.attempt(run.id) / PRESENT, json.dumps(held).encode("utf-8", "surrogateescape"))

    def _put_into(self, port: str, output: OutputPort, layout: TreeLayout) -> dict[str, str]:
        """Path → digest of the files that an output begins with."""
        path = self.output(port, output)
        if isinstance(output.present, MachinePath):
            return copied_from(Path(output.present.path), path, single=bool(output.file))
        assert output.present is not None
        tree = Tree((replace(output.present.files[0], path=output.file),)) if output.file else output.present
        layout.copy_out(tree, path.parent if output.file else path)
        return {file.path: file.digest for file in tree.files}

    def present(self, id: AttemptId) -> dict[str, dict[str, str]]:
        """port → path → digest of what outputs of an attempt held at first."""
        try:
            held: dict[str, dict[str, str]] = json.loads(trees.read(self.attempt(id) / PRESENT, MAX_RECORD))
        except FileNotFoundError:
            return {}
        return held

    def _put_program(self, name: str, laid: LaidOut) -> None:
        """A link to the runtime under the program's name: the command has room for one path."""
        trees.link(self.program / name, Path(files.RUNTIME))
        laid.readable += [self.program, Path(files.RUNTIME)]

    def empty(self) -> None:
        """Remove all but the logs and the attempts' records."""
        for folder in (*self.own, self.program):
            trees.remove(folder)

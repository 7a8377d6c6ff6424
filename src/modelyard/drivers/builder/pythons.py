"""Which Pythons there are for environments: those of the machine, those that the operator names, and those that were fetched."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from modelyard_runtime.protocol import BuildStep

from ...core import trees
from ...ports.builder import OLDEST_RUNTIME, Requirements
from .interpreters import OLDEST, Interpreter, base_folder, candidates
from .sandbox import BuildSandbox, Log, exclusive, readable, uv

FETCHED = ".pythons"
"""The folder, beside the environments, of interpreters that were fetched for them."""


class Pythons:
    def __init__(self, root: Path, sandbox: BuildSandbox, given: str, fetches: bool) -> None:
        """`given`: folders with interpreters, separated by `:`."""
        self.root, self.sandbox = root, sandbox
        self._given, self._fetches = given, fetches

    @property
    def folders(self) -> str:
        """Folders with interpreters: those that the operator names, and what was fetched."""
        fetched = sorted(str(folder) for folder in (self.root / FETCHED).glob("cpython-*/bin"))
        return ":".join(filter(None, (self._given, *fetched)))

    def candidates(self, requirements: Requirements, log: Log) -> list[Interpreter]:
        """As `candidates`; one that is missing is fetched first, where the operator lets it be."""
        requested, oldest = requirements.python, OLDEST_RUNTIME if requirements.programs else OLDEST
        found = candidates(requested, self.folders, oldest)
        if not self._fetches or not requested or (found and not found[0].note):
            return found
        log(f"fetching Python {requested}")
        reason = self._fetch(requested, log)
        found = candidates(requested, self.folders, oldest)
        if not reason or not found[0].note:
            return found
        missing = f"Python {requested} is not on this machine and could not be fetched ({reason})"
        return [replace(python, note=f"{missing}; Python {python.full} is used") for python in found]

    def _fetch(self, requested: str, log: Log) -> str:
        """Why an interpreter could not be fetched; empty when it is here."""
        folder = self.root / FETCHED
        command = [
            "/usr/bin/env",
            "UV_PYTHON_DOWNLOADS=manual",
            uv(),
            "python",
            "install",
            requested,
            "--install-dir",
            str(folder),
            "--no-bin",
        ]
        with exclusive(self.root, FETCHED.lstrip(".")), self.sandbox.workplace() as place:
            trees.make(folder, 0o755)
            if place.uid is not None:
                trees.hand_over(folder, place.uid)
            base = base_folder(Path(sys.executable).resolve())
            done = self.sandbox.run(place, [BuildStep(command)], python=base, writable=[folder], log=log)
            trees.close(folder)
        return _reason(done.output) if done.status != 0 else ""


def _reason(output: str) -> str:
    """The last line of what uv says of a failure."""
    return (readable(output).splitlines() or ["no reason is known"])[-1].strip()

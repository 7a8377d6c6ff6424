"""A copy of the program, into which a test builds what a page for builders says, and a yard of it in a home of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import checked_yard
import modelyard

SOURCE = Path(modelyard.__file__).parents[1]
ROOT = Path(__file__).parents[1]
YARD = "import sys; from modelyard.cli.main import main; main(sys.argv[1:])"


def insert(path: Path, before: str, text: str) -> None:
    source = path.read_text()
    assert source.count(before) == 1, (path, before)
    path.write_text(source.replace(before, text + before))


@dataclass
class ProgramCopy:
    root: Path

    @classmethod
    def made(cls, root: Path) -> Self:
        for package in ("modelyard", "modelyard_runtime"):
            shutil.copytree(SOURCE / package, root / "src" / package, ignore=shutil.ignore_patterns("__pycache__"))
        return cls(root)

    @property
    def package(self) -> Path:
        return self.root / "src/modelyard"

    @property
    def environment(self) -> dict[str, str]:
        keep = {key: value for key, value in os.environ.items() if not key.startswith(("YARD_", "MLFLOW_"))}
        home = str(self.root / "home")
        shared = {"YARD_ENVIRONMENTS": str(checked_yard.environments[0])} if checked_yard.environments else {}
        path = f"{self.root / 'src'}:{ROOT / 'tools'}"
        return {**keep, **shared, "PYTHONPATH": path, "YARD_HOME": home, "XDG_CONFIG_HOME": f"{home}-config"}

    def python(self, code: str, *arguments: str, code_wanted: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=self.environment, cwd=self.root, timeout=120
        )
        assert done.returncode == code_wanted, f"{arguments}: {done.stdout}\n{done.stderr}"
        return done.stdout if code_wanted == 0 else done.stderr

    def yard(self, *arguments: str, code: int = 0) -> str:
        return self.python(YARD, *arguments, code_wanted=code)

    def json(self, *arguments: str) -> Any:
        return json.loads(self.yard(*arguments, "-o", "json"))

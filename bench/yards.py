"""A yard under test: started in an empty home of its own, driven by its command line, ended with everything that it started."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from measure import process_tree

PROGRAM = str(Path(sys.executable).parent / "yard")


class Yard:
    """A context: running inside, with ports that were free. What lay in `home` is deleted first and stays afterwards."""

    def __init__(self, home: Path, *flags: str, environments: Path | None = None) -> None:
        """`environments` is a folder of built environments that is kept; none means one in the home."""
        self.home = home
        self.flags = flags
        self.environments = environments or home / "envs"
        keep = {name: value for name, value in os.environ.items() if not name.startswith(("YARD_", "MLFLOW_"))}
        self.environment = {**keep, "YARD_HOME": str(home), "YARD_ENVIRONMENTS": str(self.environments)}

    def __enter__(self) -> Self:
        shutil.rmtree(self.home, ignore_errors=True)
        try:
            self.run("up", "--port", "0", "--router-port", "0", *self.flags)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *raised: object) -> None:
        subprocess.run([PROGRAM, "down", "--all", "-o", "none"], env=self.environment, stderr=subprocess.DEVNULL)

    def run(self, *arguments: str | Path, check: bool = True) -> str:
        """What `yard ARGUMENTS` prints. Raises RuntimeError with its last words when it fails, unless `check` is off."""
        done = subprocess.run([PROGRAM, *arguments], env=self.environment, capture_output=True, text=True)
        if check and done.returncode != 0:
            raise RuntimeError(f"yard {' '.join(map(str, arguments))} exited with {done.returncode}: {done.stderr[-500:]}")
        return done.stdout

    def json(self, *arguments: str | Path) -> dict[str, Any]:
        return dict(json.loads(self.run(*arguments, "-o", "json")))

    @property
    def url(self) -> str:
        return str(self._record["url"])

    @property
    def token(self) -> str:
        return (self.home / "control/admin.token").read_text().strip()

    @property
    def server(self) -> int:
        """Pid of the control plane."""
        return int(self._record["pid"])

    @property
    def supervisor(self) -> int:
        """Pid of the supervisor, under which jobs and model servers run."""
        return int(json.loads((self.home / "control/supervisor/running.json").read_text())["pid"])

    def server_tree(self) -> list[int]:
        return process_tree(self.server)

    @property
    def _record(self) -> dict[str, Any]:
        return dict(json.loads((self.home / "control/server.json").read_text()))

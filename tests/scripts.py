"""Scripts run as jobs in one environment, as warm interpreters take them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from checked_yard import YardUnderTest
from modelyard.testing.waiting import wait_for


class Scripts:
    """Runs a script as a job in one environment, and tells how its process was started."""

    def __init__(self, yard: YardUnderTest, folder: Path) -> None:
        self.yard, self.folder = yard, folder
        (folder / "code").mkdir()
        self.code("pass")
        self.kind = 0

    def code(self, text: str, **more: str) -> None:
        for name, content in {"step": text, **more}.items():
            (self.folder / "code" / f"{name}.py").write_text(content)

    def submit(self, arguments: str = "", **fields: Any) -> str:
        variables = {"KIND": str(self.kind)}
        body = {
            "command": f"python step.py {arguments}",
            "code": "./code",
            "environment": {"pip": []},
            "environment_variables": variables,
            **fields,
        }
        (self.folder / "job.yml").write_text(json.dumps({"type": "command", **body}))
        return str(self.yard.json("job", "create", "-f", str(self.folder / "job.yml"))["name"])

    def run(self, arguments: str = "", **fields: Any) -> tuple[str, dict[str, Any]]:
        """(how it was started, the job)"""
        job = self.yard.wait_job(self.submit(arguments, **fields))
        return job["properties"].get("start", ""), job

    def warmed(self) -> None:
        """Come again until an interpreter is there."""

        def is_warm() -> bool:
            return self.run()[0] == "warm"

        wait_for(is_warm, 60, "a warm interpreter")

    def interpreter(self) -> tuple[Path, int]:
        """The folder and pid of the interpreter of the newest kind."""
        running = [folder for folder in (self.yard.home / "interpreters").iterdir() if not (folder / "exit.json").exists()]
        folder = max(running, key=lambda folder: (folder / "running.json").stat().st_mtime)
        return folder, int(json.loads((folder / "running.json").read_text())["child"])

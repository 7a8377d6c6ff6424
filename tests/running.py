"""A yard in this process whose jobs run until they are ended, and what their tokens may."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelyard.testing.memory.executor import Process
from modelyard.testing.yard import InProcessYard

API = "/api/v1/workspaces/default"


class Running:
    """A yard in which jobs go on until the test is over; `tokens` are theirs, by name."""

    def __init__(self, root: Path) -> None:
        self.tokens: dict[str, str] = {}
        self.yard = InProcessYard(root, answer=self._answer)

    def _answer(self, process: Process) -> None:
        self.tokens[process.run.id.job] = process.environment["MLFLOW_TRACKING_TOKEN"]

    def job(self, name: str, token: str | None = None, **fields: Any) -> dict[str, Any]:
        body = {"name": name, **({} if "jobs" in fields else {"command": "true", "environment": {"pip": []}}), **fields}
        self.yard.call("POST", f"{API}/jobs", json=body, expect=201, token=token)
        self.yard.settle()
        return dict(self.yard.call("GET", f"{API}/jobs/{name}", expect=200).json())

    def shown(self, name: str) -> dict[str, Any]:
        return dict(self.yard.call("GET", f"{API}/jobs/{name}", expect=200).json())

    def user(self, name: str, role: str) -> str:
        """The token of a new user with a role in the workspace."""
        self.yard.call("POST", "/api/v1/principals", json={"name": name}, expect=201)
        self.yard.call("PUT", f"/api/v1/principals/{name}/roles/{role}", params={"workspace_name": "default"}, expect=200)
        return str(self.yard.call("POST", "/api/v1/tokens", json={"principal": name}, expect=201).json()["token"])

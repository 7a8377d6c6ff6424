"""What a command imports: it starts in the time of Python and of what it needs, and of nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from checked_yard import YardUnderTest

REPORT = """
import sys
from modelyard.cli.main import main
try:
    main(sys.argv[1:])
finally:
    print("\\n" + " ".join(sorted(sys.modules)), file=sys.stderr)
"""
LIBRARIES = {
    "click", "pydantic", "yaml", "httpx", "rich", "ssl", "http", "jmespath", "lark", "msgspec", "orjson", "pathspec", "packaging", "cryptography",
    "hashlib", "sqlalchemy", "fastapi", "email", "uvloop", "certifi", "typing_extensions", "importlib.metadata",
}  # fmt: skip
"""What takes long to import, of the standard library or not."""
TALKING = {"click", "http", "email", "ssl"}
"""What a command needs that asks the yard."""
WRITING = TALKING | {"pydantic", "yaml", "typing_extensions", "hashlib"}
"""What one needs that reads a file; the last two are imported by it."""


def imported(yard: YardUnderTest, *arguments: str | Path) -> tuple[set[str], set[str]]:
    """(libraries, specs) that are loaded when the command has ended."""
    done = subprocess.run([sys.executable, "-c", REPORT, *map(str, arguments)], env=yard.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    modules = done.stderr.rsplit("\n", 2)[-2].split()
    return LIBRARIES & set(modules), {module.removeprefix("modelyard.spec.") for module in modules if module.startswith("modelyard.spec.")}


@pytest.mark.parametrize("arguments", [["--help"], ["job", "--help"], ["model", "create", "--help"], ["--version"]])
def test_help_needs_nothing_but_click(yard: YardUnderTest, arguments: list[str]) -> None:
    libraries, specs = imported(yard, *arguments)
    assert libraries == {"click"}
    assert specs <= {"nouns", "states"}


@pytest.mark.parametrize(
    "arguments",
    ["job list", "job list -o table", "job list -o json", "data list", "online-endpoint list", "run list", "compute show -n local",
     "compute list", "workspace list", "registry list", "datastore list", "environment list", "batch-endpoint list", "schedule list",
     "user list", "token list", "audit list", "experiment list", "status"],
)  # fmt: skip
def test_what_lists_and_shows_reads_no_specs(yard: YardUnderTest, arguments: str) -> None:
    libraries, specs = imported(yard, *arguments.split())
    assert libraries == TALKING
    assert specs <= {"nouns", "states", "tracking"}


def test_what_is_created_needs_its_own_spec_alone(yard: YardUnderTest, tmp_path: Path) -> None:
    job = tmp_path / "job.yml"
    job.write_text("command: echo hello\nenvironment: {pip: []}\n")
    libraries, specs = imported(yard, "job", "create", "-f", job)
    assert libraries == WRITING
    assert not specs & {
        "pipeline",
        "sweep",
        "step",
        "component",
        "schedule",
        "batch",
        "online",
        "model",
        "data",
        "workspace",
        "requirements",
    }
    libraries, specs = imported(yard, "data", "create", "-n", "start", "--path", job)
    assert libraries == WRITING
    assert not specs & {"job", "pipeline", "sweep", "schedule", "batch", "online", "model", "workspace", "requirements"}


def test_importing_the_sdk_reads_no_noun_and_opens_no_connection() -> None:
    code = "from modelyard import MLClient, command, Input, Output, load_job; import sys, json; print(json.dumps(sorted(sys.modules)))"
    modules = set(json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout))
    assert not modules & {"httpx", "rich", "yaml", "ssl", "http.client", "modelyard.sdk.transport"}
    assert {name for name in modules if name.startswith("modelyard.spec.")} <= {
        f"modelyard.spec.{name}" for name in ("nouns", "fields", "inputs", "local", "scalar")
    }

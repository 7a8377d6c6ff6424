"""The kind of job that `docs/extend/job-kind.md` tells builders to write."""

from __future__ import annotations

import importlib
import json
import re
import runpy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import modelyard.spec
import modelyard.work
from modelyard.engine.feature import Feature
from modelyard.spec.nouns import NOUNS
from modelyard.testing.memory.executor import Process
from modelyard.testing.yard import WITHOUT_PROCESSES, InProcessYard
from pages import PAGES, grafted, write_blocks
from program_copy import ProgramCopy, insert

PAGE = (PAGES / "job-kind.md").read_text()
FILES = re.findall(r"^\| `(\S+/\S+)` \|", PAGE, re.MULTILINE)
MOST = 6
"""Source files that a new kind may need, components and steps of it among them."""
JOBS = "/api/v1/workspaces/default/jobs"


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return write_blocks("job-kind.md", tmp_path / "page")


@pytest.fixture
def rowcount(written: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Feature]:
    """The page's feature, with its spec among those that are known."""
    with (
        grafted(monkeypatch, modelyard.spec, written / "spec", "rowcount"),
        grafted(monkeypatch, modelyard.work, written / "work", "rowcount"),
    ):
        monkeypatch.setitem(NOUNS["job"].specs, "rowcount", importlib.import_module("modelyard.spec.rowcount").RowcountJob)
        monkeypatch.setitem(NOUNS["job"].types, "rowcount", "rowcount:RowcountJob")  # type: ignore[arg-type]
        yield importlib.import_module("modelyard.work.rowcount.feature").FEATURE


@pytest.fixture
def yard(tmp_path: Path, written: Path, rowcount: Feature) -> Iterator[InProcessYard]:
    """A yard with the kind, where the page's program answers for its commands."""
    program = runpy.run_path(str(written / "modelyard_runtime/jobs/rowcount.py"))["main"]

    def answer(process: Process) -> int:
        python, link, path, at_least = process.command.split()
        assert (python, link, process.run.command.program) == ("python", '"$YARD_PROGRAM"', "rowcount")
        (tmp_path / "rows").write_bytes(process.files[path])
        return int(program([str(tmp_path / "rows"), at_least]))

    features = (*WITHOUT_PROCESSES, rowcount)
    made = InProcessYard(tmp_path / "home", features=features, answer=answer)
    put_rows(made, "a\nb\nc\n")
    yield made
    made.close()


def put_rows(yard: InProcessYard, text: str) -> None:
    from modelyard.assets.files import service as files

    blob = yard.yard.objects.put_bytes(text.encode())
    yard.write(lambda unit: files.put_file(unit, "workspaceblobstore", "in/rows.csv", blob.digest, blob.size))


def submit(yard: InProcessYard, name: str, at_least: int, **fields: Any) -> dict[str, Any]:
    data = {"type": "uri_file", "path": "azureml://datastores/workspaceblobstore/paths/in/rows.csv"}
    body = {"type": "rowcount", "name": name, "environment": {"pip": []}, "inputs": {"data": data}, "at_least": at_least, **fields}
    yard.call("POST", JOBS, json=body, expect=201)
    return shown(yard, name)


def shown(yard: InProcessYard, name: str) -> dict[str, Any]:
    yard.settle()
    return dict(yard.call("GET", f"{JOBS}/{name}", expect=200).json())


def test_a_job_of_the_kind_runs_its_program_and_ends_as_it_says(yard: InProcessYard) -> None:
    enough, short = submit(yard, "enough", 3), submit(yard, "short", 4)
    assert (enough["type"], enough["status"]) == ("rowcount", "Completed"), enough
    assert (short["status"], short["error"]["exit_code"]) == ("Failed", 1)


def test_it_is_run_again_with_the_data_that_it_read(yard: InProcessYard) -> None:
    assert submit(yard, "first", 3)["status"] == "Completed"
    put_rows(yard, "only one\n")
    again = yard.call("POST", f"{JOBS}/first/rerun", expect=201).json()
    assert shown(yard, again["name"])["status"] == "Completed"
    assert yard.call("GET", f"{JOBS}/first/verify", params={"against": again["name"]}, expect=200).json()["differences"] == []


def test_what_it_lacks_is_refused_when_it_is_submitted(yard: InProcessYard) -> None:
    body = {"type": "rowcount", "environment": {"pip": []}, "inputs": {}}
    refused = yard.call("POST", JOBS, json=body, expect=400)
    assert refused.json()["error"]["code"] == "invalid_spec"
    refused = yard.call("POST", JOBS, json={**body, "inputs": {"data": {"path": "azureml:none:1"}}}, expect=400)
    assert refused.json()["error"]["code"] == "unresolved_reference"


def test_a_new_kind_needs_no_more_files_than_promised() -> None:
    assert len(FILES) == len(set(FILES)) <= MOST
    assert {"spec/nouns.py", "app/features.py"} <= set(FILES)
    assert set(re.findall(r"```python\n# (\S+\.py)\n", PAGE)) == set(FILES) - {"spec/nouns.py", "app/features.py"}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProgramCopy]:
    made = ProgramCopy.made(tmp_path_factory.mktemp("kind"))
    shutil.copytree(write_blocks("job-kind.md", made.root / "page"), made.package, dirs_exist_ok=True)
    shutil.copytree(made.package / "modelyard_runtime", made.root / "src/modelyard_runtime", dirs_exist_ok=True)
    job, component, step, feature = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    nouns, features = made.package / "spec/nouns.py", made.package / "app/features.py"
    insert(nouns, '            "command": "component:CommandComponent",', component)
    insert(nouns, '            "command": "step:CommandNode",', step)
    nouns.write_text(nouns.read_text().replace('{"command": "job:CommandJob",', f'{{{job.strip()} "command": "job:CommandJob",'))
    insert(features, "\nFEATURES: ", feature)
    insert(features, "    online, batch,\n", "    rowcount,\n")
    (made.root / "rows.csv").write_text("a\nb\nc\n")
    made.yard("up", "--port", "0", "--router-port", "0", "-o", "none")
    yield made
    made.yard("down", "--all", "-o", "none")


def written_to(copy: ProgramCopy, name: str, document: dict[str, Any]) -> str:
    (copy.root / name).write_text(json.dumps(document))
    return str(copy.root / name)


def test_it_runs_for_real_alone_and_as_a_step(copy: ProgramCopy) -> None:
    data = {"data": {"type": "uri_file", "path": "./rows.csv"}}
    alone = {"type": "rowcount", "environment": {"pip": []}, "inputs": data, "at_least": 4}
    copy.yard("job", "create", "-f", written_to(copy, "alone.yml", alone), "-n", "alone", "--stream", code=1)
    assert copy.json("job", "show", "-n", "alone")["error"]["exit_code"] == 1
    component = {"name": "enough", "type": "rowcount", "environment": {"pip": []}, "inputs": {"data": {"type": "uri_file"}}, "at_least": 9}
    assert copy.json("component", "create", "-f", written_to(copy, "component.yml", component))["type"] == "rowcount"
    bound = {"data": "${{parent.inputs.data}}"}
    pipeline = {
        "type": "pipeline", "inputs": data,
        "jobs": {
            "inline": {"type": "rowcount", "environment": {"pip": []}, "inputs": bound, "at_least": 3},
            "named": {"type": "rowcount", "component": "azureml:enough@latest", "inputs": bound, "at_least": 2},
        },
    }  # fmt: skip
    for name, reused in ("first", False), ("second", True):
        copy.yard("job", "create", "-f", written_to(copy, "pipeline.yml", pipeline), "-n", name, "--stream", "-o", "none")
        steps = copy.json("job", "show", "-n", name)["steps"]
        assert {step["status"] for step in steps.values()} == {"Completed"}, steps
        assert ["reused_from" in step for step in steps.values()] == [reused, reused]
    pipeline["jobs"]["named"]["inputs"] = {}
    refused = copy.yard("job", "create", "-f", written_to(copy, "pipeline.yml", pipeline), code=2)
    assert "jobs.named.inputs" in refused or "'data'" in refused


def test_it_goes_with_its_run(yard: InProcessYard) -> None:
    submit(yard, "gone", 1)
    yard.call("DELETE", f"{JOBS}/gone", expect=204)
    yard.call("GET", f"{JOBS}/gone", expect=404)

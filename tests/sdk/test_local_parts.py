"""What of a document is local, as each spec says it, and what the client makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from modelyard.core.errors import Invalid, NotFound
from modelyard.sdk import localize
from modelyard.sdk.localize import Localizer
from modelyard.spec.loading import load


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """What is uploaded, in order: (name of the file or folder, whether as code). No bytes are moved."""
    uploads: list[tuple[str, bool]] = []

    def upload(transport: Any, path: Path, *, code: bool = False, progress: Any = None) -> str:
        uploads.append((path.name, code))
        return f"azureml://datastores/store/paths/{path.name}"

    monkeypatch.setattr(localize, "upload", upload)
    return uploads


def localized(path: Path, noun: str) -> dict[str, Any]:
    return Localizer(cast(Any, None)).document(load(noun, path))


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_each_part_is_relative_to_the_file_it_stands_in(tmp_path: Path, sent: list[tuple[str, bool]]) -> None:
    write(tmp_path / "steps/src/run.py", "")
    write(tmp_path / "steps/packages.txt", "numpy\n")
    write(tmp_path / "rows/a.csv", "")
    write(tmp_path / "steps/step.yml", "name: step\ncommand: python run.py\ncode: ./src\nenvironment: {pip: ./packages.txt}\n")
    pipeline = write(
        tmp_path / "pipeline.yml",
        "inputs: {rows: {path: ./rows}}\njobs:\n  one: {component: ./steps/step.yml}\n"
        "  two: {command: 'true', environment: {pip: []}, inputs: {rows: '${{parent.inputs.rows}}'}}\n",
    )
    document = localized(pipeline, "job")
    assert sorted(sent) == [("rows", False), ("src", True)]
    assert document["inputs"]["rows"]["path"].endswith("/rows")
    step = document["jobs"]["one"]["component"]
    assert step["code"].endswith("/src") and step["environment"]["pip"] == ["numpy"]


@pytest.mark.parametrize("reference", ["file:./envs/env.yml", "./envs/env.yml", "file:envs/conda.yaml", "envs/list.txt"])
def test_an_environment_may_be_a_file_of_its_own(tmp_path: Path, sent: list[tuple[str, bool]], reference: str) -> None:
    write(tmp_path / "envs/list.txt", "six\n")
    write(tmp_path / "envs/conda.yaml", "channels: [conda-forge]\ndependencies: [python=3.11, {pip: [-r list.txt]}]\n")
    write(tmp_path / "envs/env.yml", "name: e\nversion: 1.10\nimage: some/image\nconda_file: conda.yaml\n")
    job = write(tmp_path / "job.yml", f"command: 'true'\nenvironment: {reference}\n")
    if reference.endswith(".txt"):
        assert localized(job, "job")["environment"] == reference, "a name, not a file: only YAML files are meant without file:"
        return
    environment = localized(job, "job")["environment"]
    assert environment["conda_file"]["dependencies"] == ["python=3.11", {"pip": ["six"]}]
    (tmp_path / "envs/env.yml").unlink()
    (tmp_path / "envs/conda.yaml").unlink()
    with pytest.raises(NotFound, match="there is no such file"):
        localized(job, "job")


def test_a_job_inside_a_schedule_is_uploaded_like_any_other(tmp_path: Path, sent: list[tuple[str, bool]]) -> None:
    write(tmp_path / "src/run.py", "")
    schedule = write(
        tmp_path / "schedule.yml",
        "name: s\ntrigger: {type: cron, expression: '0 6 * * 1'}\ncreate_job: {job: {type: command, command: 'true', code: ./src, environment: 'e:1'}}\n",
    )
    assert localized(schedule, "schedule")["create_job"]["job"]["code"].endswith("/src")
    assert sent == [("src", True)]


def test_a_wrong_path_anywhere_costs_no_upload(tmp_path: Path, sent: list[tuple[str, bool]]) -> None:
    write(tmp_path / "rows/a.csv", "")
    pipeline = write(
        tmp_path / "pipeline.yml",
        "inputs: {rows: {path: ./rows}}\njobs: {one: {command: 'true', code: ./nowhere, environment: {pip: []}}}\n",
    )
    with pytest.raises(NotFound, match="nowhere"):
        localized(pipeline, "job")
    assert sent == []


def test_what_a_path_must_be_is_checked(tmp_path: Path, sent: list[tuple[str, bool]]) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(Invalid, match="holds no MLTable file"):
        localized(write(tmp_path / "data.yml", "name: d\ntype: mltable\npath: ./folder\n"), "data")
    write(tmp_path / "folder/MLTable", "paths:\n  - pattern: ./*.csv\n  - folder: ../sales\n")
    with pytest.raises(Invalid, match=r"paths.1: '../sales' lies outside the folder"):
        localized(write(tmp_path / "data.yml", "name: d\ntype: mltable\npath: ./folder\n"), "data")
    job = "command: cat ${{inputs.f}}\nenvironment: 'e:1'\ninputs: {f: {type: uri_file, path: ./folder}}\n"
    with pytest.raises(Invalid, match="but the input is a uri_file"):
        localized(write(tmp_path / "job.yml", job), "job")
    assert sent == []


def test_a_model_of_a_deployment_is_a_path_when_one_is_there(tmp_path: Path, sent: list[tuple[str, bool]]) -> None:
    write(tmp_path / "model/MLmodel", "")
    deployment = "name: blue\nendpoint_name: house\nmodel: {}\n"
    document = localized(write(tmp_path / "d.yml", deployment.format("./model")), "online_deployment")
    assert document["model"] == {"path": "azureml://datastores/store/paths/model", "type": "mlflow_model"}
    assert localized(write(tmp_path / "e.yml", deployment.format("azureml:m:1")), "online_deployment")["model"] == "azureml:m:1"

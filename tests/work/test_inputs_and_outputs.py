"""What inputs and outputs of jobs and steps become, and what is refused before anything runs. In this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modelyard.ports.executor import InputFiles
from modelyard.ports.objects import Tree
from modelyard.testing.memory.executor import Process
from modelyard.testing.yard import InProcessYard

JOBS = "/api/v1/workspaces/default/jobs"
STORE = "azureml://datastores/workspaceblobstore/paths"
BLOB = {"type": "azure_blob", "account_name": "a", "container_name": "c"}


class Yard(InProcessYard):
    """Notes every process, each of which writes a file to each of its outputs."""

    def __init__(self, root: Path) -> None:
        self.processes: list[Process] = []
        super().__init__(root, answer=self._write)

    def _write(self, process: Process) -> int:
        self.processes.append(process)
        for port, output in process.run.outputs.items():
            process.files[f"/outputs/{port}.file/{output.file}" if output.file else f"/outputs/{port}/made.txt"] = process.command.encode()
        return 0

    def job(self, **fields: Any) -> dict[str, Any]:
        body = {"type": "command", "command": "true", "environment": {"pip": []}, **fields}
        name = self.call("POST", JOBS, json=body, expect=201).json()["name"]
        self.settle()
        return dict(self.call("GET", f"{JOBS}/{name}", expect=200).json())

    def refused(self, **fields: Any) -> str:
        command = {"command": "true", "environment": {"pip": []}} if "jobs" not in fields else {"type": "pipeline"}
        return self.call("POST", JOBS, json={"type": "command", **command, **fields}, expect=400).text


@pytest.fixture
def yard(tmp_path: Path) -> Any:
    made = Yard(tmp_path / "home")
    yield made
    made.close()


def folder(yard: Yard, *names: str) -> str:
    """The path of an output with these files."""
    name = yard.job(command="make", outputs={"o": {"path": f"{STORE}/{'-'.join(names)}/"}})["name"]
    for file in names:
        yard.call("PUT", f"/api/2.0/mlflow-artifacts/artifacts/0/{name}/artifacts/f/{file}", content=file.encode(), expect=200)
    return f"runs:/{name}/f"


def test_values_reach_a_script_by_name_as_azure_hands_them_over(yard: Yard) -> None:
    yard.job(command="echo ${{inputs.rate}}", inputs={"rate": 0.5, "flag": True, "text": "a b", "d": {"path": folder(yard, "x")}})
    variables = yard.processes[-1].environment
    assert {name: variables[name] for name in variables if name.startswith("AZUREML_PARAMETER_")} == {
        "AZUREML_PARAMETER_rate": "0.5", "AZUREML_PARAMETER_flag": "True", "AZUREML_PARAMETER_text": "a b",
    }  # fmt: skip
    assert variables["AZURE_ML_INPUT_rate"] == "0.5" and "d" in variables["AZURE_ML_INPUT_d"]


@pytest.mark.parametrize(("type", "single"), [("uri_file", True), ("uri_folder", True), ("custom_model", True), ("mltable", False)])
def test_a_file_that_is_given_to_a_folder_arrives_as_the_file(yard: Yard, type: str, single: bool) -> None:
    path = folder(yard, "a.csv")
    yard.job(inputs={"d": {"type": type, "path": f"{path}/a.csv"}})
    value = yard.processes[-1].run.inputs["d"]
    assert isinstance(value, InputFiles) and value.single is single


def test_a_folder_with_one_file_of_its_own_name_is_a_folder(yard: Yard) -> None:
    yard.job(inputs={"d": {"type": "uri_folder", "path": folder(yard, "f")}})
    value = yard.processes[-1].run.inputs["d"]
    assert isinstance(value, InputFiles) and not value.single and [file.path for file in value.tree.files] == ["f"]


def test_an_empty_text_for_an_optional_input_leaves_its_block_out_and_elsewhere_is_a_text(yard: Yard) -> None:
    optional = {"x": {"type": "string", "optional": True, "value": ""}}
    yard.job(command="run $[[--x ${{inputs.x}}]] end", inputs=optional)
    yard.job(command="run '${{inputs.x}}' end", inputs=optional)
    yard.job(command="run $[[--x '${{inputs.x}}']] end", inputs={"x": {"type": "string", "value": ""}})
    assert [process.command for process in yard.processes] == ["run  end", "run '' end", "run --x '' end"]


def test_a_step_leaves_the_block_of_an_optional_port_out_too(yard: Yard) -> None:
    component = {
        "type": "command", "command": "run $[[--x ${{inputs.x}}]]", "environment": {"pip": []}, "inputs": {"x": {"type": "string", "optional": True}}
    }  # fmt: skip
    body = {"type": "pipeline", "jobs": {"a": {"component": component, "inputs": {"x": "${{parent.inputs.t}}"}}}, "inputs": {"t": ""}}
    yard.call("POST", JOBS, json=body, expect=201)
    yard.settle()
    assert [process.command.strip() for process in yard.processes] == ["run"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"inputs": {"d": {"path": "wasbs://c@a.blob/x"}}}, "wasbs://c@a.blob/x is not read"),
        ({"inputs": {"d": {"path": "abfss://c@a.dfs/x", "mode": "download"}}}, "is not read"),
        ({"inputs": {"d": {"path": "azureml://datastores/cloud/paths/x"}}}, "of type azure_blob is stored here but not read"),
        ({"inputs": {"d": {"path": f"{STORE}/"}}}, "is the root of a datastore"),
        ({"outputs": {"o": {"path": f"{STORE}/"}}}, "is the root of a datastore"),
        ({"outputs": {"o": {"path": "wasbs://c@a.blob/x"}}}, "is not a place in a datastore"),
        ({"outputs": {"o": {"path": "azureml://datastores/cloud/paths/x"}}}, "not written"),
    ],
)
def test_what_cannot_be_read_or_written_is_refused_at_submit_of_a_job_and_of_a_step(yard: Yard, fields: dict[str, Any], words: str) -> None:
    yard.call("PUT", "/api/v1/workspaces/default/datastores/cloud", json={"name": "cloud", **BLOB}, expect=200)
    assert words in yard.refused(**fields)
    inline = {"command": "true", "environment": {"pip": []}, **fields}
    assert words in yard.refused(jobs={"a": inline})
    bound = {
        kind: {port: f"${{{{parent.{kind}.{port}}}}}" for port in ports} for kind, ports in fields.items()
    }  # fmt: skip
    step = {"command": "true", "environment": {"pip": []}, **bound}
    assert words in yard.refused(jobs={"a": step}, **fields)
    assert not yard.processes


def test_a_folder_of_several_files_is_no_uri_file(yard: Yard) -> None:
    assert "is a folder of 2 files" in yard.refused(inputs={"d": {"type": "uri_file", "path": folder(yard, "a", "b")}})


def test_an_address_is_passed_on_when_the_step_asks_for_it(yard: Yard) -> None:
    step = {"command": "true", "environment": {"pip": []}, "inputs": {"d": {"path": "${{parent.inputs.d}}", "mode": "direct"}}}
    body = {"type": "pipeline", "jobs": {"a": step}, "inputs": {"d": {"path": "wasbs://c@a.blob/x"}}}
    yard.call("POST", JOBS, json=body, expect=201)
    yard.settle()
    assert yard.processes[-1].run.inputs["d"] == "wasbs://c@a.blob/x"


def test_unknown_settings_of_a_pipeline_are_noted(yard: Yard) -> None:
    body = {"type": "pipeline", "jobs": {"a": {"command": "true", "environment": {"pip": []}}}, "settings": {"default_computes": "local"}}
    warnings = yard.call("POST", JOBS, json=body, expect=201).json()["warnings"]
    assert warnings == ["settings.default_computes: there is no such setting; did you mean 'default_compute'?; it is ignored, as in Azure"]


def test_a_step_and_its_pipeline_may_both_name_an_output_and_the_job_shows_the_versions(yard: Yard) -> None:
    step = {"command": "make", "environment": {"pip": []}, "outputs": {"o": {"path": "${{parent.outputs.whole}}", "name": "of-step"}}}
    body = {"type": "pipeline", "jobs": {"a": step}, "outputs": {"whole": {"name": "of-pipeline"}}}

    def run() -> dict[str, Any]:
        name = yard.call("POST", JOBS, json=body, expect=201).json()["name"]
        yard.settle()
        return dict(yard.call("GET", f"{JOBS}/{name}", expect=200).json())

    job = run()
    assert job["status"] == "Completed" and job["outputs"]["whole"] | {"type": ""} == {"type": "", "name": "of-pipeline", "version": "1"}
    of_step = yard.call("GET", f"{JOBS}/{job['steps']['a']['job_name']}", expect=200).json()
    assert (of_step["outputs"]["o"]["name"], of_step["outputs"]["o"]["version"]) == ("of-step", "1")
    assert of_step["properties"]["registered"] == {"o": "of-step:1"}
    for name in ("of-step", "of-pipeline"):
        assert yard.call("GET", f"/api/v1/workspaces/default/data/{name}/versions/1", expect=200).json()["path"]
    again = run()
    assert "reused_from" in again["steps"]["a"] and again["outputs"]["whole"]["version"] == "1"


def test_a_version_that_is_taken_fails_the_job_and_loses_nothing(yard: Yard) -> None:
    output = {"o": {"name": "rows", "version": "1"}}
    yard.job(command="first", outputs=output)
    job = yard.job(command="second", outputs=output)
    assert (job["status"], job["error"]["code"]) == ("Failed", "version_exists") and "the outputs are kept" in job["error"]["message"]
    uri = yard.call("GET", f"{JOBS}/{job['name']}/outputs", expect=200).json()["o"]["uri"]
    prefix = uri.partition("/paths/")[2]
    listed = yard.call(
        "GET", "/api/v1/workspaces/default/datastores/workspaceblobstore/files", params={"prefix": prefix}, expect=200
    ).json()
    assert [file["path"] for file in listed["value"]] == [f"{prefix}made.txt"]


def test_a_mounted_output_shows_what_lies_at_its_path_and_writes_back_what_was_changed(yard: Yard) -> None:
    def at(path: str) -> dict[str, str]:
        base = "/api/v1/workspaces/default/datastores/workspaceblobstore/files"
        listed = yard.call("GET", base, params={"prefix": path}, expect=200).json()["value"]
        return {file["path"].removeprefix(path): yard.call("GET", f"{base}/{file['path']}", expect=200).text for file in listed}

    yard.job(command="first", outputs={"o": {"path": f"{STORE}/mounted/"}})
    for mode, seen in (("rw_mount", ["made.txt"]), ("mount", ["made.txt"]), ("upload", []), (None, [])):
        yard.job(command="other", outputs={"o": {"path": f"{STORE}/mounted/", "mode": mode}})
        present = yard.processes[-1].run.outputs["o"].present
        assert isinstance(present, Tree) and [file.path for file in present.files] == seen if seen else present is None
    yard.job(command="first", outputs={"o": {"path": f"{STORE}/mounted/"}})

    def leave_as_it_was(process: Process) -> int:
        process.files["/outputs/o/new.txt"] = b"new"
        yard.executor._answer = yard._write
        return 0

    yard.executor._answer = leave_as_it_was
    job = yard.job(command="adds", outputs={"o": {"path": f"{STORE}/mounted/", "mode": "rw_mount", "name": "mounted"}})
    assert at("mounted/") == {"made.txt": "first", "new.txt": "new"}
    asset = yard.call("GET", "/api/v1/workspaces/default/data/mounted/versions/1", expect=200).json()
    assert at(asset["content"].partition("/paths/")[2]) == {"made.txt": "first", "new.txt": "new"}, "as the folder is"
    assert job["outputs"]["o"]["version"] == "1"


def test_an_artifact_that_clashes_with_one_that_was_logged_fails_the_job_and_loses_no_other(yard: Yard) -> None:
    def log(process: Process) -> None:
        process.files["/code/outputs/a.txt"] = b"a"
        process.files["/code/logs/b.txt"] = b"b"
        process.files["/outputs/o/made.txt"] = b"o"

    yard.executor._answer = log
    job = yard.job(outputs={"o": {}})
    base = f"/api/2.0/mlflow-artifacts/artifacts/0/{job['name']}/artifacts"
    yard.call("PUT", f"{base}/outputs", content=b"a file", expect=200)
    yard.executor.finish(job["name"])
    yard.settle()
    job = yard.call("GET", f"{JOBS}/{job['name']}", expect=200).json()
    assert (job["status"], job["error"]["code"]) == ("Failed", "output_not_kept") and "outputs/a.txt: outputs is a file" in job["error"][
        "message"
    ]
    assert (
        yard.call("GET", f"{base}/logs/b.txt", expect=200).text == "b" and yard.call("GET", f"{base}/outputs", expect=200).text == "a file"
    )
    assert yard.call("GET", f"{JOBS}/{job['name']}/outputs", expect=200).json()["o"]["uri"]


def test_a_path_that_is_too_long_for_its_files_is_refused_at_submit(yard: Yard) -> None:
    assert "more than 1,000 bytes" in yard.refused(outputs={"o": {"path": f"{STORE}/{'a/' * 501}"}})


def test_the_items_of_a_parallel_step_are_read_whatever_its_mode_says(yard: Yard) -> None:
    task = {"type": "run_function", "entry_script": "s.py", "environment": {"pip": []}}
    step = {
        "type": "parallel", "task": task, "input_data": "${{inputs.d}}", "inputs": {"d": {"path": "${{parent.inputs.d}}", "mode": "direct"}},
    }  # fmt: skip
    assert "is not read" in yard.refused(jobs={"a": step}, inputs={"d": {"path": "wasbs://c@a.blob/x"}})


def test_an_output_of_a_sweep_that_cannot_be_written_is_refused_at_submit(yard: Yard) -> None:
    sweep = {
        "type": "sweep", "trial": {"command": "echo ${{search_space.x}}", "environment": {"pip": []}}, "search_space": {"x": {"type": "choice", "values": [1]}},
        "objective": {"primary_metric": "m", "goal": "minimize"}, "sampling_algorithm": "grid", "limits": {"max_total_trials": 1},
    }  # fmt: skip
    answer = yard.call("POST", JOBS, json={**sweep, "outputs": {"o": {"path": f"{STORE}/"}}}, expect=400)
    assert "is the root of a datastore" in answer.text

"""Batch endpoints: a pipeline behind an address, with typed parameters, keys, versions and its runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from checked_yard import YardUnderTest

SCRIPT = """
import argparse, pathlib
parser = argparse.ArgumentParser()
for name in ("--rows", "--data", "--out"):
    parser.add_argument(name)
given = parser.parse_args()
text = pathlib.Path(given.data).read_text() if given.data else "nothing"
pathlib.Path(given.out).write_text(f"{given.rows} rows of {text}")
"""
COMPONENT = """
$schema: https://azuremlschemas.azureedge.net/latest/pipelineComponent.schema.json
name: scorer
version: "{version}"
type: pipeline
inputs:
  rows: {{type: integer, default: 3, min: 1, max: 10}}
  data: {{type: uri_file, optional: true}}
outputs:
  result: {{type: uri_file}}
jobs:
  score:
    type: command
    component:
      name: score
      type: command
      inputs: {{rows: {{type: integer}}, data: {{type: uri_file, optional: true}}}}
      outputs: {{out: {{type: uri_file}}}}
      code: ./src
      command: python score.py --rows ${{{{inputs.rows}}}} $[[--data ${{{{inputs.data}}}}]] --out ${{{{outputs.out}}}}
      environment: {{pip: []}}
    inputs: {{rows: "${{{{parent.inputs.rows}}}}", data: "${{{{parent.inputs.data}}}}"}}
    outputs: {{out: "${{{{parent.outputs.result}}}}"}}
"""
JOB = """
type: pipeline
inputs: {rows: 4}
outputs: {result: {type: uri_file}}
jobs:
  score:
    type: command
    inputs: {rows: "${{parent.inputs.rows}}"}
    outputs: {out: "${{parent.outputs.result}}"}
    code: ./src
    command: python score.py --rows ${{inputs.rows}} --out ${{outputs.out}}
    environment: {pip: []}
"""
DEPLOYMENT = """
$schema: https://azuremlschemas.azureedge.net/latest/pipelineComponentBatchDeployment.schema.json
name: v1
endpoint_name: {endpoint}
type: pipeline
{what}
settings: {{default_compute: cpu-cluster, continue_on_step_failure: false}}
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "score.py").write_text(SCRIPT)
    (tmp_path / "component.yml").write_text(COMPONENT.format(version="1"))
    (tmp_path / "job.yml").write_text(JOB)
    (tmp_path / "data.txt").write_text("hello")
    return tmp_path


def deploy(yard: YardUnderTest, files: Path, endpoint: str, what: str, *flags: str) -> Any:
    (files / "deployment.yml").write_text(DEPLOYMENT.format(endpoint=endpoint, what=what))
    return yard.json("batch-deployment", "create", "-f", str(files / "deployment.yml"), *flags)


def result(yard: YardUnderTest, job: str, to: Path) -> str:
    assert yard.wait_job(job)["status"] == "Completed", yard.job_log(job)
    yard.run("job", "download", "-n", job, "--output-name", "result", "-p", str(to / job))
    return next(path for path in (to / job).rglob("*") if path.is_file()).read_text()


def test_a_published_pipeline_is_run_by_its_address_and_versions_stand_beside_each_other(yard: YardUnderTest, files: Path) -> None:
    yard.run("batch-endpoint", "create", "-n", "published")
    made = deploy(yard, files, "published", "component: file:component.yml", "--set-default")
    assert made["inputs"]["rows"] == {"type": "integer", "default": 3, "min": 1, "max": 10}
    yard.run("component", "create", "-f", str(files / "component.yml"))
    deploy(yard, files, "published", "component: azureml:scorer:1", "--name", "registered")
    deploy(yard, files, "published", "job_definition: file:job.yml", "--name", "of-a-job")

    def run(*arguments: str) -> str:
        job = yard.json("batch-endpoint", "invoke", "-n", "published", *arguments)["name"]
        return result(yard, job, files)

    assert run("--inputs", "rows=5", f"data={files / 'data.txt'}") == "5 rows of hello"
    assert run("-d", "registered", "--input", str(files / "data.txt")) == "3 rows of hello"
    assert run("-d", "of-a-job") == "4 rows of nothing"
    (files / "request.yml").write_text("inputs: {rows: 7, data: {type: uri_file, path: ./data.txt}}\n")
    assert run("--file", str(files / "request.yml"), "--set", "inputs.rows=8") == "8 rows of hello"

    runs = yard.json("batch-endpoint", "list-jobs", "-n", "published")
    assert [run["properties"]["batch_deployment"] for run in runs] == ["v1", "of-a-job", "registered", "v1"]
    assert {run["experiment_name"] for run in runs} == {"published"}
    assert len(yard.json("batch-deployment", "list-jobs", "-n", "registered", "-e", "published")) == 1

    kept = yard.run("batch-deployment", "delete", "-n", "v1", "-e", "published", "--yes", ok=False)
    assert kept.returncode == 5 and "is the default" in kept.stderr
    yard.run("batch-endpoint", "update", "-n", "published", "--defaults", "deployment_name=registered")
    yard.run("batch-deployment", "delete", "-n", "v1", "-e", "published", "--yes")
    assert run() == "3 rows of nothing"
    yard.run("batch-endpoint", "delete", "-n", "published", "--yes")
    assert yard.run("job", "show", "-n", runs[0]["name"]).returncode == 0


def test_the_key_of_an_endpoint_runs_it_and_opens_nothing_else(yard: YardUnderTest, files: Path) -> None:
    for name in ("keyed", "other"):
        yard.run("batch-endpoint", "create", "-n", name, "--auth-mode", "key")
        deploy(yard, files, name, "component: file:component.yml", "--set-default")
    keys = yard.json("batch-endpoint", "get-credentials", "-n", "keyed")
    address = f"{yard.url}/api/v1/workspaces/default"
    assert yard.json("batch-endpoint", "show", "-n", "keyed")["scoring_uri"] == f"{address}/batch-endpoints/keyed/jobs"

    def call(method: str, path: str, expect: int, key: str = keys["primaryKey"], body: Any = None) -> Any:
        return yard.call(method, f"/api/v1/workspaces/default{path}", token=key, json=body, expect=expect)

    azure = {"properties": {"InputData": {"rows": {"JobInputType": "Literal", "Value": 2}}}}
    job = call("POST", "/batch-endpoints/keyed/jobs", 201, body=azure).json()["name"]
    assert result(yard, job, files) == "2 rows of nothing"
    assert call("GET", f"/batch-endpoints/keyed/jobs/{job}", 200).json()["status"] == "Completed"
    for method, path in (
        ("POST", "/batch-endpoints/other/jobs"), ("GET", "/batch-endpoints/other/jobs"), ("GET", "/jobs"), ("GET", "/batch-endpoints/keyed"),
        ("POST", "/batch-endpoints/keyed/keys"), ("GET", "/models"),
    ):  # fmt: skip
        call(method, path, 403, body={} if method == "POST" else None)
    call("POST", "/jobs", 403, body={"command": "true", "environment": {"pip": []}})
    yard.call("POST", "/api/v1/tokens", token=keys["primaryKey"], json={}, expect=403)

    yard.run("batch-endpoint", "regenerate-keys", "-n", "keyed", "--key-type", "primary")
    call("POST", "/batch-endpoints/keyed/jobs", 201, key=keys["secondaryKey"], body={})
    fresh = yard.json("batch-endpoint", "get-credentials", "-n", "keyed")["primaryKey"]
    assert fresh != keys["primaryKey"]
    call("POST", "/batch-endpoints/keyed/jobs", 201, key=fresh, body={})
    yard.run("batch-endpoint", "update", "-n", "keyed", "--set", "auth_mode=aad_token")
    no_keys = yard.run("batch-endpoint", "get-credentials", "-n", "keyed", ok=False)
    assert no_keys.returncode == 5 and "auth_mode=key" in no_keys.stderr


def test_a_wrong_request_or_deployment_is_refused_with_everything_that_is_wrong(yard: YardUnderTest, files: Path) -> None:
    yard.run("batch-endpoint", "create", "-n", "strict")

    def refused(*arguments: str, code: int = 2) -> str:
        done = yard.run(*arguments, ok=False)
        assert done.returncode == code, done.stderr
        return done.stderr

    assert "no default deployment" in refused("batch-endpoint", "invoke", "-n", "strict", code=5)
    broken = COMPONENT.format(version="1").replace("parent.inputs.rows", "parent.inputs.row")
    (files / "component.yml").write_text(broken)
    (files / "deployment.yml").write_text(DEPLOYMENT.format(endpoint="strict", what="component: file:component.yml"))
    assert "no input 'row'" in refused("batch-deployment", "create", "-f", str(files / "deployment.yml"))
    assert yard.json("batch-deployment", "list", "-e", "strict") == []
    (files / "deployment.yml").write_text(
        DEPLOYMENT.format(endpoint="strict", what="model: azureml:m:1").replace("type: pipeline", "type: model")
    )
    assert "not run by this version" in refused("batch-deployment", "create", "-f", str(files / "deployment.yml"))

    (files / "component.yml").write_text(COMPONENT.format(version="1"))
    deploy(yard, files, "strict", "component: file:component.yml", "--set-default")
    said = refused("batch-endpoint", "invoke", "-n", "strict", "--inputs", "rows=50", "dta=1")
    assert "50 is more than 10" in said and "did you mean 'data'" in said
    for body in (
        {"input": {}},
        {"inputs": []},
        {"properties": 1},
        {"inputs": {"rows": {"a": 1}}},
        {"inputs": {"data": 3}},
        {"job_name": 4},
        {"outputs": {"x": 1}},
        {"outputs": {"x": {}}},
        {"job_name": "/"},
        {"inputs": {"rows": {"value": 2, "vlaue": 3}}},
        {"properties": {"inputData": {}, "compute": {}}},
        {"properties": {"inputData": {"rows": {"JobInputType": "Literal", "Value": 2, "Uir": "x"}}}},
        {"properties": {"inputData": {"rows": 1}, "InputData": {}}},
        {"properties": {"inputData": {"data": {"jobInputType": "UriFile"}}}},
    ):
        answer = yard.call("POST", "/api/v1/workspaces/default/batch-endpoints/strict/jobs", json=body, expect=400).json()
        assert answer["error"]["message"], json.dumps(body)


def test_a_request_in_azures_form_is_read_in_any_case() -> None:
    from modelyard.serving.batch.model import read_invocation

    documented = {
        "properties": {
            "InputData": {
                "heart": {"JobInputType": "UriFolder", "Uri": "azureml://x/y"},
                "rate": {"JobInputType": "Literal", "Value": 0.5},
            },
            "OutputData": {"score": {"JobOutputType": "UriFile", "Uri": "azureml://x/z.csv"}},
            "ExperimentName": "tried",
        }
    }
    sent = read_invocation(documented, "blue")
    assert sent.inputs == {"heart": {"type": "uri_folder", "path": "azureml://x/y"}, "rate": 0.5}
    assert sent.outputs == {"score": {"type": "uri_file", "path": "azureml://x/z.csv"}}
    assert (sent.experiment_name, sent.deployment) == ("tried", "blue")

    def lower(value: object) -> object:
        return {key[:1].lower() + key[1:]: lower(item) for key, item in value.items()} if isinstance(value, dict) else value

    assert read_invocation(lower(documented), "blue") == sent  # type: ignore[arg-type]

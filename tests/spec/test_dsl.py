"""Pipelines and sweeps written in Python, as `azure.ai.ml` scripts write them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from checked_yard import YardUnderTest
from modelyard import Input, Output, command, load_component
from modelyard.core.errors import Invalid
from modelyard.dsl import pipeline
from modelyard.sweep import Choice, Uniform

EMPTY: dict[str, Any] = {"pip": []}
TRAIN = {
    "name": "train_model", "type": "command", "version": "1", "environment": EMPTY, "code": "./src",
    "inputs": {"rows": {"type": "uri_folder"}, "rate": {"type": "number", "default": 0.5}},
    "outputs": {"model": {"type": "uri_file"}}, "command": "python train.py ${{inputs.rows}} ${{inputs.rate}} ${{outputs.model}}",
}  # fmt: skip


@pytest.fixture
def train(tmp_path: Path) -> Any:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/train.py").write_text("import sys; open(sys.argv[3], 'w').write(sys.argv[2])")
    (tmp_path / "train.yml").write_text(yaml.safe_dump(TRAIN))
    return load_component(tmp_path / "train.yml")


def test_steps_are_named_after_their_variables_and_bound_as_the_function_says(train: Any) -> None:
    prepare = command(
        command="cp -r ${{inputs.raw}}/. ${{outputs.clean}}", environment="azureml:sklearn-1.5@latest", inputs={"raw": Input(type="uri_folder")},
        outputs={"clean": Output(type="uri_folder")},
    )  # fmt: skip

    @pipeline(default_compute="cpu-cluster", description="whole")
    def whole(raw: Any, rate: float = 0.1) -> Any:
        clean = prepare(raw=raw)
        first = train(rows=clean.outputs.clean, rate=rate)
        first.compute = "big"
        first.outputs.model.mode = "upload"
        train(rows=clean.outputs.clean, rate=0.9)
        return {"best": first.outputs.model}

    job = whole(raw=Input(type="uri_folder", path="azureml:rows@latest"))
    document = job.document()
    assert list(document["jobs"]) == ["clean", "first", "train_model"]
    assert document["jobs"]["first"]["inputs"]["rows"]["value"] == "${{parent.jobs.clean.outputs.clean}}"
    assert document["jobs"]["first"]["inputs"]["rate"]["value"] == "${{parent.inputs.rate}}" and document["inputs"]["rate"]["value"] == 0.1
    assert document["jobs"]["first"]["outputs"]["model"] == {"type": "uri_file", "path": "${{parent.outputs.best}}", "mode": "upload"}
    assert document["jobs"]["first"]["compute"] == "big" and document["settings"] == {"default_compute": "cpu-cluster"}
    assert document["outputs"] == {"best": {"type": "uri_file"}} and document["display_name"] == "whole"


def test_what_cannot_be_a_pipeline_is_refused_in_words(train: Any) -> None:
    with pytest.raises(Invalid, match="outside of a pipeline"):
        train(rows="x")

    @pipeline
    def wrong() -> Any:
        return {"out": 3}

    with pytest.raises(Invalid, match="not an output of a step"):
        wrong()


def test_a_command_given_distributions_becomes_a_sweep() -> None:
    trial = command(
        command="python t.py ${{inputs.rate}} ${{inputs.kind}}", environment="azureml:sklearn-1.5@latest", inputs={"rate": 0.1, "kind": "a", "rows": 3},
    )  # fmt: skip
    made = trial(rate=Uniform(0.01, 0.9), kind=Choice(["a", "b"]), rows=7).sweep(
        primary_metric="loss", goal="Minimize", sampling_algorithm="random", compute="cpu-cluster", max_total_trials=4
    )
    assert made.objective.goal == "minimize" and made.compute == "cpu-cluster" and made.limits.max_total_trials == 4
    assert set(made.search_space) == {"rate", "kind"} and made.inputs["rows"].value == 7
    made.early_termination = {"type": "bandit", "slack_factor": 0.1}  # type: ignore[assignment]


SCRIPT = """
from modelyard import MLClient, Input, Output, command, load_component
from modelyard.dsl import pipeline
from modelyard.sweep import Choice

client = MLClient.from_config() if False else MLClient()
train = load_component(source="train.yml")
client.components.create_or_update(train)
registered = client.components.get("train_model", version="1")

@pipeline()
def inner(rows, rate):
    trained = registered(rows=rows, rate=rate)
    return {"model": trained.outputs.model}

score = command(command="cat ${{inputs.model}} > ${{outputs.score}}", environment={"pip": []}, inputs={"model": Input(type="uri_file")},
                outputs={"score": Output(type="uri_file")})

@pipeline(experiment_name="from-python")
def outer(rows, rate=0.25):
    nested = inner(rows=rows, rate=rate)
    scored = score(model=nested.outputs.model)
    return {"score": scored.outputs.score}

job = client.jobs.create_or_update(outer(rows=Input(type="uri_folder", path="./src")))
client.jobs.stream(job.name)
job = client.jobs.get(job.name)
assert job.status == "Completed", job.steps
client.jobs.download(job.name, output_name="score", download_path="out")
print(next(path for path in __import__("pathlib").Path("out").rglob("*") if path.is_file()).read_text())
print([child.display_name for child in client.jobs.list(parent_job_name=job.name)])
"""


def test_a_script_defines_nests_and_runs_pipelines(yard: YardUnderTest, train: Any, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=yard.environment, capture_output=True, text=True, timeout=120
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-2:] == ["0.25", "['scored', 'nested']"], done.stdout

"""Components, pipelines and sweeps, driven by Azure v2 YAML: what runs, what is reused and why, what is refused and where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from checked_yard import YardUnderTest
from modelyard.testing.waiting import wait_for

EMPTY: dict[str, Any] = {"pip": []}


def write(path: Path, document: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def step(command: str, **more: Any) -> dict[str, Any]:
    return {"type": "command", "command": command, "environment": EMPTY, **more}


def pipeline(jobs: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "pipeline", "jobs": jobs, **more}


def run(yard: YardUnderTest, document: dict[str, Any], folder: Path, *arguments: str, ok: bool = True) -> dict[str, Any]:
    """Submit, wait, and answer the job with its steps by name."""
    path = write(folder / "pipeline.yml", document)
    done = yard.run("job", "create", "-f", str(path), *arguments, "-o", "json")
    job = yard.wait_job(json.loads(done.stdout)["name"])
    if ok:
        assert job["status"] == "Completed", json.dumps(job.get("error")) + json.dumps(job.get("steps"), indent=1)
    return job


def text_of(yard: YardUnderTest, job: str, output: str, folder: Path) -> str:
    yard.run("job", "download", "-n", job, "--output-name", output, "-p", str(folder / job))
    return next(path for path in sorted((folder / job).rglob("*")) if path.is_file()).read_text().strip()


TRAIN = {
    "type": "command", "name": "train", "version": 1, "display_name": "Train",
    "inputs": {
        "rate": {"type": "number", "default": 0.5, "min": 0, "max": 1}, "kind": {"type": "string", "enum": ["tree", "line"], "default": "tree"},
        "rows": {"type": "uri_folder"}, "note": {"type": "string", "optional": True},
    },
    "outputs": {"model": {"type": "uri_file"}},
    "code": "./src", "environment": EMPTY,
    "command": "python train.py ${{inputs.rows}} ${{inputs.rate}} ${{inputs.kind}} ${{outputs.model}} $[[--note ${{inputs.note}}]]",
}  # fmt: skip
TRAIN_PY = """
import pathlib, sys
rows, rate, kind, model = sys.argv[1:5]
text = "+".join(path.read_text().strip() for path in sorted(pathlib.Path(rows).rglob("*.txt")))
pathlib.Path(model).write_text(f"{text} {rate} {kind} {' '.join(sys.argv[5:])}".strip())
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A pipeline of a step written in place and one by a component file, as public examples are laid out."""
    (tmp_path / "components/src").mkdir(parents=True)
    (tmp_path / "components/src/train.py").write_text(TRAIN_PY)
    write(tmp_path / "components/train.yml", TRAIN)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/rows.txt").write_text("rows")
    document = pipeline(
        {
            "prepare": step("cp -r ${{inputs.raw}}/. ${{outputs.clean}}", inputs={"raw": "${{parent.inputs.raw}}"}, outputs={"clean": {"type": "uri_folder"}}),
            "train": {
                "type": "command", "component": "./components/train.yml",
                "inputs": {"rows": "${{parent.jobs.prepare.outputs.clean}}", "rate": "${{parent.inputs.rate}}"},
                "outputs": {"model": "${{parent.outputs.best}}"},
            },
        },
        experiment_name=f"flows-{tmp_path.name}", settings={"default_compute": "azureml:cpu-cluster"},
        inputs={"raw": {"type": "uri_folder", "path": "./data"}, "rate": 0.25}, outputs={"best": {"type": "uri_file", "mode": "upload"}},
    )  # fmt: skip
    write(tmp_path / "pipeline.yml", document)
    return tmp_path


def submit(yard: YardUnderTest, project: Path, *arguments: str) -> dict[str, Any]:
    done = yard.run("job", "create", "-f", str(project / "pipeline.yml"), *arguments, "-o", "json")
    return yard.wait_job(json.loads(done.stdout)["name"])


def test_registering_a_component_builds_its_environment(yard: YardUnderTest, tmp_path: Path) -> None:
    (tmp_path / "environment.yml").write_text("name: before-use\nversion: 1\npip: []\n")
    yard.run("environment", "create", "-f", str(tmp_path / "environment.yml"))
    assert "lock" not in yard.json("environment", "show", "-n", "before-use", "-v", "1").get("properties", {})
    step = "type: command\nname: early\nversion: 1\ncommand: 'true'\nenvironment: azureml:before-use:1\n"
    (tmp_path / "component.yml").write_text(step)
    yard.run("component", "create", "-f", str(tmp_path / "component.yml"))
    wait_for(lambda: "python" in yard.json("environment", "show", "-n", "before-use", "-v", "1").get("properties", {}), 60, "the build")


def test_a_pipeline_passes_data_from_step_to_step_and_promotes_its_output(any_yard: YardUnderTest, project: Path) -> None:
    job = submit(any_yard, project)
    assert job["status"] == "Completed", job
    assert text_of(any_yard, job["name"], "best", project) == "rows 0.25 tree"
    children = {item["display_name"]: item for item in any_yard.json("job", "list", "-p", job["name"])}
    assert set(children) == {"prepare", "train"} and all(item["parent_job_name"] == job["name"] for item in children.values())
    assert job["name"] in [item["name"] for item in any_yard.json("job", "list")] and children["train"]["name"] not in [
        item["name"] for item in any_yard.json("job", "list")
    ], "steps are listed under their pipeline"
    run = any_yard.mlflow("GET", "runs/get", run_id=children["train"]["name"])["run"]
    assert {"key": "mlflow.parentRunId", "value": job["name"]} in run["data"]["tags"]
    streamed = any_yard.run("job", "stream", "-n", job["name"]).stdout
    assert "step prepare: Completed" in streamed and f"pipeline {job['name']}: Completed" in streamed


def test_an_unchanged_step_is_reused_and_a_miss_names_what_changed(yard: YardUnderTest, project: Path) -> None:
    first = submit(yard, project)["steps"]
    again = submit(yard, project)["steps"]
    assert {name: found["reused_from"] for name, found in again.items()} == {name: found["job_name"] for name, found in first.items()}
    rate = submit(yard, project, "--set", "inputs.rate=0.75")["steps"]
    assert rate["prepare"]["reused_from"] and rate["train"]["ran_because"] == "parameter rate changed 0.25 → 0.75"
    (project / "components/src/train.py").write_text(TRAIN_PY + "\n# changed\n")
    assert submit(yard, project, "--set", "inputs.rate=0.75")["steps"]["train"]["ran_because"] == "code changed"
    (project / "data/rows.txt").write_text("other rows")
    data = submit(yard, project, "--set", "inputs.rate=0.75")["steps"]
    assert data["prepare"]["ran_because"] == "input raw changed" and data["train"]["ran_because"] == "input rows changed"
    (project / "data/rows.txt").write_text("rows")
    back = submit(yard, project)
    assert "reused_from" in back["steps"]["prepare"], "what was there before is found again"


def test_reuse_is_switched_off_for_a_run_a_step_and_a_component(yard: YardUnderTest, project: Path) -> None:
    submit(yard, project)
    forced = submit(yard, project, "--set", "settings.force_rerun=true")["steps"]
    assert all("reused_from" not in found and "switched off for this run" in found["ran_because"] for found in forced.values())
    one = submit(yard, project, "--set", "jobs.train.force_rerun=true")["steps"]
    assert "reused_from" in one["prepare"] and "switched off for this step" in one["train"]["ran_because"]
    write(project / "components/train.yml", {**TRAIN, "is_deterministic": False})
    assert submit(yard, project)["steps"]["train"]["ran_because"] == "the step is not deterministic"


def test_a_deleted_jobs_outputs_are_not_reused(yard: YardUnderTest, project: Path) -> None:
    (project / "data/rows.txt").write_text("rows of a job that is deleted")
    first = submit(yard, project)
    yard.run("job", "delete", "-n", first["name"], "-y")
    again = submit(yard, project)["steps"]
    assert all("reused_from" not in found for found in again.values())


def test_registered_components_keep_their_versions_and_nested_pipelines_pass_through(yard: YardUnderTest, project: Path) -> None:
    write(project / "components/train.yml", {**TRAIN, "name": "reg-train"})
    made = yard.json("component", "create", "-f", str(project / "components/train.yml"))
    assert made["version"] == "1" and made["inputs"]["rate"]["max"] == 1
    assert yard.run("component", "create", "-f", str(project / "components/train.yml"), "--set", "command=ls", ok=False).returncode == 5
    yard.run("component", "create", "-f", str(project / "components/train.yml"), "--version", "2", "--set", "display_name=Second")
    assert [item["version"] for item in yard.json("component", "list", "-n", "reg-train")] == ["2", "1"]
    inner = {
        "type": "pipeline", "name": "inner", "version": 3,
        "inputs": {"rows": {"type": "uri_folder"}, "rate": {"type": "number", "default": 0.125}}, "outputs": {"made": {"type": "uri_file"}},
        "jobs": {
            "one": {
                "component": "azureml:reg-train:1", "inputs": {"rows": "${{parent.inputs.rows}}", "rate": "${{parent.inputs.rate}}", "note": "deep"},
                "outputs": {"model": "${{parent.outputs.made}}"},
            }
        },
    }  # fmt: skip
    yard.run("component", "create", "-f", str(write(project / "inner.yml", inner)))
    document = pipeline(
        {
            "nested": {"type": "pipeline", "component": "azureml:inner@latest", "inputs": {"rows": "${{parent.inputs.rows}}"}},
            "after": step(
                "cat ${{inputs.made}} > ${{outputs.end}}; echo ' end' >> ${{outputs.end}}",
                inputs={"made": "${{parent.jobs.nested.outputs.made}}"}, outputs={"end": {"type": "uri_file", "path": "${{parent.outputs.end}}"}},
            ),
        },
        inputs={"rows": {"type": "uri_folder", "path": "./data"}}, outputs={"end": {"type": "uri_file"}}, experiment_name=project.name,
    )  # fmt: skip
    job = run(yard, document, project)
    assert text_of(yard, job["name"], "end", project).split() == ["rows", "0.125", "tree", "--note", "deep", "end"]
    nested = yard.json("job", "show", "-n", job["steps"]["nested"]["job_name"])
    assert nested["type"] == "pipeline" and nested["parent_job_name"] == job["name"] and nested["steps"]["one"]["status"] == "Completed"
    again = run(yard, document, project)
    inside = yard.json("job", "show", "-n", again["steps"]["nested"]["job_name"])
    assert inside["steps"]["one"]["reused_from"] == nested["steps"]["one"]["job_name"]
    yard.run("component", "archive", "-n", "reg-train", "-v", "2")
    assert [item["version"] for item in yard.json("component", "list", "-n", "reg-train")] == ["1"]


def test_everything_wrong_with_a_pipeline_is_said_at_once_with_its_line(yard: YardUnderTest, project: Path) -> None:
    text = """\
type: pipeline
inputs:
  rows: {type: uri_folder, path: ./data}
jobs:
  one:
    type: command
    component: ./components/train.yml
    inputs:
      rows: ${{parent.jobs.two.outputs.out}}
      rate: 7
      kind: forest
      nonsense: 1
  two:
    type: command
    command: echo ${{inputs.x}} > ${{outputs.out}}
    environment: azureml:no-such-environment:9
    inputs:
      x: ${{parent.jobs.one.outputs.modell}}
    outputs:
      out: {type: uri_file}
  three:
    type: command
    component: ./components/train.yml
    inputs:
      rows: ${{parent.inputs.rowz}}
  four:
    type: automl
"""
    path = project / "wrong.yml"
    path.write_text(text)
    done = yard.run("job", "create", "-f", str(path), ok=False)
    assert done.returncode == 2, done.stderr
    for line, words in (
        (10, "7 is more than 1"), (11, "not one of tree, line"), (18, "did you mean 'model'"),
        (25, "did you mean 'rows'"), (27, "automl"),
    ):  # fmt: skip
        assert any(f"wrong.yml:{line}:" in said and words in said for said in done.stderr.splitlines()), (line, words, done.stderr)
    circle = pipeline(
        {
            "a": step("true", inputs={"x": "${{parent.jobs.b.outputs.o}}"}, outputs={"o": {}}),
            "b": step("true", inputs={"x": "${{parent.jobs.a.outputs.o}}"}, outputs={"o": {}}),
        }
    )
    done = yard.run("job", "create", "-f", str(write(project / "circle.yml", circle)), ok=False)
    assert done.returncode == 2 and "a → b → a" in done.stderr
    missing = pipeline({"a": step("true", environment="azureml:no-such-environment:9")})
    done = yard.run("job", "create", "-f", str(write(project / "missing.yml", missing)), ok=False)
    assert done.returncode == 2 and "no-such-environment" in done.stderr and "jobs.a.environment" in done.stderr
    assert yard.run("job", "create", "-f", str(write(project / "none.yml", {"type": "pipeline", "jobs": {}})), ok=False).returncode == 2


def test_a_failed_step_ends_the_pipeline_or_only_what_needs_it(yard: YardUnderTest, tmp_path: Path) -> None:
    jobs = {
        "bad": step("echo oh no; exit 3", outputs={"o": {}}),
        "needs": step("true", inputs={"x": "${{parent.jobs.bad.outputs.o}}"}),
        "slow": step("echo done > ${{outputs.o}}/x", outputs={"o": {}}),
        "after": step("ls ${{inputs.x}}", inputs={"x": "${{parent.jobs.slow.outputs.o}}"}),
    }
    job = run(yard, pipeline(jobs, experiment_name=tmp_path.name), tmp_path, ok=False)
    assert (
        job["status"] == "Failed"
        and "step bad failed" in job["error"]["message"]
        and job["steps"]["needs"]["status"] in ("NotStarted", "Skipped")
    )
    done = yard.run("job", "stream", "-n", job["name"], ok=False)
    assert done.returncode == 1
    kept = run(yard, pipeline(jobs, experiment_name=tmp_path.name, settings={"continue_on_step_failure": True}), tmp_path, ok=False)
    assert kept["status"] == "Failed" and kept["steps"]["after"]["status"] == "Completed" and kept["steps"]["needs"]["status"] == "Skipped"


def test_a_step_is_tried_again_as_often_as_it_says(yard: YardUnderTest, tmp_path: Path) -> None:
    counter = tmp_path / "count"
    counter.mkdir()
    yard.run("datastore", "create", "-f", str(write(tmp_path / "store.yml", {"type": "local", "name": "counts", "path": str(counter)})))
    seen = {"type": "uri_folder", "path": "azureml://datastores/counts/paths/"}
    left = {"type": "uri_file", "path": "azureml://datastores/counts/paths/seen.txt"}
    command = "echo seen > ${{outputs.left}}; ls ${{inputs.seen}} | grep seen"
    jobs = {"flaky": step(command, inputs={"seen": seen}, outputs={"left": left}, retry_settings={"max_retries": 2})}
    assert run(yard, pipeline(jobs), tmp_path)["steps"]["flaky"]["tries"] == 2
    never = {"bad": step("exit 1", retry_settings={"max_retries": 1})}
    job = run(yard, pipeline(never), tmp_path, ok=False)
    assert job["status"] == "Failed" and job["steps"]["bad"]["tries"] == 2 and len(yard.json("job", "list", "-p", job["name"])) == 2


def test_cancelling_a_pipeline_ends_its_steps_and_starts_no_more(yard: YardUnderTest, tmp_path: Path) -> None:
    jobs = {"long": step("sleep 300", outputs={"o": {}}), "next": step("true", inputs={"x": "${{parent.jobs.long.outputs.o}}"})}
    name = yard.json("job", "create", "-f", str(write(tmp_path / "p.yml", pipeline({"in": {"type": "pipeline", "jobs": jobs}}))))["name"]

    def sleeping() -> Any:
        inner = yard.json("job", "list", "-p", name)
        steps = yard.json("job", "list", "-p", inner[0]["name"]) if inner else []
        return steps if steps and steps[0]["status"] == "Running" else None

    (long,) = wait_for(sleeping, 60, "the long step")
    yard.run("job", "cancel", "-n", name)
    assert yard.wait_job(name)["status"] == "Canceled"
    assert yard.wait_job(long["name"])["status"] == "Canceled"


CHECK = {
    "type": "command", "name": "check", "inputs": {"n": {"type": "integer"}}, "outputs": {"big": {"type": "boolean"}, "n": {"type": "integer"}},
    "environment": EMPTY,
    "command": "echo $([ ${{inputs.n}} -gt 2 ] && echo true || echo false) > ${{outputs.big}}; echo $((${{inputs.n}} + 1)) > ${{outputs.n}}",
}  # fmt: skip


def test_a_condition_on_a_steps_output_chooses_what_runs(yard: YardUnderTest, tmp_path: Path) -> None:
    jobs = {
        "check": {"component": CHECK, "inputs": {"n": "${{parent.inputs.n}}"}},
        "branch": {
            "type": "if_else", "condition": "${{parent.jobs.check.outputs.big}}", "true_block": "${{parent.jobs.large}}",
            "false_block": ["${{parent.jobs.small}}"],
        },
        "large": step("echo large", outputs={"o": {}}), "small": step("echo small"),
        "after": step("ls ${{inputs.x}}", inputs={"x": "${{parent.jobs.large.outputs.o}}"}),
    }  # fmt: skip
    for n, ran, left in ((5, "large", "small"), (1, "small", "large")):
        found = run(yard, pipeline(jobs, inputs={"n": n}), tmp_path)["steps"]
        assert found[ran]["status"] == "Completed" and found[left]["status"] == "Skipped" and found["branch"]["condition"] is (n == 5)
        assert found["after"]["status"] == ("Completed" if n == 5 else "Skipped")


def test_loops_run_their_body_over_items_and_until_a_condition(yard: YardUnderTest, tmp_path: Path) -> None:
    body = step("echo ${{inputs.word}} > ${{outputs.o}}/word.txt", inputs={"word": "none"}, outputs={"o": {"type": "uri_folder"}})
    jobs = {
        "body": body,
        "loop": {
            "type": "parallel_for", "body": "${{parent.jobs.body}}", "items": [{"word": "a"}, {"word": "b"}, {"word": "c"}], "max_concurrency": 2,
        },
        "join": step(
            "cat ${{inputs.all}}/*/word.txt | tr -d '\\n' > ${{outputs.j}}", inputs={"all": "${{parent.jobs.loop.outputs.o}}"},
            outputs={"j": {"type": "uri_file", "path": "${{parent.outputs.j}}"}},
        ),
        "grow": {"component": CHECK, "inputs": {"n": 0}},
        "until": {
            "type": "do_while", "body": "${{parent.jobs.grow}}", "condition": "${{parent.jobs.grow.outputs.big}}",
            "mapping": {"n": "n"}, "limits": {"max_iteration_count": 4},
        },
    }  # fmt: skip
    job = run(yard, pipeline(jobs, outputs={"j": {"type": "uri_file"}}), tmp_path)
    assert text_of(yard, job["name"], "j", tmp_path) == "abc"
    assert {name for name in job["steps"] if name.startswith("loop/")} == {"loop/0", "loop/1", "loop/2"}
    assert "until/0" in job["steps"] and "until/1" not in job["steps"], "the condition was false after the first"
    jobs["grow"]["inputs"] = {"n": 3}
    job = run(yard, pipeline(jobs, outputs={"j": {"type": "uri_file"}}), tmp_path)
    assert [name for name in job["steps"] if name.startswith("until/")] == ["until/0", "until/1", "until/2", "until/3"]


SWEEP = {
    "type": "sweep", "objective": {"goal": "minimize", "primary_metric": "loss"}, "sampling_algorithm": "grid",
    "search_space": {"x": {"type": "choice", "values": [1, 2, 3]}, "kind": {"type": "choice", "values": ["a", "b"]}},
    "limits": {"max_total_trials": 20, "max_concurrent_trials": 2},
    "trial": {"command": "python sweep.py ${{search_space.x}} ${{search_space.kind}} ${{outputs.model}}", "code": "./src", "environment": EMPTY},
    "outputs": {"model": {"type": "uri_folder"}},
}  # fmt: skip
SWEEP_PY = """
import json, os, pathlib, sys, time, urllib.request
x, kind, model = float(sys.argv[1]), sys.argv[2], sys.argv[3]
def log(value, step):
    body = {"run_id": os.environ["MLFLOW_RUN_ID"], "key": "loss", "value": value, "timestamp": int(time.time() * 1000), "step": step}
    request = urllib.request.Request(os.environ["MLFLOW_TRACKING_URI"] + "/api/2.0/mlflow/runs/log-metric", json.dumps(body).encode(),
        {"Authorization": "Bearer " + os.environ["MLFLOW_TRACKING_TOKEN"], "Content-Type": "application/json"})
    urllib.request.urlopen(request).read()
steps = int(os.environ.get("STEPS", "1"))
for step in range(steps):
    log((x - 2) ** 2 + (kind == "b") + 1 / (step + 1), step)
    if kind == "slow" and x > 40:
        time.sleep(600)
pathlib.Path(model, "made.txt").write_text(f"{sys.argv[1]} {kind}")
"""


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/sweep.py").write_text(SWEEP_PY)
    return tmp_path


def test_a_grid_sweep_tries_every_point_once_and_hands_out_the_best(any_yard: YardUnderTest, sweep: Path) -> None:
    job = run(any_yard, SWEEP, sweep)
    points = {(trial["params"]["x"], trial["params"]["kind"]) for trial in job["trials"]}
    assert len(job["trials"]) == 6 and points == {(x, kind) for x in (1, 2, 3) for kind in "ab"}
    assert job["best"]["params"] == {"x": 2, "kind": "a"} and job["best"]["metric"] == 1.0
    assert text_of(any_yard, job["name"], "model", sweep) == "2 a"
    assert len(any_yard.json("job", "list", "-p", job["name"])) == 6


@pytest.mark.parametrize("algorithm", [{"type": "random", "seed": 7}, {"type": "random", "rule": "sobol"}, "bayesian"])
def test_samplers_find_points_inside_the_space(yard: YardUnderTest, sweep: Path, algorithm: Any) -> None:
    space = {"x": {"type": "quniform", "min_value": 0, "max_value": 4, "q": 0.5}, "kind": {"type": "choice", "values": ["a", "b"]}}
    document = {
        **SWEEP,
        "search_space": space,
        "sampling_algorithm": algorithm,
        "limits": {"max_total_trials": 7, "max_concurrent_trials": 2},
    }
    trials = run(yard, document, sweep)["trials"]
    assert len(trials) == 7 and all(0 <= trial["params"]["x"] <= 4 and trial["params"]["x"] % 0.5 == 0 for trial in trials)


def test_a_trial_that_falls_behind_is_stopped_early(yard: YardUnderTest, sweep: Path) -> None:
    document = {
        **SWEEP, "search_space": {"x": {"type": "choice", "values": [2, 50]}, "kind": {"type": "choice", "values": ["slow"]}},
        "early_termination": {"type": "bandit", "slack_amount": 5, "evaluation_interval": 1, "delay_evaluation": 1},
        "limits": {"max_total_trials": 2, "max_concurrent_trials": 1},  # the good one has logged by the time the other is judged
    }  # fmt: skip
    document["trial"] = {**SWEEP["trial"], "environment_variables": {"STEPS": "2"}}
    job = run(yard, document, sweep)
    stopped = [trial for trial in job["trials"] if trial.get("stopped")]
    assert [trial["params"]["x"] for trial in stopped] == [50] and "bandit at interval 1" in stopped[0]["stopped"]
    assert stopped[0]["status"] == "Canceled"


def test_a_sweep_inside_a_pipeline_gives_its_best_output_to_the_next_step(yard: YardUnderTest, sweep: Path) -> None:
    trial = {
        "type": "command", "name": "trial", "inputs": {"x": {"type": "number"}, "kind": {"type": "string", "default": "a"}},
        "outputs": {"model": {"type": "uri_folder"}}, "code": "./src", "environment": EMPTY,
        "command": "python sweep.py ${{inputs.x}} ${{inputs.kind}} ${{outputs.model}}",
    }  # fmt: skip
    write(sweep / "trial.yml", trial)
    jobs = {
        "search": {
            "type": "sweep", "trial": "file:./trial.yml", "objective": SWEEP["objective"], "sampling_algorithm": "grid",
            "search_space": {"x": {"type": "choice", "values": [1, 2]}}, "limits": {"max_total_trials": 2},
            "inputs": {"kind": "${{parent.inputs.kind}}"},
        },
        "use": step(
            "cat ${{inputs.model}}/made.txt > ${{outputs.o}}", inputs={"model": "${{parent.jobs.search.outputs.model}}"},
            outputs={"o": {"type": "uri_file", "path": "${{parent.outputs.o}}"}},
        ),
    }  # fmt: skip
    document = pipeline(jobs, inputs={"kind": "b"}, outputs={"o": {"type": "uri_file"}}, experiment_name=sweep.name)
    job = run(yard, document, sweep)
    assert text_of(yard, job["name"], "o", sweep) in ("2 b", "2.0 b")
    again = run(yard, document, sweep)
    assert again["steps"]["search"]["reused_from"] == job["steps"]["search"]["job_name"], "a whole sweep is reused, too"


def test_a_sweep_registered_as_a_component_runs_as_a_step_and_an_automl_component_is_kept(yard: YardUnderTest, sweep: Path) -> None:
    trial = {
        "type": "command", "name": "trial", "inputs": {"x": {"type": "number"}, "kind": {"type": "string"}},
        "outputs": {"model": {"type": "uri_folder"}}, "code": "./src", "environment": EMPTY,
        "command": "python sweep.py ${{inputs.x}} ${{inputs.kind}} ${{outputs.model}}",
    }  # fmt: skip
    component = {
        "type": "sweep", "name": "tuned", "version": "1", "trial": trial, "objective": SWEEP["objective"], "sampling_algorithm": "grid",
        "search_space": {"x": {"type": "choice", "values": [1, 2]}}, "limits": {"max_total_trials": 2},
        "inputs": {"kind": {"type": "string", "default": "a"}}, "outputs": {"model": {"type": "uri_folder"}},
    }  # fmt: skip
    write(sweep / "tuned.yml", component)
    yard.run("component", "create", "-f", str(sweep / "tuned.yml"))
    jobs = {
        "search": {"component": "azureml:tuned:1", "inputs": {"kind": "b"}},
        "use": step(
            "cat ${{inputs.model}}/made.txt > ${{outputs.o}}", inputs={"model": "${{parent.jobs.search.outputs.model}}"},
            outputs={"o": {"type": "uri_file", "path": "${{parent.outputs.o}}"}},
        ),
    }  # fmt: skip
    job = run(yard, pipeline(jobs, outputs={"o": {"type": "uri_file"}}), sweep)
    assert text_of(yard, job["name"], "o", sweep) in ("2 b", "2.0 b")
    jobs["search"] = {"component": {**component, "name": "inline"}}
    assert text_of(yard, run(yard, pipeline(jobs, outputs={"o": {"type": "uri_file"}}), sweep)["name"], "o", sweep) in ("2 a", "2.0 a")

    write(
        sweep / "automl.yml", {"type": "automl", "name": "best-model", "version": "1", "task": "classification", "target_column_name": "y"}
    )
    yard.run("component", "create", "-f", str(sweep / "automl.yml"))
    assert yard.json("component", "show", "-n", "best-model", "-v", "1")["target_column_name"] == "y"
    refused = yard.run(
        "job", "create", "-f", str(write(sweep / "refused.yml", pipeline({"a": {"component": "azureml:best-model:1"}}))), ok=False
    )
    assert refused.returncode == 2 and "components of type automl are not run" in refused.stderr


def test_a_trial_without_code_is_a_command_too(yard: YardUnderTest, tmp_path: Path) -> None:
    document = {**SWEEP, "trial": {"command": "echo ${{search_space.x}} ${{search_space.kind}}", "environment": EMPTY}, "outputs": {}}
    job = run(yard, {**document, "limits": {"max_total_trials": 2}}, tmp_path, ok=False)
    assert [trial["status"] for trial in job["trials"]] == ["Completed"] * 2 and "no trial logged" in job["error"]["message"]


def test_what_is_wrong_with_a_sweep_is_said_at_submit(yard: YardUnderTest, sweep: Path) -> None:
    def refused(**changes: Any) -> str:
        done = yard.run("job", "create", "-f", str(write(sweep / "wrong.yml", {**SWEEP, **changes})), ok=False)
        assert done.returncode == 2, done.stdout + done.stderr
        return done.stderr

    assert "no point" in refused(search_space={"x": {"type": "uniform", "min_value": 1, "max_value": 1}}, sampling_algorithm="random")
    assert "nothing to vary" in refused(search_space={})
    assert "grid sampling needs points" in refused(search_space={"x": {"type": "uniform", "min_value": 0, "max_value": 1}})
    assert "did you mean" in refused(objective={"goal": "minimise", "primary_metric": "loss"})
    assert "search_space.kind" in refused(search_space={"x": SWEEP["search_space"]["x"]})
    assert "max_total_trials" in refused(limits={})
    assert "no expressions" in refused(search_space={**SWEEP["search_space"], "kind": {"type": "choice", "values": ["a", "${{inputs.x}}"]}})
    assert "names no input" in refused(
        trial={**SWEEP["trial"], "command": "echo ${{search_space.x}} ${{search_space.kind}} ${{inputs.nope}}"}
    )


def test_component_files_that_name_each_other_are_refused(yard: YardUnderTest, tmp_path: Path) -> None:
    inner = {"type": "pipeline", "name": "loop", "jobs": {"again": {"type": "pipeline", "component": "./loop.yml"}}}
    write(tmp_path / "loop.yml", inner)
    path = write(tmp_path / "pipeline.yml", pipeline({"a": {"type": "pipeline", "component": "./loop.yml"}}))
    done = yard.run("job", "create", "-f", str(path), ok=False)
    assert done.returncode == 2 and "more than 12 deep" in done.stderr


SCORE_PY = """
import argparse, os, pathlib, time
def init():
    global offset
    parser = argparse.ArgumentParser()
    parser.add_argument("--offset", type=int)
    offset = parser.parse_args().offset
def run(mini_batch):
    rows = []
    for path in mini_batch:
        text = pathlib.Path(path).read_text()
        if text == "die":
            os._exit(9)
        if text == "hang":
            time.sleep(60)
        if text.isdigit():
            rows.append(f"{pathlib.Path(path).name} {int(text) + offset}")
    return rows
"""


def scoring(folder: Path, texts: list[str], **changes: Any) -> dict[str, Any]:
    (folder / "score").mkdir(exist_ok=True)
    (folder / "score/score.py").write_text(SCORE_PY)
    (folder / "items").mkdir(exist_ok=True)
    for number, text in enumerate(texts):
        (folder / f"items/{number:02d}.txt").write_text(text)
    node = {
        "type": "parallel", "mini_batch_size": "2", "input_data": "${{inputs.items}}", "max_concurrency_per_instance": 2,
        "mini_batch_error_threshold": 1, "retry_settings": {"max_retries": 1, "timeout": 3}, "resources": {"instance_count": 1},
        "task": {
            "type": "run_function", "code": "./score", "entry_script": "score.py", "program_arguments": "--offset ${{inputs.offset}}",
            "append_row_to": "${{outputs.rows}}", "environment": EMPTY,
        },
        "inputs": {"items": {"type": "uri_folder", "path": "./items"}, "offset": 100},
        "outputs": {"rows": {"type": "uri_file", "path": "${{parent.outputs.rows}}"}}, **changes,
    }  # fmt: skip
    return pipeline({"score": node}, outputs={"rows": {"type": "uri_file"}})


def test_a_parallel_step_scores_in_order_and_counts_what_failed(yard: YardUnderTest, tmp_path: Path) -> None:
    job = run(yard, scoring(tmp_path, ["1", "2", "3", "no number", "5", "6", "7"]), tmp_path)
    rows = text_of(yard, job["name"], "rows", tmp_path).splitlines()
    assert rows == ["00.txt 101", "01.txt 102", "02.txt 103", "04.txt 105", "05.txt 106", "06.txt 107"]
    log = yard.job_log(job["steps"]["score"]["job_name"])
    assert "7 items in 4 mini batches, 2 processes" in log and "[4/4]" in log and "1 items failed" in log
    again = yard.call("POST", f"/api/v1/workspaces/default/jobs/{job['steps']['score']['job_name']}/rerun", expect=201).json()["name"]
    assert yard.wait_job(again)["status"] == "Completed" and "7 items in 4 mini batches" in yard.job_log(again)
    few = run(yard, scoring(tmp_path, ["1", "x"], error_threshold=0), tmp_path, ok=False)
    assert few["status"] == "Failed" and "error_threshold" in yard.job_log(few["steps"]["score"]["job_name"])


def test_a_parallel_step_outlives_batches_that_die_and_hang(yard: YardUnderTest, tmp_path: Path) -> None:
    job = run(yard, scoring(tmp_path, ["1", "2", "die", "3", "4", "5"]), tmp_path)
    assert text_of(yard, job["name"], "rows", tmp_path).split()[1::2] == ["101", "102", "104", "105"]
    log = yard.job_log(job["steps"]["score"]["job_name"])
    assert "its process died; it is tried again" in log and "1 mini batches lost" in log
    hung = run(yard, scoring(tmp_path, ["1", "2", "hang", "3", "die"]), tmp_path, ok=False)
    log = yard.job_log(hung["steps"]["score"]["job_name"])
    assert hung["status"] == "Failed" and "took more than 3 s" in log and "mini_batch_error_threshold of 1" in log
    wrong = run(yard, scoring(tmp_path, ["1"], mini_batch_size="ten"), tmp_path, ok=False)
    assert "not a number of items" in yard.job_log(wrong["steps"]["score"]["job_name"])


def test_a_failed_pipeline_goes_on_from_where_it_failed(yard: YardUnderTest, tmp_path: Path) -> None:
    (tmp_path / "gate").mkdir()
    yard.run(
        "datastore", "create", "-f", str(write(tmp_path / "store.yml", {"type": "local", "name": "gate", "path": str(tmp_path / "gate")}))
    )
    jobs = {
        "random": step("cat /proc/sys/kernel/random/uuid > ${{outputs.o}}", outputs={"o": {"type": "uri_file"}}, is_deterministic=False),
        "gate": step(
            "ls ${{inputs.gate}} | grep open && cp ${{inputs.o}} ${{outputs.r}}",
            inputs={"gate": {"type": "uri_folder", "path": "azureml://datastores/gate/paths/"}, "o": "${{parent.jobs.random.outputs.o}}"},
            outputs={"r": {"type": "uri_file", "path": "${{parent.outputs.r}}"}},
        ),
    }  # fmt: skip
    first = run(yard, pipeline(jobs, outputs={"r": {"type": "uri_file"}}), tmp_path, ok=False)
    assert first["status"] == "Failed"
    (tmp_path / "gate/open").touch()
    again = yard.wait_job(yard.json("job", "rerun", "-n", first["name"], "--from-failed")["name"])
    assert again["status"] == "Completed" and again["steps"]["random"]["reused_from"] == first["steps"]["random"]["job_name"]
    command = yard.wait_job(yard.submit("true"))["name"]
    assert yard.run("job", "rerun", "-n", command, "--from-failed", ok=False).returncode == 5


def test_one_step_runs_here_on_what_the_others_made(yard: YardUnderTest, project: Path) -> None:
    document = yaml.safe_load((project / "pipeline.yml").read_text())
    document["experiment_name"] = f"here-{project.name}"
    path = write(project / "pipeline.yml", document)

    def here(*arguments: str, ok: bool = True, stdin: str = "") -> Any:
        return yard.run("job", "run", "-f", str(path), "--step", "train", *arguments, ok=ok, stdin=stdin)

    assert "has not completed yet" in here(ok=False).stderr
    alone = here("--input", f"rows={project / 'data'}")
    model = Path(next(line.split(": ", 1)[1] for line in alone.stderr.splitlines() if line.startswith("output model")))
    assert model.read_text() == "rows 0.25 tree"
    submit(yard, project)
    done = here("--set", "inputs.rate=0.125")
    assert "output clean of step prepare, made by job" in done.stderr
    model = Path(next(line.split(": ", 1)[1] for line in done.stderr.splitlines() if line.startswith("output model")))
    assert model.read_text() == "rows 0.125 tree"
    (project / "components/src/train.py").write_text("kept = 41\nraise SystemError(kept)\n")
    broken = here("--pdb", stdin="p kept + 1\nq\n", ok=False)
    assert "42" in broken.stdout and "SystemError" in broken.stdout
    assert "no step" in yard.run("job", "run", "-f", str(path), "--step", "trian", ok=False).stderr


def test_a_step_that_runs_here_finds_the_yards_tracking_for_as_long_as_it_runs(yard: YardUnderTest, tmp_path: Path) -> None:
    command = "printenv MLFLOW_TRACKING_URI MLFLOW_EXPERIMENT_NAME YARD_WORKSPACE MLFLOW_TRACKING_TOKEN OWN"
    steps = {"show": {"type": "command", "command": command, "environment": {"pip": []}, "environment_variables": {"OWN": "kept"}}}
    path = write(tmp_path / "tracked.yml", {"type": "pipeline", "experiment_name": "tracked-here", "jobs": steps})
    url, experiment, workspace, token, own = yard.run("job", "run", "-f", str(path), "--step", "show").stdout.splitlines()[:5]
    assert (url, experiment, workspace, own) == (yard.url, "tracked-here", "default", "kept")
    assert yard.call("GET", "/api/v1/workspaces", token=token).status_code == 401, "the token ended with the step"

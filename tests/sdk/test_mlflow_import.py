"""Taking over what MLflow holds: real stores that its own client wrote, read as folder, SQLite file and server."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from checked_yard import YardUnderTest
from modelyard.testing.process import YARD
from modelyard.testing.waiting import wait_for

PACKAGES = ["mlflow-skinny>=3,<4", "sqlalchemy>=2,<3", "alembic>=1.13,<2", "pandas>=2,<3"]
FILL = """
import sys, math, mlflow, pandas
mlflow.set_tracking_uri(sys.argv[1])
client = mlflow.MlflowClient()
class Adds(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input): return model_input
mlflow.set_experiment("alpha/β")
mlflow.set_experiment_tag("team", "blue")
with mlflow.start_run(run_name="first") as run:
    mlflow.log_params({"lr": 0.1, "a b": "x" * 3000})
    for step in range(30):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
    mlflow.log_metric("nan", math.nan)
    mlflow.log_metric("val/acc", 0.5)
    mlflow.set_tag("note", "hé\\nllo")
    mlflow.log_text("hello", "notes/a.txt")
    mlflow.log_input(mlflow.data.from_pandas(pandas.DataFrame({"a": [1, 2]}), name="frame"), context="training")
    info = mlflow.pyfunc.log_model(name="model", python_model=Adds(), pip_requirements=[], registered_model_name="adds")
    with mlflow.start_run(nested=True, run_name="child"):
        mlflow.log_metric("m", 1)
client.create_registered_model("notes")
client.create_model_version("notes", run.info.artifact_uri + "/notes", run.info.run_id)
client.set_registered_model_alias("adds", "champion", 1)
client.set_model_version_tag("adds", "1", "checked", "yes")
client.update_model_version("adds", "1", "a version")
client.delete_run(client.create_run(run.info.experiment_id).info.run_id)
print(run.info.run_id)
"""


@pytest.fixture(scope="module")
def python(yard: YardUnderTest, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("environment") / "environment.yml"
    path.write_text(json.dumps({"name": "mlflow-stores", "pip": PACKAGES}))
    yard.run("environment", "create", "-f", str(path))
    built = yard.json("environment", "build", "-n", "mlflow-stores")
    return str(yard.built / built["key"] / "bin" / "python")


def fill(python: str, folder: Path, uri: str) -> str:
    """A store that MLflow's own client wrote; the id of its first run."""
    folder.mkdir()
    (folder / "fill.py").write_text(FILL)
    keep = {key: value for key, value in os.environ.items() if not key.startswith(("YARD_", "MLFLOW_"))}
    environment = {**keep, "MLFLOW_ALLOW_FILE_STORE": "true", "GIT_PYTHON_REFRESH": "quiet", "HOME": str(folder)}
    done = subprocess.run([python, "fill.py", uri], cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.split()[-1]


def check_everything(yard: YardUnderTest, run: str, folder: Path) -> None:
    found = yard.mlflow("GET", "runs/get", run_id=run)["run"]
    assert found["info"]["run_name"] == "first" and found["info"]["status"] == "FINISHED"
    assert {p["key"]: len(p["value"]) for p in found["data"]["params"]} == {"lr": 3, "a b": 3000}
    assert {t["key"]: t["value"] for t in found["data"]["tags"]}["note"] == "hé\nllo"
    assert found["inputs"]["dataset_inputs"][0]["dataset"]["name"] == "frame"
    assert found["outputs"]["model_outputs"][0]["model_id"].startswith("m-")
    history = yard.mlflow("GET", "metrics/get-history", run_id=run, metric_key="loss")["metrics"]
    assert [point["value"] for point in history] == [1 / (step + 1) for step in range(30)]
    assert {m["key"] for m in found["data"]["metrics"]} == {"loss", "nan", "val/acc"}
    experiment = yard.mlflow("GET", "experiments/get", experiment_id=found["info"]["experiment_id"])["experiment"]
    assert experiment["name"] == "alpha/β" and {"key": "team", "value": "blue"} in experiment["tags"]
    children = yard.mlflow(
        "POST", "runs/search", {"experiment_ids": [experiment["experiment_id"]], "filter": f"tags.mlflow.parentRunId = '{run}'"}
    )["runs"]
    assert [child["info"]["run_name"] for child in children] == ["child"]
    version = yard.mlflow("GET", "registered-models/alias", name="adds", alias="champion")["model_version"]
    assert version["run_id"] == run and version["description"] == "a version" and version["tags"] == [{"key": "checked", "value": "yes"}]
    yard.run("model", "download", "-n", "adds", "-v", "1", "-p", str(folder))
    assert (folder / "adds/MLmodel").read_text().startswith(("artifact_path", "flavors"))
    yard.run("model", "download", "-n", "notes", "-v", "1", "-p", str(folder))
    assert (folder / "notes/a.txt").read_text() == "hello"


@pytest.mark.environment
@pytest.mark.parametrize("kind", ["folder", "sqlite", "another yard"])
def test_everything_of_a_real_store_comes_and_a_second_import_changes_nothing(
    kind: str, yard: YardUnderTest, own_yard: YardUnderTest, python: str, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    uri = f"file:{store}/mlruns" if kind == "folder" else f"sqlite:///{store}/mlflow.db"
    run = fill(python, store, uri)
    address = str(store / "mlruns") if kind == "folder" else uri
    more: dict[str, str] = {}
    if kind == "another yard":
        other = YardUnderTest(tmp_path / "other")
        other.up()
        other.run("import", "mlflow", "--from", address)
        address, more = other.url, {"MLFLOW_TRACKING_TOKEN": other.token}
    try:
        first = imported(own_yard, address, **more)
        assert first["runs"] == 2 and first["points"] == 33 and first["models"] == 2 and first["missing"] == 0, first
        check_everything(own_yard, run, tmp_path / "first")
        second = imported(own_yard, address, **more)
        assert second["runs_here_before"] == 2 and second["points"] == 0 and second["missing"] == 0, second
        check_everything(own_yard, run, tmp_path / "second")
        assert imported(own_yard, address, "--deleted", **more)["runs"] == (2 if more else 3)
    finally:
        if more:
            other.down()


def imported(yard: YardUnderTest, address: str, *more: str, **environment: str) -> dict[str, int]:
    done = subprocess.run(
        [YARD, "import", "mlflow", "--from", address, *more, "-o", "json"],
        env={**yard.environment, **environment}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def many_runs(root: Path, count: int) -> Path:
    """An `mlruns` folder written by hand, in MLflow's layout."""
    experiment = root / "1"
    experiment.mkdir(parents=True)
    meta = {"experiment_id": "1", "name": "many", "lifecycle_stage": "active", "creation_time": 1, "last_update_time": 1}
    (experiment / "meta.yaml").write_text(json.dumps(meta))
    for number in range(count):
        run = experiment / f"{number:032x}"
        for folder in ("metrics", "params", "tags", "artifacts"):
            (run / folder).mkdir(parents=True)
        info = {"run_id": run.name, "run_name": f"r{number}", "status": 3, "start_time": number, "end_time": number, "artifact_uri": ""}
        (run / "meta.yaml").write_text(json.dumps({**info, "artifact_uri": f"file://{run}/artifacts", "lifecycle_stage": "active"}))
        (run / "params/number").write_text(str(number))
        (run / "metrics/loss").write_text("".join(f"1 {step / 7} {step}\n" for step in [*range(50), 49]))
        if number % 5 == 0:
            (run / "artifacts/note.txt").write_text(str(number))
    return root


def test_an_import_whose_server_is_killed_goes_on_where_it_was(own_yard: YardUnderTest, tmp_path: Path) -> None:
    root = many_runs(tmp_path / "mlruns", 400)
    importing = subprocess.Popen(
        [YARD, "import", "mlflow", "--from", str(root)], env=own_yard.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    with own_yard.rest() as client:
        path = "/api/v1/workspaces/default/runs"
        wait_for(lambda: len(client.get(path, params={"limit": 100, "columns": "tags.x"}).json()["value"]) == 100, 60, "a hundred runs")
    own_yard.kill_server()
    _, said = importing.communicate(timeout=60)
    assert importing.returncode == 6 and b"cannot be reached" in said, said
    own_yard.up()
    found = imported(own_yard, str(root))
    assert found["runs"] == 400 and found["missing"] == 0 and 0 < found["runs_here_before"] < 400, found
    counted = own_yard.json("run", "group", "--over", "loss", "--by", "params.number")
    assert len(counted) == 400
    for number in (0, 5, 399):
        history = own_yard.mlflow("GET", "metrics/get-history", run_id=f"{number:032x}", metric_key="loss")["metrics"]
        assert [point["step"] for point in history] == list(range(50)), "the line that stood twice is there once"
    files = own_yard.call("GET", "/get-artifact", params={"run_uuid": f"{395:032x}", "path": "note.txt"}, expect=200)
    assert files.text == "395"


def test_a_run_that_changed_at_its_source_is_brought_up_to_date(own_yard: YardUnderTest, tmp_path: Path) -> None:
    root = many_runs(tmp_path / "mlruns", 2)
    imported(own_yard, str(root))
    run = root / "1" / f"{1:032x}"
    (run / "tags/new").write_text("tag")
    (run / "params/number").unlink()
    with (run / "metrics/loss").open("a") as more:
        more.write("1 3.5 50\n")
    assert imported(own_yard, str(root))["runs_here_before"] == 1
    found = own_yard.json("run", "show", "-n", run.name)
    assert found["tags"]["new"] == "tag" and found["params"] == {} and found["metrics"] == {"loss": 3.5}


def test_what_cannot_be_imported_is_said(own_yard: YardUnderTest, tmp_path: Path) -> None:
    def refused(*arguments: str) -> str:
        done = own_yard.run("import", "mlflow", "--from", *arguments, ok=False)
        assert done.returncode in (2, 3, 6), done.stderr
        assert "Traceback" not in done.stderr and "fault of modelyard" not in done.stderr
        return done.stderr

    assert "no such file" in refused(str(tmp_path / "nothing"))
    assert "not an mlruns folder" in refused(str(tmp_path))
    (tmp_path / "other.db").write_bytes(b"not a database")
    assert "SQLite" in refused(str(tmp_path / "other.db"))
    assert "postgresql" in refused("postgresql://host/db")
    assert "cannot be reached" in refused("http://127.0.0.1:9")
    root = many_runs(tmp_path / "mlruns", 1)
    meta = next(root.glob("1/0*/meta.yaml"))
    meta.write_text(meta.read_text().replace("file://", "s3://bucket"))
    done = own_yard.run("import", "mlflow", "--from", str(root))
    assert "s3://bucket" in done.stderr and "not copied" in done.stderr
    own = own_yard.submit("true", name=f"{1:032x}")
    own_yard.wait_job(own)
    root = many_runs(tmp_path / "mlruns2", 2)
    done = own_yard.run("import", "mlflow", "--from", str(root), ok=False)
    assert done.returncode == 5 and "was not imported" in done.stderr


def test_a_run_or_job_id_of_another_workspace_is_refused_by_name(own_yard: YardUnderTest) -> None:
    own_yard.wait_job(own_yard.submit("true", name="taken"))
    own_yard.run("workspace", "create", "-n", "second")
    body = {"type": "command", "command": "true", "environment": {"pip": []}, "name": "taken"}
    answer = own_yard.call("POST", "/api/v1/workspaces/second/jobs", json=body, expect=409)
    assert "taken" in answer.json()["error"]["message"]


def test_a_job_cannot_import_and_a_version_that_is_here_stays_what_it_was(own_yard: YardUnderTest) -> None:
    """A job's token writes what the job made; an import that came through it could rewrite any model or run."""
    version = {"version": "1", "source": "runs:/x/model", "run_id": f"{7:032x}", "path": "model", "created_ms": 1, "updated_ms": 1}
    model = {"name": "imported", "created_ms": 1, "updated_ms": 1, "versions": [version]}
    base = "/api/v1/workspaces/default"
    own_yard.call("POST", f"{base}/models/import", json=model, expect=200)
    own_yard.call("POST", f"{base}/models/import", json=model, expect=200)
    other = {**model, "versions": [{**version, "path": "elsewhere"}]}
    assert own_yard.call("POST", f"{base}/models/import", json=other, expect=409).json()["error"]["code"] == "version_exists"

    script = (
        "import json, os, urllib.request, urllib.error\n"
        "def post(path, body):\n"
        "    headers = {'Authorization': 'Bearer ' + os.environ['MLFLOW_TRACKING_TOKEN'], 'Content-Type': 'application/json'}\n"
        "    request = urllib.request.Request(os.environ['YARD_URL'] + '/api/v1/workspaces/default' + path, json.dumps(body).encode(), headers)\n"
        "    try: return urllib.request.urlopen(request).status\n"
        "    except urllib.error.HTTPError as error: return error.code\n"
        f"print(post('/models/import', {model!r}))\n"
        "print(post('/import/experiments', {'name': 'mine', 'lifecycle': 'active', 'created_ms': 1, 'updated_ms': 1}))\n"
    )
    job = own_yard.submit(f"python - <<'E'\n{script}E", environment_variables={"YARD_URL": own_yard.url})
    assert own_yard.wait_job(job)["status"] == "Completed", own_yard.job_log(job)
    assert own_yard.job_log(job).split() == ["403", "403"]

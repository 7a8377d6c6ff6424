"""The unmodified MLflow client, in an environment the yard built, and the whole tour with a real model."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import httpx
import pytest

from checked_yard import YardUnderTest

pytestmark = pytest.mark.environment

PACKAGES = ["mlflow-skinny>=3,<4", "scikit-learn>=1.5,<1.8", "pandas>=2,<3"]

SCRIPT = """
import os, tempfile, mlflow, mlflow.sklearn
from mlflow import MlflowClient
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

mlflow.set_experiment("genuine")
mlflow.sklearn.autolog(log_models=False)
features, target = load_iris(return_X_y=True, as_frame=True)
with mlflow.start_run(run_name="first") as run:
    model = LogisticRegression(max_iter=300).fit(features, target)
    mlflow.log_metrics({"loss": 0.5}, step=1)
    mlflow.log_metrics({"loss": 0.25}, step=2)
    mlflow.log_text("hello", "notes/a.txt")
    mlflow.log_input(mlflow.data.from_pandas(features, name="iris"), context="training")
    info = mlflow.sklearn.log_model(model, name="model", registered_model_name="genuine-model", input_example=features.head(2), serialization_format="cloudpickle")
    with mlflow.start_run(nested=True, run_name="child"):
        mlflow.log_param("depth", 1)

client = MlflowClient()
client.set_registered_model_alias("genuine-model", "champion", 1)
client.set_model_version_tag("genuine-model", "1", "checked", "yes")
loaded = mlflow.pyfunc.load_model("models:/genuine-model@champion")
assert list(loaded.predict(features.head(3))) == list(model.predict(features.head(3)))
again = mlflow.sklearn.load_model(f"runs:/{run.info.run_id}/model")
assert again.coef_.tolist() == model.coef_.tolist()
frame = mlflow.search_runs(experiment_names=["genuine"], filter_string="metrics.loss < 0.3 and attributes.run_name = 'first'")
assert len(frame) == 1 and frame.iloc[0]["params.max_iter"] == "300", frame
found = client.get_run(run.info.run_id)
assert found.data.metrics["loss"] == 0.25 and "training_accuracy_score" in found.data.metrics, found.data.metrics
assert [p.value for p in client.get_metric_history(run.info.run_id, "loss")] == [0.5, 0.25]
assert "iris" in [item.dataset.name for item in found.inputs.dataset_inputs]
assert client.search_runs(found.info.experiment_id, "tags.mlflow.parentRunId = '%s'" % run.info.run_id)[0].data.params == {"depth": "1"}
assert mlflow.artifacts.load_text(found.info.artifact_uri + "/notes/a.txt") == "hello"
assert [f.path for f in client.list_artifacts(run.info.run_id, "notes")] == ["notes/a.txt"]
odd = ["a%2Fb.txt", "d?x=1&y.txt", "50%.txt", "with space é.txt", "e\u0301", "n" * 250]
folder = tempfile.mkdtemp()
for name in odd:
    open(os.path.join(folder, name), "w").write(name)
client.log_artifacts(run.info.run_id, folder, "odd")
got = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="odd")
assert {name.replace("％", "%"): open(os.path.join(got, name)).read() for name in os.listdir(got)} == {name: name for name in odd}, os.listdir(got)
open(os.path.join(folder, "c#.txt"), "w").close()
try:
    client.log_artifact(run.info.run_id, os.path.join(folder, "c#.txt"))
    raise SystemExit("a name that was cut was taken")
except Exception as error:
    assert "before `#`" in str(error), error
assert client.get_model_version_by_alias("genuine-model", "champion").tags["checked"] == "yes"
assert client.search_model_versions("name='genuine-model'")[0].run_id == run.info.run_id
assert [m.name for m in client.search_registered_models("name LIKE 'genuine%'")] == ["genuine-model"]
@mlflow.trace
def add(x): return x + 1
@mlflow.trace(name="outer")
def outer(x): return add(x) * 2
with mlflow.start_run(run_id=run.info.run_id):
    assert outer(3) == 8
mlflow.flush_trace_async_logging()
(trace,) = mlflow.search_traces(return_type="list", run_id=run.info.run_id)
assert [span.name for span in trace.data.spans] == ["outer", "add"] and trace.data.spans[1].outputs == 4, trace
mlflow.set_trace_tag(trace.info.trace_id, "k", "v")
mlflow.log_feedback(trace_id=trace.info.trace_id, name="good", value=True, rationale="yes")
seen = mlflow.get_trace(trace.info.trace_id).info
assert seen.tags["k"] == "v" and seen.assessments[0].feedback.value is True
assert client.delete_traces(experiment_id=found.info.experiment_id, trace_ids=[trace.info.trace_id]) == 1
try:
    client.log_param(run.info.run_id, "max_iter", "5"); raise SystemExit("param changed")
except mlflow.exceptions.MlflowException as error:
    assert error.error_code == "INVALID_PARAMETER_VALUE", error.error_code
print("all is well", run.info.run_id)
"""


@pytest.fixture(scope="module")
def python(yard: YardUnderTest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of an environment with the genuine client."""
    path = tmp_path_factory.mktemp("environment") / "environment.yml"
    path.write_text(json.dumps({"name": "genuine", "pip": PACKAGES}))
    yard.run("environment", "create", "-f", str(path))
    built = yard.json("environment", "build", "-n", "genuine")
    return str(yard.built / built["key"] / "bin" / "python")


def client_environment(yard: YardUnderTest, folder: Path) -> dict[str, str]:
    lines = yard.run("env", "-o", "none").stdout.splitlines()
    exports = dict(line.removeprefix("export ").split("=", 1) for line in lines)
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("YARD_", "MLFLOW_"))}
    return {**keep, **exports, "HOME": str(folder)}


def test_the_stock_mlflow_client_works_with_what_yard_env_prints(yard: YardUnderTest, python: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [python, "script.py"], cwd=tmp_path, env=client_environment(yard, tmp_path), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    run = done.stdout.split()[-1]
    assert yard.json("model", "show", "-n", "genuine-model")["job_name"] == run


AUTOLOGGED = """
import subprocess, sys, threading, warnings, mlflow, mlflow.sklearn
from sklearn.datasets import load_iris
from sklearn.linear_model import Ridge

warnings.simplefilter("ignore")
mlflow.sklearn.autolog(log_models=False)
features, target = load_iris(return_X_y=True)
Ridge(alpha=1).fit(features, target)
mlflow.log_metric("after", 1)
mlflow.end_run()
Ridge(alpha=2).fit(features, target)
thread = threading.Thread(target=lambda: mlflow.log_metric("thread", 2))
thread.start()
thread.join()
subprocess.run([sys.executable, "-c", "import mlflow; mlflow.log_metric('process', 3)"], check=True)
for alpha in (3, 4):
    with mlflow.start_run():
        mlflow.log_param("alpha", alpha)
"""


def test_autologged_and_loose_metrics_land_in_the_run_of_the_job(yard: YardUnderTest, python: str, tmp_path: Path) -> None:
    """Second models and runs that the script starts are its children: no param is written twice, and no run is lost."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src/train.py").write_text(AUTOLOGGED)
    (tmp_path / "job.yml").write_text("code: src\ncommand: python train.py\nenvironment: azureml:genuine@latest\n")
    yard.run("job", "create", "-f", str(tmp_path / "job.yml"), "--name", "autologged", "--stream")
    run = yard.mlflow("GET", "runs/get", run_id="autologged")["run"]["data"]
    metrics = {point["key"]: point["value"] for point in run["metrics"]}
    assert {"after": 1, "thread": 2, "process": 3}.items() <= metrics.items() and "training_score" in metrics
    assert {"key": "alpha", "value": "1"} in run["params"]
    children = yard.mlflow("POST", "runs/search", {"experiment_ids": ["0"], "filter": "tags.mlflow.parentRunId = 'autologged'"})["runs"]
    assert sorted(param["value"] for child in children for param in child["data"]["params"] if param["key"] == "alpha") == ["2", "3", "4"]


def test_a_logged_model_is_served_without_code_and_held_by_its_deployment(yard: YardUnderTest, python: str, tmp_path: Path) -> None:
    train = (
        "import mlflow, mlflow.sklearn, pandas\n"
        "from sklearn.linear_model import LinearRegression\n"
        "x = pandas.DataFrame({'a': [1., 2., 3.], 'b': [1, 0, 1]})\n"
        "model = LinearRegression().fit(x, [2., 4., 6.])\n"
        "mlflow.sklearn.log_model(model, name='model', signature=mlflow.models.infer_signature(x, model.predict(x)), serialization_format='cloudpickle')\n"
    )
    (tmp_path / "src").mkdir()
    (tmp_path / "src/train.py").write_text(train)
    (tmp_path / "job.yml").write_text("code: src\ncommand: python train.py\nenvironment: azureml:genuine@latest\n")
    yard.run("job", "create", "-f", str(tmp_path / "job.yml"), "--name", "trains-linear", "--stream")
    yard.run("model", "create", "-n", "linear", "--type", "mlflow_model", "--path", "runs:/trains-linear/model")
    yard.run("online-endpoint", "create", "-n", "linear")
    document = {"name": "blue", "endpoint_name": "linear", "model": "azureml:linear@latest", "instance_type": "Standard_DS3_v2"}
    (tmp_path / "deployment.yml").write_text(json.dumps(document))
    yard.run("online-deployment", "create", "-f", str(tmp_path / "deployment.yml"), "--all-traffic")
    (tmp_path / "request.json").write_text(json.dumps({"input_data": {"columns": ["a", "b"], "data": [[4, 1], [5.0, 0]]}}))
    answer = json.loads(yard.run("online-endpoint", "invoke", "-n", "linear", "-r", str(tmp_path / "request.json")).stdout)
    assert [round(value, 6) for value in answer] == [8.0, 10.0]
    url = yard.json("online-endpoint", "show", "-n", "linear")["scoring_uri"]
    key = yard.json("online-endpoint", "get-credentials", "-n", "linear")["primaryKey"]

    def score(body: str) -> httpx.Response:
        return httpx.post(url, content=body, headers={"Authorization": f"Bearer {key}"}, trust_env=False, verify=False, timeout=30)

    assert [round(v, 6) for v in score('{"input_data": [[4, 1]]}').json()] == [8.0]
    assert [round(v, 6) for v in score('{"input_data": [{"a": 4, "b": 1}]}').json()] == [8.0]
    for wrong in (
        "{",
        "[]",
        "{}",
        '{"input_data": {"columns": ["a"], "data": [[1]]}}',
        '{"input_data": [[1]]}',
        '{"input_data": [["x", 1]]}',
    ):
        assert score(wrong).status_code == 400, (wrong, score(wrong).text)
    assert "b" in score('{"input_data": {"columns": ["a"], "data": [[1]]}}').text, "the missing column is named"
    done = yard.run("model", "delete", "-n", "linear", "-v", "1", "-y", ok=False)
    assert done.returncode == 5 and "deployment linear/blue" in done.stderr
    yard.run("online-endpoint", "delete", "-n", "linear", "-y")
    yard.run("model", "delete", "-n", "linear", "-v", "1", "-y")


def test_an_environment_is_built_once_and_the_second_job_waits_for_nothing(yard: YardUnderTest, python: str) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in (yard.built).glob("*/.complete")}
    name = yard.submit("python -c 'import pandas'", environment="azureml:genuine@latest")
    assert yard.wait_job(name)["status"] == "Completed"
    assert {path.name: path.stat().st_mtime_ns for path in (yard.built).glob("*/.complete")} == before


def test_a_package_that_does_not_exist_fails_the_job_by_name(yard: YardUnderTest) -> None:
    name = yard.submit("true", environment={"pip": ["no-such-package-modelyard-test==9.9"]})
    job = yard.wait_job(name)
    assert job["status"] == "Failed" and "no-such-package-modelyard-test" in job["error"]["message"]

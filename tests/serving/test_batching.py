"""Which MLflow models are given the rows of several requests in one call, and which are not."""

from __future__ import annotations

import json
import os
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from checked_yard import environments
from grounds import NONE
from modelyard.drivers.builder.venv import VenvBuilder
from modelyard.ports.builder import Requirements

PACKAGES = ("mlflow-skinny>=3,<4", "scikit-learn>=1.5,<1.8", "pandas>=2,<3")
MODELS = """
import json, sys, numpy, pandas, mlflow.pyfunc, mlflow.sklearn
sys.path[:0] = [sys.argv[2]]
sys.path += [sys.argv[3]]
from mlflow.models import infer_signature
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder
from modelyard_runtime.protocol import ModelKind, ModelServerConfig
from modelyard_runtime.scoring.mlflow import MlflowModel, Saved

class Relative(BaseEstimator):
    def predict(self, frame): return (frame.x - frame.x.mean()).to_numpy()
class Series(BaseEstimator):
    def predict(self, frame): return frame.x * 2
class Counting(BaseEstimator):
    seen = 0
    def predict(self, frame):
        self.seen += 1
        return frame.x.to_numpy() + self.seen
class Own(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input): return model_input
class Hinted(mlflow.pyfunc.PythonModel):
    def predict(self, model_input: list[str]) -> list[str]: return [text.upper() for text in model_input]

frame = pandas.DataFrame({"x": [1.0, 2.0, 4.0], "city": ["Bonn", "Ulm", "Ulm"]})
x = frame[["x"]]
strict = make_pipeline(ColumnTransformer([("c", OneHotEncoder(), ["city"])], remainder="passthrough"), LinearRegression()).fit(frame, [1, 2, 3])
plain = dict(pip_requirements=[], signature=infer_signature(x, numpy.array([1.0])), serialization_format="cloudpickle")
mlflow.sklearn.save_model(LinearRegression().fit(x, [1, 2, 3]), sys.argv[1] + "/linear", **plain)
mlflow.sklearn.save_model(make_pipeline(FunctionTransformer(numpy.log), LinearRegression()).fit(x, [1, 2, 3]), sys.argv[1] + "/inside", **plain)
mlflow.sklearn.save_model(Series(), sys.argv[1] + "/series", **plain)
mlflow.sklearn.save_model(Relative(), sys.argv[1] + "/relative", **plain)
mlflow.sklearn.save_model(Counting(), sys.argv[1] + "/counting", **plain)
mlflow.sklearn.save_model(strict, sys.argv[1] + "/strict", **{**plain, "signature": infer_signature(frame, numpy.array([1.0]))})
mlflow.sklearn.save_model(strict, sys.argv[1] + "/example", input_example=frame, **{**plain, "signature": infer_signature(frame, numpy.array([1.0]))})
mlflow.pyfunc.save_model(sys.argv[1] + "/own", python_model=Own(), signature=infer_signature(x, x), pip_requirements=[])
mlflow.pyfunc.save_model(sys.argv[1] + "/hinted", python_model=Hinted(), pip_requirements=[])

def load(name, batching=None):
    return MlflowModel(ModelServerConfig(socket="", kind=ModelKind.MLFLOW, kit=sys.argv[3], timeout_ms=1000, model_dir=sys.argv[1] + "/" + name, batching=batching))
def of(document):
    return Saved(json.dumps(document).encode())
real = sys.stdout
sys.stdout = sys.stderr
found = {name: [load(name).batching] for name in ("linear", "series", "relative", "counting", "example", "own", "hinted")}
found["own, {max: 8}"] = [load("own", 8).batching, load("own", 8).batch.most]
found["linear, {max: 1}"] = [load("linear", 1).batching, load("linear", 1).batch.most]
inside = load("inside")
found["inside"] = [inside.batching]
for value in (1.0, -1.0):
    try:
        found["inside"].append(inside.batch.predict([inside.batch.decode(of({"dataframe_split": {"columns": ["x"], "data": [[value]]}}))])[0].status)
    except ValueError as problem:
        found["inside"].append(str(problem)[:18])
hinted = load("hinted")
found["hinted"].append(json.loads(hinted.invocations(of({"inputs": ["a", "b"]})).body))
model, told = load("strict"), []
model.batch.proven = lambda: told.append(model.batch.most)
found["strict"] = [model.batching]
for number in range(8):
    sent = of({"dataframe_split": {"columns": ["x", "city"], "data": [[number + 0.5, "Bonn" if number % 2 else "Ulm"]]}})
    answer = json.loads(model.batch.predict([model.batch.decode(sent)])[0].body)
    assert numpy.allclose(answer["predictions"], json.loads(model.invocations(sent).body)["predictions"])
    found["strict"].append(model.batch.most)
found["strict"] += [model.batch.summary, told]
print(json.dumps(found), file=real)
"""
BESIDE, ONE = "one by one: its answer to a row depends on the rows beside it", "one by one: "
TOGETHER = "together when they meet"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    builder = VenvBuilder(environments[0], NONE)
    built = builder.build(builder.lock(Requirements(PACKAGES), print), print)
    spec = find_spec("modelyard_runtime")
    assert spec is not None and spec.origin is not None
    command = [
        built.python, "-c", MODELS, tmp_path_factory.mktemp("batching"), Path(spec.origin).parents[1], builder.serving_kit(built),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout))


def test_a_flavour_that_predicts_row_by_row_is_tried_when_it_is_loaded(found: dict[str, Any]) -> None:
    assert found["linear"] == found["series"] == found["example"] == [TOGETHER]
    assert found["relative"] == [BESIDE]
    assert found["counting"] == [ONE + "its answers depend on earlier ones"]


def test_a_model_that_takes_no_made_up_row_is_tried_on_what_callers_send(found: dict[str, Any]) -> None:
    before, *most, after, told = found["strict"]
    assert before == ONE + "no rows that it takes could be made up, so the first that callers send decide"
    assert most == [1] * 5 + [256] * 3 and after == TOGETHER and told == [256]


def test_a_custom_model_travels_together_only_where_its_deployment_says_so(found: dict[str, Any]) -> None:
    assert found["own"][0].startswith(ONE)
    assert found["own, {max: 8}"] == [TOGETHER, 8]
    assert found["linear, {max: 1}"] == [ONE + "the deployment says so", 1]


def test_what_is_not_finite_inside_a_model_is_refused_as_mlflow_refuses_it(found: dict[str, Any]) -> None:
    assert found["inside"] == [TOGETHER, 200, "Input X contains N"]


def test_a_model_of_type_hints_is_given_what_they_say(found: dict[str, Any]) -> None:
    assert found["hinted"] == [ONE + "its predict takes what its type hints say", {"predictions": ["A", "B"]}]

"""Curated environments as scripts of the cloud service use them: a job trains and logs by default, the model is registered and served."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from checked_yard import YardUnderTest
from endpoints import call_endpoint, post

pytestmark = pytest.mark.torture

DATA = "import mlflow, numpy as np, pandas as pd\nx = pd.DataFrame(np.random.RandomState(0).rand(60, 3), columns=list('abc')); y = (x.a > .5).astype(int)\n"
FAMILIES = {
    "AzureML-sklearn-1.5@latest": (
        "from sklearn.ensemble import RandomForestClassifier\nmlflow.sklearn.log_model(RandomForestClassifier(5).fit(x, y), 'model')\n"
    ),
    "AzureML-lightgbm-3.3@latest": (
        "import lightgbm\nmlflow.lightgbm.log_model(lightgbm.LGBMClassifier(n_estimators=5).fit(x, y), 'model')\n"
    ),
    "xgboost-sklearn-py38@latest": (
        "import xgboost\nmlflow.xgboost.log_model(xgboost.XGBClassifier(n_estimators=5).fit(x, y), 'model')\n"
    ),
    "AzureML-acpt-pytorch-2.8-cuda12.6@latest": (
        "import torch\nnet = torch.nn.Sequential(torch.nn.Linear(3, 1), torch.nn.Sigmoid())\n"
        "signature = mlflow.models.infer_signature(x.values.astype('float32'), y.values[:, None].astype('float32'))\n"
        "mlflow.pytorch.log_model(net, 'model', signature=signature)\n"
    ),
    "AzureML-tensorflow-2.16-cuda12@latest": (
        "import keras\nnet = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)]); net.compile(loss='mse')\n"
        "net.fit(x.values, y.values, verbose=0)\nmlflow.tensorflow.log_model(net, 'model')\n"
    ),
}  # fmt: skip
FRAME = {"input_data": {"columns": ["a", "b", "c"], "data": [[0.9, 0.1, 0.2], [0.1, 0.3, 0.4]]}}
"""What a deployment of a model takes; those of networks take the rows alone."""


@pytest.mark.parametrize("environment", FAMILIES)
def test_what_a_job_logs_by_default_is_registered_and_served(yard: YardUnderTest, tmp_path: Path, environment: str) -> None:
    family = environment.removeprefix("AzureML-").split("-")[0]
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "train.py").write_text(DATA + FAMILIES[environment])
    (tmp_path / "job.yml").write_text(f"command: python train.py\ncode: src\nenvironment: azureml:{environment}\n")
    job = yard.json("job", "create", "-f", str(tmp_path / "job.yml"))["name"]
    assert yard.wait_job(job, 900)["status"] == "Completed", yard.job_log(job)
    path = f"azureml://jobs/{job}/outputs/artifacts/paths/model"
    model = yard.json("model", "create", "-n", f"of-{family}", "--type", "mlflow_model", "--path", path)
    (tmp_path / "endpoint.yml").write_text(f"name: {family}-served\nauth_mode: key\n")
    (tmp_path / "blue.yml").write_text(f"name: blue\nendpoint_name: {family}-served\nmodel: azureml:{model['name']}:{model['version']}\n")
    yard.run("online-endpoint", "create", "-f", str(tmp_path / "endpoint.yml"))
    yard.run("online-deployment", "create", "-f", str(tmp_path / "blue.yml"), "--all-traffic")
    body = FRAME if family not in ("acpt", "tensorflow") else {"input_data": FRAME["input_data"]["data"]}
    url, key = call_endpoint(yard, f"{family}-served")
    response = post(url, key, json.dumps(body).encode())
    assert response.status_code == 200 and len(response.json()) == 2, response.text
    yard.run("online-endpoint", "delete", "-n", f"{family}-served", "-y")

"""The registry beyond MLflow's calls: cards, comparison, registries that workspaces share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from checked_yard import YardUnderTest

MLMODEL = {
    "flavors": {"sklearn": {"sklearn_version": "1.9.1"}},
    "signature": {"inputs": json.dumps([{"type": "double", "name": "age"}]), "outputs": json.dumps([{"type": "long"}])},
    "mlflow_version": "3.17.2",
}
TRAIN = (
    "python -c \"import json, os, sys; os.makedirs(sys.argv[2]); json.dump(json.loads(sys.argv[3]), open(sys.argv[2] + '/MLmodel', 'w'))\""
    " ${{inputs.depth}} ${{outputs.model}}/m '%s'"
)


def trained(yard: YardUnderTest, tmp_path: Path, name: str, depth: int, signature: str = "double") -> None:
    """A job that writes an MLmodel file, with params and metrics, registered as the next version of `name`."""
    document = json.loads(json.dumps(MLMODEL).replace("double", signature))
    (tmp_path / "data.txt").write_text(f"rows {depth}")
    yard.run("data", "create", "-n", f"rows-{name}", "--path", str(tmp_path / "data.txt"), "--type", "uri_file")
    job = yard.submit(
        TRAIN % json.dumps(document), inputs={"depth": depth, "rows": {"type": "uri_file", "path": f"azureml:rows-{name}@latest"}},
        outputs={"model": {"type": "mlflow_model"}},
    )  # fmt: skip
    assert yard.wait_job(job)["status"] == "Completed", yard.job_log(job)
    yard.mlflow("POST", "runs/log-parameter", {"run_id": job, "key": "depth", "value": str(depth)})
    yard.mlflow("POST", "runs/log-metric", {"run_id": job, "key": "auc", "value": 0.5 + depth / 100, "timestamp": 1, "step": 0})
    yard.run("model", "create", "-n", name, "--type", "mlflow_model", "--path", f"azureml://jobs/{job}/outputs/model/paths/m/")


@pytest.fixture(scope="module")
def two_versions(yard: YardUnderTest, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models")
    trained(yard, folder, "cards", 3)
    trained(yard, folder, "cards", 5, signature="float")
    return "cards"


def test_a_card_says_what_a_version_is_made_of(yard: YardUnderTest, two_versions: str) -> None:
    card = yard.json("model", "card", "-n", two_versions, "-v", "1")
    assert card["run"]["metrics"]["auc"] == 0.53 and card["run"]["params"]["depth"] == "3"
    assert card["signature"]["inputs"] == [{"type": "double", "name": "age"}] and card["flavors"] == {"sklearn": "1.9.1"}
    assert card["data"]["rows"].startswith("rows-cards:1 sha256:") and card["environment"]
    text = yard.run("model", "card", "-n", two_versions, "-v", "1").stdout
    for expected in ("# cards version 1", "| auc | 0.53 |", "| age | double |", "rows-cards:1", "yard job rerun -n"):
        assert expected in text, text
    assert yard.run("model", "card", "-n", two_versions, "-v", "99", ok=False).returncode == 3


def test_versions_are_compared_side_by_side(yard: YardUnderTest, two_versions: str) -> None:
    rows = {row.pop("field"): row for row in yard.json("model", "compare", "cards:1", "cards:2")}
    assert rows["metrics.auc"] == {"cards:1": 0.53, "cards:2": 0.55}
    assert rows["params.depth"] == {"cards:1": "3", "cards:2": "5"}
    assert rows["signature.inputs.age"] == {"cards:1": "double", "cards:2": "float"}
    assert rows["data.rows"]["cards:1"].startswith("rows-cards:1") and rows["data.rows"]["cards:2"].startswith("rows-cards:2")
    assert "type" not in rows, "what is equal is left out"
    assert yard.run("model", "compare", "cards:1", "cards", ok=False).returncode == 2


def test_a_registry_gives_its_assets_to_every_workspace_and_runs_nothing(any_yard: YardUnderTest, tmp_path: Path) -> None:
    yard = any_yard
    yard.run("registry", "create", "-n", "shared", "--description", "for all")
    assert [item["name"] for item in yard.json("registry", "list")] == ["shared"]
    assert "shared" not in [item["name"] for item in yard.json("workspace", "list")]
    (tmp_path / "weights.txt").write_text("42")
    yard.run("model", "create", "-n", "given", "--path", str(tmp_path / "weights.txt"))
    yard.run("data", "create", "-n", "given-data", "--path", str(tmp_path / "weights.txt"), "--type", "uri_file")
    yard.run("environment", "create", "-n", "given-env", "-f", str(environment(tmp_path)))
    yard.run("model", "share", "-n", "given", "-v", "1", "--registry-name", "shared", "--share-with-version", "7")
    yard.run("data", "share", "-n", "given-data", "-v", "1", "--registry-name", "shared")
    yard.run("environment", "share", "-n", "given-env", "-v", "1", "--registry-name", "shared")
    assert [item["version"] for item in yard.json("model", "list", "--registry-name", "shared")] == ["7"]
    yard.run("model", "share", "-n", "given", "-v", "1", "--registry-name", "shared", "--share-with-version", "7")
    yard.run("workspace", "create", "-n", "consumer")
    base = "azureml://registries/shared"
    job = {
        "type": "command", "command": "cat ${{inputs.model}} ${{inputs.rows}}", "environment": f"{base}/environments/given-env/versions/1",
        "inputs": {
            "model": {"type": "custom_model", "path": f"{base}/models/given/labels/latest"},
            "rows": {"type": "uri_file", "path": f"{base}/data/given-data/versions/1"},
        },
    }  # fmt: skip
    (tmp_path / "job.yml").write_text(json.dumps(job))
    done = yard.run("job", "create", "-f", str(tmp_path / "job.yml"), "-w", "consumer", "--stream")
    assert "4242" in done.stdout
    refused = yard.run("job", "create", "-f", str(tmp_path / "job.yml"), "-w", "shared", ok=False)
    assert refused.returncode == 2 and "nothing runs in it" in refused.stderr
    (tmp_path / "job.yml").write_text(
        json.dumps({**job, "environment": f"{base}/environments/given-env/versions/1"}).replace("given/", "gone/")
    )
    assert "gone" in yard.run("job", "create", "-f", str(tmp_path / "job.yml"), "-w", "consumer", ok=False).stderr
    assert yard.run("registry", "delete", "-n", "shared", "-y", ok=False).returncode == 5
    assert yard.run("model", "share", "-n", "given", "-v", "1", "--registry-name", "consumer", ok=False).returncode == 3


def environment(folder: Path) -> Path:
    path = folder / "environment.yml"
    path.write_text(json.dumps({"pip": []}))
    return path


def test_whoever_may_not_read_a_registry_does_not_get_its_models(yard: YardUnderTest, tmp_path: Path) -> None:
    yard.run("registry", "create", "-n", "closed")
    (tmp_path / "weights.txt").write_text("42")
    yard.run("model", "create", "-n", "secret", "--path", str(tmp_path / "weights.txt"))
    yard.run("model", "share", "-n", "secret", "-v", "1", "--registry-name", "closed")
    yard.run("user", "create", "-n", "mallory")
    yard.run("user", "assign-role", "-n", "mallory", "--role", "AzureML Data Scientist", "--scope", "default")
    token = yard.json("token", "create", "-n", "mallory")["token"]
    body = {
        "type": "command", "command": "cat ${{inputs.m}}", "environment": {"pip": []},
        "inputs": {"m": {"type": "custom_model", "path": "azureml://registries/closed/models/secret/versions/1"}},
    }  # fmt: skip
    answer = yard.call("POST", "/api/v1/workspaces/default/jobs", json=body, token=token)
    assert answer.status_code == 403, answer.text
    share = {"registry": "closed", "version": "9"}
    answer = yard.call("POST", "/api/v1/workspaces/default/models/secret/versions/1/share", json=share, token=token)
    assert answer.status_code == 403, answer.text

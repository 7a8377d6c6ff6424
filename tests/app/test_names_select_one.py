"""A name, a path and a key select what they name: not what a pattern, a prefix or another case of them would match as well."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard.assets.files import service as files
from modelyard.storage.unit import Unit
from modelyard.tenancy.secrets import service as secrets
from modelyard.testing.yard import InProcessYard

API = "/api/v1/workspaces/default"
NAMES = ("a_b", "aXb", "a_b2", "A_B", "a_")
"""The first as a pattern of SQL, as a prefix, and in another case is each of the others, or is begun by one."""
PLAIN = ("ab-c", "ab-c2", "AB-C", "ab")
"""For nouns whose names have no `_`."""
BLOBS = "azureml://datastores/workspaceblobstore/paths/"
TRIGGER = {"type": "cron", "expression": "0 * * * *"}
JOB = {"type": "command", "command": "true", "environment": {"pip": []}}
NAMED: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "computes": (PLAIN, {"type": "amlcompute", "size": "Standard_DS2_v2"}),
    "datastores": (NAMES, {"type": "azure_blob", "account_name": "acc", "container_name": "c", "credentials": {"account_key": "c2VjcmV0"}}),
    "batch-endpoints": (PLAIN, {}),
    "schedules": (NAMES, {"trigger": TRIGGER, "create_job": JOB}),
}
VERSIONED: dict[str, dict[str, Any]] = {
    "data": {"path": f"{BLOBS}x/", "type": "uri_folder"},
    "environments": {"conda_file": {"dependencies": ["python=3.11"]}, "image": "img"},
    "components": {"type": "command", "command": "true", "environment": "azureml:e:1"},
}


@pytest.fixture
def yard(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[InProcessYard]:
    url = request.getfixturevalue("postgres")() if getattr(request, "param", "") == "postgresql" else ""
    made = InProcessYard(tmp_path / "home", database_url=url)
    yield made
    made.close()


both = pytest.mark.parametrize("yard", ["sqlite", "postgresql"], indirect=True)


@pytest.mark.parametrize("collection", NAMED)
def test_one_named_resource_is_deleted(yard: InProcessYard, collection: str) -> None:
    names, body = NAMED[collection]
    before = {item["name"] for item in yard.call("GET", f"{API}/{collection}", expect=200).json()["value"]}
    for name in names:
        yard.call("PUT", f"{API}/{collection}/{name}", json={"name": name, **body}, expect=200)
    yard.call("DELETE", f"{API}/{collection}/{names[0]}", expect=204)
    after = {item["name"] for item in yard.call("GET", f"{API}/{collection}", expect=200).json()["value"]}
    assert after - before == set(names[1:])
    if collection == "datastores":
        for name in names[1:]:
            assert yard.read(lambda unit, name=name: secrets.exists(unit, f"datastore/{name}")), name  # type: ignore[misc]
        assert not yard.read(lambda unit: secrets.exists(unit, f"datastore/{names[0]}"))


@pytest.mark.parametrize("collection", VERSIONED)
def test_versions_of_one_name_are_archived(yard: InProcessYard, collection: str) -> None:
    yard.call("POST", f"{API}/environments", json={"name": "e", "version": "1", "image": "img"}, expect=201)
    for name in NAMES:
        yard.call("POST", f"{API}/{collection}", json={"name": name, "version": "1", **VERSIONED[collection]}, expect=201)
    yard.call("POST", f"{API}/{collection}/{NAMES[0]}/archive", expect=204)
    listed = {item["name"] for item in yard.call("GET", f"{API}/{collection}", expect=200).json()["value"]}
    assert set(NAMES) - listed == {NAMES[0]}


@both
def test_one_model_is_renamed_tagged_and_deleted(yard: InProcessYard) -> None:
    run = yard.mlflow("POST", "runs/create", {"experiment_id": "0"})["run"]["info"]["run_id"]
    for name in NAMES:
        yard.mlflow(
            "POST", "registered-models/create", {"name": name, "tags": [{"key": "k_1", "value": "v"}, {"key": "kX1", "value": "v"}]}
        )
        yard.mlflow(
            "POST",
            "model-versions/create",
            {"name": name, "source": "prompts:/x", "run_id": run, "tags": [{"key": "mlflow.prompt.is_prompt", "value": "true"}]},
        )
        yard.mlflow("POST", "registered-models/alias", {"name": name, "alias": "live", "version": "1"})
    yard.mlflow("DELETE", "registered-models/delete-tag", {"name": NAMES[0], "key": "k_1"})
    yard.mlflow("POST", "registered-models/rename", {"name": NAMES[0], "new_name": "moved"})
    for name in (*NAMES[1:], "moved"):
        model = yard.mlflow("GET", "registered-models/get", None, name=name)["registered_model"]
        assert model["aliases"] == [{"alias": "live", "version": "1"}], name
        assert {tag["key"] for tag in model["tags"]} == ({"kX1"} if name == "moved" else {"k_1", "kX1"})
        lineage = yard.call("GET", f"{API}/lineage/model/{name}:1", expect=200).json()["upstream"]
        assert [step["name"] for step in lineage] == [run], name
    yard.mlflow("DELETE", "registered-models/delete", {"name": NAMES[2]})
    left = yard.mlflow("GET", "registered-models/search", None)["registered_models"]
    assert {model["name"] for model in left} == {"moved", *NAMES[1:]} - {NAMES[2]}


def test_one_key_of_a_run_and_one_folder_of_its_artifacts_are_meant(yard: InProcessYard) -> None:
    run = yard.mlflow("POST", "runs/create", {"experiment_id": "0"})["run"]["info"]["run_id"]
    for key in NAMES:
        yard.mlflow("POST", "runs/set-tag", {"run_id": run, "key": key, "value": key})
        yard.mlflow("POST", "runs/log-metric", {"run_id": run, "key": key, "value": len(key), "timestamp": 1, "step": 0})
        yard.call("PUT", f"/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/{key}/f", content=key.encode(), expect=200)
    yard.mlflow("POST", "runs/delete-tag", {"run_id": run, "key": NAMES[0]})
    yard.call("DELETE", f"/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/{NAMES[0]}")
    tags = yard.mlflow("GET", "runs/get", None, run_id=run)["run"]["data"]["tags"]
    assert {tag["key"] for tag in tags if not tag["key"].startswith("mlflow.")} == set(NAMES[1:])
    history = yard.mlflow("GET", "metrics/get-history", None, run_id=run, metric_key=NAMES[0])["metrics"]
    assert [point["value"] for point in history] == [len(NAMES[0])]
    files = yard.mlflow("GET", "artifacts/list", None, run_id=run)["files"]
    assert {file["path"] for file in files} == set(NAMES[1:])
    assert [file["path"] for file in yard.mlflow("GET", "artifacts/list", None, run_id=run, path="a_")["files"]] == ["a_/f"]


@both
def test_a_prefix_of_files_is_taken_letter_by_letter(yard: InProcessYard) -> None:
    prefixes = ("a", "\U0010ffff", "\ud7ff", "%", "_", "*")
    paths = {"b/f", *(f"{prefix}{end}" for prefix in prefixes for end in ("x/f", "/f"))}
    blob = yard.yard.objects.put_bytes(b"x")

    def put(unit: Unit) -> None:
        for path in paths:
            files.put_file(unit, "workspaceblobstore", path, blob.digest, blob.size)

    yard.write(put)
    for prefix in prefixes:
        answer = yard.call("GET", f"{API}/datastores/workspaceblobstore/files", params={"prefix": prefix}, expect=200)
        assert {item["path"] for item in answer.json()["value"]} == {path for path in paths if path.startswith(prefix)}, prefix


@both
def test_metrics_on_a_dataset_are_not_those_on_one_whose_name_goes_on(yard: InProcessYard) -> None:
    run = yard.mlflow("POST", "runs/create", {"experiment_id": "0"})["run"]["info"]["run_id"]
    for number, name in enumerate(("rows", "rows@v2", "rowsX")):
        model = yard.mlflow("POST", "logged-models", {"experiment_id": "0", "name": f"m{number}", "source_run_id": run})["model"]["info"][
            "model_id"
        ]
        yard.mlflow(
            "POST",
            "runs/log-metric",
            {
                "run_id": run,
                "key": "acc",
                "value": 0.9,
                "timestamp": 1,
                "step": 0,
                "model_id": model,
                "dataset_name": name,
                "dataset_digest": "d1",
            },
        )
    sent = {"experiment_ids": ["0"], "filter": "metrics.acc > 0.5", "datasets": [{"dataset_name": "rows"}]}
    found = yard.mlflow("POST", "logged-models/search", sent)["models"]
    assert [model["info"]["name"] for model in found] == ["m0"]

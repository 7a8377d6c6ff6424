"""What the token of a running job may change: what the job has made, unless it acts as its submitter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard.testing.yard import InProcessYard
from running import API, Running

DATA_SCIENTIST = "AzureML Data Scientist"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    made = Running(tmp_path / "home")
    yield made
    made.yard.close()


def version(yard: InProcessYard, name: str, token: str | None = None) -> str:
    yard.mlflow("POST", "registered-models/create", {"name": name}, expect=None, token=token)
    made = yard.mlflow(
        "POST",
        "model-versions/create",
        {"name": name, "source": "prompts:/x", "tags": [{"key": "mlflow.prompt.is_prompt", "value": "true"}]},
        token=token,
    )
    return str(made["model_version"]["version"])


def changes(name: str, version: str, experiment: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Everything that changes a model, a version of it, or an experiment."""
    of_version = {"name": name, "version": version}
    return [
        ("POST", "registered-models/alias", {**of_version, "alias": "champion"}),
        ("DELETE", "registered-models/alias", {"name": name, "alias": "live"}),
        ("POST", "registered-models/set-tag", {"name": name, "key": "k", "value": "v"}),
        ("DELETE", "registered-models/delete-tag", {"name": name, "key": "kept"}),
        ("PATCH", "registered-models/update", {"name": name, "description": "mine"}),
        ("POST", "model-versions/set-tag", {**of_version, "key": "k", "value": "v"}),
        ("DELETE", "model-versions/delete-tag", {**of_version, "key": "kept"}),
        ("PATCH", "model-versions/update", {**of_version, "description": "mine"}),
        ("POST", "experiments/set-experiment-tag", {"experiment_id": experiment, "key": "k", "value": "v"}),
        ("POST", "experiments/update", {"experiment_id": experiment, "new_name": f"{name}-renamed"}),
        ("POST", "model-versions/transition-stage", {**of_version, "stage": "Production", "archive_existing_versions": False}),
        ("POST", "registered-models/rename", {"name": name, "new_name": f"{name}-renamed"}),
    ]


ONLY_AS_SUBMITTER = ("model-versions/transition-stage", "registered-models/rename")


def theirs(running: Running) -> tuple[str, str, str]:
    """(model, version, experiment) of the administrator, the version with the alias `live`."""
    yard = running.yard
    number = version(yard, "theirs")
    yard.mlflow("POST", "registered-models/alias", {"name": "theirs", "version": number, "alias": "live"})
    experiment = yard.mlflow("POST", "experiments/create", {"name": "theirs"})["experiment_id"]
    return "theirs", number, str(experiment)


def test_a_job_changes_no_model_and_no_experiment_that_others_made(running: Running) -> None:
    model, number, experiment = theirs(running)
    running.job("trainer")
    for method, path, body in changes(model, number, experiment):
        refused = running.yard.mlflow(method, path, body, expect=403, token=running.tokens["trainer"])
        assert "user_identity" in refused["message"], path
    default = running.yard.mlflow(
        "POST", "experiments/update", {"experiment_id": "0", "new_name": "x"}, expect=403, token=running.tokens["trainer"]
    )
    assert default["error_code"] == "PERMISSION_DENIED"
    shown = running.yard.mlflow("GET", "registered-models/get", None, name=model)["registered_model"]
    assert shown["aliases"] == [{"alias": "live", "version": number}] and shown["description"] == ""


def test_a_job_may_change_what_it_made_but_not_its_stage_or_name(running: Running) -> None:
    running.job("trainer")
    token = running.tokens["trainer"]
    number = version(running.yard, "own", token)
    experiment = running.yard.mlflow("POST", "experiments/create", {"name": "own"}, token=token)["experiment_id"]
    for method, path, body in changes("own", number, experiment):
        running.yard.mlflow(method, path, body, expect=403 if path in ONLY_AS_SUBMITTER else 200, token=token)


def test_a_job_adds_versions_to_anybodys_model_and_gives_them_a_new_alias_only(running: Running) -> None:
    model, _, _ = theirs(running)
    running.job("trainer")
    token = running.tokens["trainer"]
    number = version(running.yard, model, token)
    running.yard.mlflow("POST", "registered-models/alias", {"name": model, "version": number, "alias": "candidate"}, token=token)
    taken = running.yard.mlflow(
        "POST", "registered-models/alias", {"name": model, "version": number, "alias": "live"}, expect=403, token=token
    )
    assert "take the alias live" in taken["message"]


def test_a_job_writes_its_run_and_its_children_and_no_other_jobs(running: Running) -> None:
    running.job("first")
    running.job("second")
    token = running.tokens["second"]
    child = running.yard.mlflow("POST", "runs/create", {"experiment_id": "0"}, token=token)["run"]["info"]["run_id"]
    for run, status in (("second", 200), (child, 200), ("first", 403)):
        running.yard.mlflow("POST", "runs/set-tag", {"run_id": run, "key": "k", "value": "v"}, expect=status, token=token)
        under = [{"key": "mlflow.parentRunId", "value": run}]
        running.yard.mlflow("POST", "runs/create", {"experiment_id": "0", "tags": under}, expect=status, token=token)
        running.yard.mlflow("POST", "runs/set-tag", {"run_id": child, **under[0]}, expect=status, token=token)


def test_a_job_changes_no_data_version_that_others_made(running: Running) -> None:
    yard = running.yard
    made = yard.call(
        "POST",
        f"{API}/data",
        json={"name": "rows", "path": "azureml://datastores/workspaceblobstore/paths/rows/", "type": "uri_folder"},
        expect=201,
    )
    running.job("trainer")
    token = running.tokens["trainer"]
    at = f"{API}/data/rows/versions/{made.json()['version']}"
    assert yard.call("PATCH", at, json={"tags": {"a": "b"}}, token=token).status_code == 403
    again = {**made.json(), "description": "mine"}
    assert (
        yard.call(
            "POST", f"{API}/data", json={key: again[key] for key in ("name", "version", "path", "type", "description")}, token=token
        ).status_code
        == 403
    )
    own = yard.call(
        "POST",
        f"{API}/data",
        json={"name": "rows", "path": "azureml://datastores/workspaceblobstore/paths/rows/", "type": "uri_folder"},
        expect=201,
        token=token,
    ).json()
    yard.call("PATCH", f"{API}/data/rows/versions/{own['version']}", json={"tags": {"a": "b"}}, expect=200, token=token)


def test_with_the_identity_of_its_user_it_may_what_that_user_may(running: Running) -> None:
    model, number, experiment = theirs(running)
    shown = running.job("promoter", running.user("ada", DATA_SCIENTIST), identity={"type": "user_identity"})
    assert shown["properties"]["identity"] == "user_identity"
    assert any("as ada may" in line for line in shown["warnings"])
    for method, path, body in changes(model, number, experiment):
        running.yard.mlflow(method, path, body, token=running.tokens["promoter"])
    for path, body in (
        ("api/v1/principals", {"name": "eve"}),
        ("api/v1/tokens", {}),
        (f"{API[1:]}/jobs", {"type": "command", "command": "true", "environment": {"pip": []}}),
    ):
        assert running.yard.call("POST", f"/{path}", json=body, token=running.tokens["promoter"]).status_code == 403, path


def test_a_right_that_its_user_does_not_have_is_no_right_of_the_job(running: Running) -> None:
    role = {
        "Name": "Submitter",
        "Actions": [
            "Microsoft.MachineLearningServices/workspaces/*/read",
            "Microsoft.MachineLearningServices/workspaces/jobs/write",
            "Microsoft.MachineLearningServices/workspaces/experiments/runs/write",
        ],
    }
    running.yard.call("POST", "/api/v1/roles", json=role, expect=201)
    model, number, _ = theirs(running)
    running.job("promoter", running.user("bob", "Submitter"), identity={"type": "user_identity"})
    body = {"name": model, "version": number, "stage": "Production", "archive_existing_versions": False}
    running.yard.mlflow("POST", "model-versions/transition-stage", body, expect=403, token=running.tokens["promoter"])


def test_a_workspace_says_how_its_jobs_act_and_a_job_says_otherwise(running: Running) -> None:
    yard = running.yard
    yard.call("PUT", "/api/v1/workspaces/default", json={"name": "default", "properties": {"job_identity": "user_identity"}}, expect=200)
    assert running.job("inherits")["properties"]["identity"] == "user_identity"
    assert "identity" not in running.job("own", identity={"type": "aml_token"})["properties"]
    step = {"command": "true b", "environment": {"pip": []}, "identity": {"type": "managed"}}
    running.job("flow", type="pipeline", jobs={"a": {"command": "true a", "environment": {"pip": []}}, "b": step})
    steps = yard.call("GET", f"{API}/jobs", params={"parent": "flow"}, expect=200).json()["value"]
    assert sorted(item["properties"].get("identity", "") for item in steps) == ["", "user_identity"]
    refused = yard.call("PUT", "/api/v1/workspaces/default", json={"name": "default", "properties": {"job_identity": "root"}}, expect=400)
    assert refused.json()["error"]["code"] == "invalid_identity"


def test_the_tokens_of_a_persons_jobs_end_with_those_of_the_person(running: Running) -> None:
    running.job("theirs", running.user("ada", DATA_SCIENTIST))
    running.job("mine")
    listed = running.yard.call("GET", "/api/v1/tokens?principal=ada", expect=200).json()["value"]
    assert [item.get("run") for item in listed] == [None, "theirs"]
    assert running.yard.call("DELETE", "/api/v1/tokens?principal=ada", expect=200).json() == {"revoked": 2}
    body = {"run_id": "theirs", "key": "k", "value": "v"}
    running.yard.mlflow("POST", "runs/set-tag", body, expect=401, token=running.tokens["theirs"])
    running.yard.mlflow("POST", "runs/set-tag", {**body, "run_id": "mine"}, token=running.tokens["mine"])
    refused = running.yard.call("GET", "/api/v1/tokens?principal=ada", token=running.tokens["mine"])
    assert refused.status_code == 403

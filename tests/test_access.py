"""Who may do what: tokens, roles, workspaces; every route is behind authentication."""

from __future__ import annotations

import re
from typing import Any

import pytest

from conftest import YardUnderTest, wait_for

OPEN = {"/healthz", "/readyz", "/openapi.json", "/docs/api", "/docs/api/oauth2-redirect"}


def member(yard: YardUnderTest, name: str, role: str, scope: str = "default") -> str:
    """A token of a new user with one role."""
    yard.call("POST", "/api/v1/principals", json={"name": name})
    yard.call("PUT", f"/api/v1/principals/{name}/roles/{role}", params={"workspace_name": scope}, expect=200)
    return str(yard.call("POST", "/api/v1/tokens", json={"principal": name}, expect=201).json()["token"])


def test_no_route_answers_without_a_token(yard: YardUnderTest) -> None:
    import httpx

    document = yard.call("GET", "/openapi.json", expect=200).json()
    tried = 0
    for path, methods in document["paths"].items():
        for method in methods:
            filled = re.sub(r"\{(\w+)(:path)?\}", "x", path)
            answer = httpx.request(method, yard.url + filled, trust_env=False)
            assert answer.status_code == 401, f"{method} {path} answered {answer.status_code}"
            tried += 1
    from modelyard.wire.mlflow import artifacts, registry, tracking  # noqa: F401
    from modelyard.wire.mlflow.app import registered

    for method, path in registered():
        base = "" if path.endswith("get-artifact") else "/api/2.0"
        answer = httpx.request(method, f"{yard.url}{base}/{re.sub(r'[(].*?[)]', 'x', path)}", trust_env=False)
        assert answer.status_code == 401, f"{method} {path}"
        tried += 1
    assert tried > 110


def test_a_reader_changes_nothing_and_sees_no_secret(yard: YardUnderTest) -> None:
    token = member(yard, "reader", "Reader")
    assert yard.call("GET", "/api/v1/workspaces/default/jobs", token=token).status_code == 200
    document = yard.call("GET", "/openapi.json").json()
    for path, methods in document["paths"].items():
        for method in methods:
            if method in ("get", "head") or not path.startswith("/api/v1/workspaces/{workspace}/"):
                continue
            filled = re.sub(r"\{(\w+)(:path)?\}", "default", path, count=1)
            filled = re.sub(r"\{(\w+)(:path)?\}", "abc", filled)
            if "/blobs/" in filled:
                continue
            bodies: dict[str, Any] = {
                "put": {"name": "abc", "type": "local", "path": "/x", "endpoint_name": "abc", "model": "azureml:a:1"},
                "post": {
                    "name": "abc",
                    "path": "azureml://datastores/d/paths/p",
                    "pip": [],
                    "command": "true",
                    "environment": "e:1",
                    "files": [["a", "a" * 64, 1]],
                },
            }
            body = {
                k: v
                for k, v in bodies.get(method, {}).items()
                if k in FIELDS.get(path.split("/")[5], {}) or not FIELDS.get(path.split("/")[5])
            }
            answer = yard.call(method.upper(), filled, token=token, json=body)
            assert answer.status_code in (403, 400, 404), f"{method} {path}: {answer.status_code} {answer.text[:200]}"
            assert answer.status_code != 404 or "permission" not in answer.text
    assert yard.call("POST", "/api/v1/workspaces/default/online-endpoints/abc/keys", token=token).status_code == 403
    assert yard.mlflow("POST", "experiments/create", {"name": "by-reader"}, token=token, expect=403)["error_code"] == "PERMISSION_DENIED"


FIELDS: dict[str, set[str]] = {
    "jobs": {"command", "environment"}, "data": {"name", "path"}, "environments": {"name", "pip"}, "models": {"name", "path"},
    "computes": {"name", "type"}, "datastores": {"name", "type", "path", "files"}, "online-endpoints": {"name"},
}  # fmt: skip


def test_a_data_scientist_works_but_makes_no_compute_and_no_roles(yard: YardUnderTest) -> None:
    token = member(yard, "scientist", "AzureML Data Scientist")
    body = {"command": "true", "environment": {"pip": []}}
    assert yard.call("POST", "/api/v1/workspaces/default/jobs", json=body, token=token).status_code == 201
    compute = {"type": "amlcompute", "name": "cpu"}
    assert yard.call("PUT", "/api/v1/workspaces/default/computes/cpu-x", json=compute, token=token).status_code == 403
    assert yard.call("PUT", "/api/v1/principals/scientist/roles/Owner", token=token).status_code == 403
    local = {"type": "local", "path": "/tmp"}
    assert yard.call("PUT", "/api/v1/workspaces/default/datastores/here", json=local, token=token).status_code == 403


def test_a_contributor_assigns_no_roles(yard: YardUnderTest) -> None:
    token = member(yard, "contributor", "Contributor", "*")
    assert yard.call("PUT", "/api/v1/workspaces/default/computes/cpu-y", json={"type": "amlcompute"}, token=token).status_code == 200
    assert yard.call("PUT", "/api/v1/principals/contributor/roles/Owner", token=token).status_code == 403


def test_a_foreign_workspace_does_not_exist(yard: YardUnderTest) -> None:
    yard.call("PUT", "/api/v1/workspaces/theirs", json={}, expect=200)
    token = member(yard, "outsider", "Contributor")
    for path in ("/api/v1/workspaces/theirs/jobs", "/api/v1/workspaces/nowhere/jobs"):
        answer = yard.call("GET", path, token=token)
        assert answer.status_code == 404
    assert [item["name"] for item in yard.call("GET", "/api/v1/workspaces", token=token).json()["value"]] == ["default"]


def test_custom_roles_are_azures_json_as_it_is(yard: YardUnderTest) -> None:
    role = {
        "Name": "Job Watcher", "IsCustom": True, "Description": "d", "AssignableScopes": ["/subscriptions/x"],
        "Actions": ["Microsoft.MachineLearningServices/workspaces/*/read", "Microsoft.MachineLearningServices/workspaces/jobs/*"],
        "NotActions": ["Microsoft.MachineLearningServices/workspaces/jobs/cancel/action"],
    }  # fmt: skip
    yard.call("POST", "/api/v1/roles", json=role, expect=201)
    token = member(yard, "watcher", "Job Watcher")
    name = yard.call(
        "POST", "/api/v1/workspaces/default/jobs", json={"command": "true", "environment": {"pip": []}}, token=token, expect=201
    ).json()["name"]
    assert yard.call("POST", f"/api/v1/workspaces/default/jobs/{name}/cancel", token=token).status_code == 403


def test_a_revoked_token_stops_working_within_a_second(yard: YardUnderTest) -> None:
    made = yard.call("POST", "/api/v1/tokens", json={"hours": 1}, expect=201).json()
    assert yard.call("GET", "/api/v1/workspaces", token=made["token"]).status_code == 200
    yard.call("DELETE", f"/api/v1/tokens/{made['id']}", expect=204)
    wait_for(lambda: yard.call("GET", "/api/v1/workspaces", token=made["token"]).status_code == 401, 2, "the revocation")
    assert made["token"].encode() not in (yard.home / "control/yard.db").read_bytes()


def test_a_token_for_one_workspace_opens_no_other(yard: YardUnderTest) -> None:
    yard.call("PUT", "/api/v1/workspaces/narrow", json={}, expect=200)
    token = yard.call("POST", "/api/v1/tokens", json={"workspace": "narrow"}, expect=201).json()["token"]
    assert yard.call("GET", "/api/v1/workspaces/narrow/jobs", token=token).status_code == 200
    assert yard.call("GET", "/api/v1/workspaces/default/jobs", token=token).status_code == 404
    assert yard.mlflow("GET", "experiments/get-by-name", experiment_name="quickstart", token=token, expect=404)


@pytest.mark.parametrize("token", ["nonsense", "yard_x_y", "yard_" + "a" * 5000, "yard__", "ünïcode"])
def test_wrong_tokens_are_401(yard: YardUnderTest, token: str) -> None:
    answer = yard.call("GET", "/api/v1/workspaces", headers={"Authorization": f"Bearer {token}".encode()}, token="x")
    assert answer.status_code == 401 and "error" in answer.json()


def test_an_unknown_host_header_is_refused(yard: YardUnderTest) -> None:
    assert yard.call("GET", "/api/v1/workspaces", headers={"Host": "evil.example"}).status_code == 400


def test_the_audit_log_names_who_did_what_and_is_whole(yard: YardUnderTest) -> None:
    yard.call("PUT", "/api/v1/workspaces/default/computes/audited", json={"type": "amlcompute"}, expect=200)
    newest = yard.json("audit", "list", "--subject", "audited")[0]
    assert (newest["actor"], newest["event"]) == ("admin", "compute.created")
    wait_for(lambda: yard.json("audit", "verify")["checked"] > 0, 20, "the sealer")


@pytest.mark.parametrize(
    "body",
    [b"{", b"[" * 100_000 + b"]" * 100_000, b'{"a": 1} trailing', b"\xff\xfe", b'{"command": "\x00"}', b"null", b'"text"', b"[]"],
)
def test_malformed_bodies_are_400_never_500(yard: YardUnderTest, body: bytes) -> None:
    for path in (
        "/api/v1/workspaces/default/jobs",
        "/api/2.0/mlflow/runs/create",
        "/api/2.0/mlflow/runs/log-batch",
        "/api/2.0/mlflow/experiments/create",
    ):
        answer = yard.call("POST", path, content=body)
        assert answer.status_code in (400, 404), f"{path}: {answer.status_code} {answer.text[:200]}"


def test_a_server_beyond_loopback_must_be_told_it_is_insecure(tmp_path: Any) -> None:
    made = YardUnderTest(tmp_path / "home")
    done = made.run("up", "--port", "0", "--host", "0.0.0.0", ok=False)
    made.down()
    assert done.returncode == 1 and "without TLS" in done.stderr

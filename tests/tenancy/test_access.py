"""Who may do what: tokens, roles, workspaces; every route is behind authentication."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from checked_yard import YardUnderTest
from modelyard.testing.waiting import wait_for
from modelyard.testing.yard import InProcessYard

OPEN = {"/healthz", "/readyz", "/openapi.json", "/docs/api"}


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
            answer = httpx.request(method, yard.url + filled, trust_env=False, verify=False)
            assert answer.status_code == 401, f"{method} {path} answered {answer.status_code}"
            tried += 1
    from modelyard.wire.mlflow import artifacts, registry, traces, tracking  # noqa: F401
    from modelyard.wire.mlflow.app import registered

    for method, path in registered():
        base = "" if path.endswith("get-artifact") or path == "v1/traces" else "/api/2.0"
        answer = httpx.request(method, f"{yard.url}{base}/{re.sub(r'[(].*?[)]', 'x', path)}", trust_env=False, verify=False)
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


def as_limited(yard: YardUnderTest, **limits: Any) -> str:
    return str(yard.call("POST", "/api/v1/tokens", json=limits, expect=201).json()["token"])


@pytest.mark.parametrize(
    ("own", "wanted", "code"),
    [
        ({"hours": 1}, {"hours": 2}, "token_too_long"),
        ({"hours": 1}, {"hours": None}, "token_too_long"),
        ({"hours": 1, "workspace": "default"}, {"hours": 0.5, "workspace": "elsewhere"}, "token_too_wide"),
        ({"hours": None, "workspace": "default"}, {"hours": 1, "workspace": "elsewhere"}, "token_too_wide"),
    ],
)
def test_a_token_makes_none_that_is_wider_or_lasts_longer(
    yard: YardUnderTest, own: dict[str, Any], wanted: dict[str, Any], code: str
) -> None:
    yard.call("PUT", "/api/v1/workspaces/elsewhere", json={}, expect=200)
    refused = yard.call("POST", "/api/v1/tokens", json=wanted, token=as_limited(yard, **own), expect=403).json()["error"]
    assert refused["code"] == code


def test_a_token_made_with_a_limited_one_has_the_same_limits(yard: YardUnderTest) -> None:
    limited = yard.call("POST", "/api/v1/tokens", json={"hours": 1, "workspace": "default"}, expect=201).json()
    made = yard.call("POST", "/api/v1/tokens", json={}, token=limited["token"], expect=201).json()
    assert (made["workspace"], made["expires_ms"]) == ("default", limited["expires_ms"])
    assert yard.call("GET", "/api/v1/workspaces/default/jobs", token=made["token"]).status_code == 200


@pytest.mark.parametrize(
    "body", [{"hours": "12"}, {"hours": -1}, {"hours": 1e300}, {"hours": True}, {"workspace": 3}, {"principal": ["x"]}]
)
def test_a_wrong_wish_for_a_token_is_refused(yard: YardUnderTest, body: dict[str, Any]) -> None:
    assert yard.call("POST", "/api/v1/tokens", json=body).status_code == 400


def test_nobody_gives_away_more_than_they_hold(yard: YardUnderTest) -> None:
    role = {"Name": "User Keeper", "Actions": ["Microsoft.Authorization/*", "Microsoft.MachineLearningServices/workspaces/*/read"]}
    yard.call("POST", "/api/v1/roles", json=role, expect=201)
    keeper = member(yard, "keeper", "User Keeper", "*")
    tries = {
        "a token of the owner": ("POST", "/api/v1/tokens", {"principal": "admin"}, "token_too_strong"),
        "a stronger role": ("PUT", "/api/v1/principals/keeper/roles/Owner?workspace_name=*", None, "role_too_strong"),
        "more in the own role": ("POST", "/api/v1/roles", {**role, "Actions": ["*"]}, "role_too_strong"),
        "everything, spelt otherwise": ("POST", "/api/v1/roles", {"Name": "Spelt", "Actions": ["m*"]}, "role_too_strong"),
        "a provider, spelt otherwise": (
            "POST",
            "/api/v1/roles",
            {"Name": "Small", "Actions": ["microsoft.machinelearningservices/*"]},
            "role_too_strong",
        ),
        "what the own role excepts": ("POST", "/api/v1/roles", {"Name": "Writer", "Actions": ["*/write"]}, "role_too_strong"),
    }
    for what, (method, path, body, code) in tries.items():
        answer = yard.call(method, path, json=body, token=keeper)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, code), what
    reader = {"Name": "Job Reader", "Actions": ["Microsoft.MachineLearningServices/workspaces/jobs/read"]}
    yard.call("POST", "/api/v1/roles", json=reader, token=keeper, expect=201)
    yard.call("POST", "/api/v1/principals", json={"name": "newcomer"}, token=keeper, expect=201)
    yard.call("PUT", "/api/v1/principals/newcomer/roles/Job Reader", params={"workspace_name": "*"}, token=keeper, expect=200)
    yard.call("POST", "/api/v1/tokens", json={"principal": "newcomer"}, token=keeper, expect=201)


def test_a_job_may_do_no_more_than_its_submitter(yard: YardUnderTest) -> None:
    role = {
        "Name": "Only Jobs",
        "Actions": ["Microsoft.MachineLearningServices/workspaces/jobs/*", "Microsoft.MachineLearningServices/workspaces/environments/*"],
    }
    yard.call("POST", "/api/v1/roles", json=role, expect=201)
    token = member(yard, "submitter", "Only Jobs")
    ask = "import os,urllib.request as u; u.urlopen(u.Request(os.environ['YARD_URL'] + '/api/v1/workspaces/default/{}', headers={{'Authorization': 'Bearer ' + os.environ['YARD_TOKEN']}}))"
    body = {"command": f'python3 -c "{ask.format("jobs")}" && python3 -c "{ask.format("models")}"', "environment": {"pip": []}}
    name = yard.call("POST", "/api/v1/workspaces/default/jobs", json=body, token=token, expect=201).json()["name"]
    assert yard.wait_job(name)["status"] == "Failed"
    assert "HTTP Error 403" in yard.job_log(name)
    mine = yard.submit(body["command"])
    assert yard.wait_job(mine)["status"] == "Completed", yard.job_log(mine)


def test_the_job_of_a_user_who_is_gone_is_refused_by_name(yard: YardUnderTest) -> None:
    token = member(yard, "leaver", "Contributor")
    schedule = {
        "trigger": {"type": "cron", "expression": "0 3 1 1 *"},
        "create_job": {"type": "command", "command": "true", "environment": {"pip": []}},
    }
    yard.call("PUT", "/api/v1/workspaces/default/schedules/of-leaver", json=schedule, token=token, expect=200)
    yard.call("DELETE", "/api/v1/principals/leaver", expect=204)
    name = yard.call("POST", "/api/v1/workspaces/default/schedules/of-leaver/trigger", expect=201).json()["job_name"]
    job = yard.wait_job(name)
    assert job["status"] == "Failed" and job["error"]["code"] == "submitter_gone" and "leaver" in job["error"]["message"]


def test_an_answer_that_held_a_secret_is_not_kept(own_yard: YardUnderTest) -> None:
    headers = {"Idempotency-Key": "once"}
    with own_yard.rest() as client:
        made = client.post("/api/v1/tokens", json={}, headers=headers)
        again = client.post("/api/v1/tokens", json={}, headers=headers)
    secret = made.json()["token"].rpartition("_")[2]
    assert made.status_code == 201 and again.status_code == 409 and again.json()["error"]["code"] == "answer_not_kept"
    for file in (own_yard.home / "control").glob("yard.db*"):
        assert secret.encode() not in file.read_bytes()


def test_an_hourly_token_of_an_endpoint_ends_with_the_callers(yard: YardUnderTest) -> None:
    yard.call("PUT", "/api/v1/workspaces/default/online-endpoints/hourly", json={"auth_mode": "aml_token"}, expect=200)
    short = yard.call("POST", "/api/v1/tokens", json={"hours": 0.25}, expect=201).json()
    made = yard.call("POST", "/api/v1/workspaces/default/online-endpoints/hourly/token", token=short["token"], expect=200).json()
    assert made["expiryTimeUtc"] * 1000 <= short["expires_ms"]


def test_the_yards_own_name_is_nobodys(yard: YardUnderTest) -> None:
    assert yard.call("POST", "/api/v1/principals", json={"name": "system"}).status_code == 400


def test_deleting_a_datastore_leaves_the_secret_of_another(yard: YardUnderTest) -> None:
    blob = {"type": "azure_blob", "account_name": "a", "container_name": "c", "credentials": {"account_key": "k"}}
    for name in ("sales", "sales2"):
        yard.call("PUT", f"/api/v1/workspaces/default/datastores/{name}", json=blob, expect=200)
    yard.call("DELETE", "/api/v1/workspaces/default/datastores/sales", expect=204)
    events = yard.call("GET", "/api/v1/workspaces/default/audit", params={"limit": 20}).json()["value"]
    assert any(event["subject"] == "datastore/sales" for event in events)
    import sqlite3

    with sqlite3.connect(yard.home / "control" / "yard.db") as database:
        left = [name for (name,) in database.execute("SELECT name FROM secrets WHERE name LIKE 'datastore/sales%'")]
    database.close()
    assert left == ["datastore/sales2"]


def test_a_schedule_rests_when_its_writer_may_no_longer_submit(yard: YardUnderTest) -> None:
    token = member(yard, "mover", "Contributor")
    schedule = {
        "trigger": {"type": "cron", "expression": "0 3 1 1 *"},
        "create_job": {"type": "command", "command": "true", "environment": {"pip": []}},
    }
    yard.call("PUT", "/api/v1/workspaces/default/schedules/of-mover", json=schedule, token=token, expect=200)
    yard.call("DELETE", "/api/v1/principals/mover/roles/Contributor", params={"workspace_name": "default"}, expect=204)
    refused = yard.call("POST", "/api/v1/workspaces/default/schedules/of-mover/trigger", expect=403).json()["error"]
    assert refused["code"] == "right_withdrawn" and "mover" in refused["message"]


def test_an_idempotency_key_belongs_to_the_whole_address(yard: YardUnderTest) -> None:
    yard.call("POST", "/api/v1/principals", json={"name": "twice"}, expect=201)
    with yard.rest() as client:
        client.headers["Idempotency-Key"] = "the-same-key"
        first = client.put("/api/v1/principals/twice/roles/Reader", params={"workspace_name": "default"})
        second = client.put("/api/v1/principals/twice/roles/Reader", params={"workspace_name": "*"})
    assert first.status_code == 200 and second.status_code == 409


def test_a_role_is_given_where_the_request_says_and_nowhere_else(yard: YardUnderTest) -> None:
    yard.call("POST", "/api/v1/principals", json={"name": "unplaced"})
    refused = yard.call("PUT", "/api/v1/principals/unplaced/roles/Reader", expect=400).json()["error"]
    assert refused["code"] == "missing_workspace" and "`*`" in refused["hint"]
    (roles,) = [found["roles"] for found in yard.call("GET", "/api/v1/principals").json()["value"] if found["name"] == "unplaced"]
    assert roles == []


def test_a_refusal_names_the_action_as_a_role_would(yard: YardUnderTest) -> None:
    token = member(yard, "curious", "Reader")
    hint = yard.call("POST", "/api/v1/principals", json={"name": "more"}, token=token, expect=403).json()["error"]["hint"]
    assert hint == "Ask an owner for a role with Microsoft.Authorization/principals/write."
    hint = yard.call("DELETE", "/api/v1/workspaces/default/computes/x", token=token, expect=403).json()["error"]["hint"]
    assert hint == "Ask an owner for a role with Microsoft.MachineLearningServices/workspaces/computes/delete."


def test_a_query_parameter_that_a_route_does_not_take_is_refused_by_name(yard: YardUnderTest) -> None:
    refused = yard.call("GET", "/api/v1/workspaces/default/jobs", params={"stauts": "Failed"}, expect=400).json()["error"]
    assert refused["code"] == "unknown_parameter" and "'stauts'; did you mean 'status'?" in refused["message"]
    none = yard.call("GET", "/api/v1/workspaces/default/computes", params={"limit": "1"}, expect=400).json()["error"]
    assert none["hint"] == "It takes none."
    assert yard.call("GET", "/api/v1/workspaces/default/jobs", params={"stauts": "x"}, token="yard_a_b").status_code == 401


def test_all_tokens_of_a_person_are_listed_and_ended_at_once(yard: YardUnderTest) -> None:
    first = member(yard, "leaver", "AzureML Data Scientist")
    second = yard.call("POST", "/api/v1/tokens", json={"principal": "leaver", "description": "on the laptop"}, expect=201).json()["token"]
    other = member(yard, "stayer", "Contributor")
    assert [item["description"] for item in yard.json("token", "list", "-n", "leaver")] == ["", "on the laptop"]
    for path, method in (("/api/v1/tokens?principal=leaver", "GET"), ("/api/v1/tokens?principal=leaver", "DELETE")):
        assert yard.call(method, path, token=other).status_code == 403
    assert yard.json("token", "revoke", "-n", "leaver") == {"revoked": 2}
    for token in (first, second):
        wait_for(lambda token=token: yard.call("GET", "/api/v1/workspaces", token=token).status_code == 401, 5, "the end of a token")  # type: ignore[misc]
    assert yard.call("GET", "/api/v1/workspaces", token=other).status_code == 200


def test_a_token_that_has_expired_stays_so_when_the_clock_is_set_back_even_across_a_restart(tmp_path: Path) -> None:
    first = InProcessYard(tmp_path / "home")
    token = first.call("POST", "/api/v1/tokens", json={"hours": 1}, expect=201).json()["token"]
    who = "/api/v1/workspaces/default/jobs"
    first.clock.turn(hours=2)
    first.settle()  # which stores how late it is
    first.clock.set("2026-01-05T12:00:00")
    assert first.call("GET", who, token=token).json()["error"]["code"] == "expired_token"
    first.close()
    second = InProcessYard(tmp_path / "home")
    second.yard.vault = first.yard.vault  # which a real yard keeps in its home
    assert second.call("GET", who, token=token).json()["error"]["code"] == "expired_token"
    fresh = [second.call("POST", "/api/v1/tokens", json={"hours": 1}, expect=201).json()["token"] for _ in range(2)]
    second.clock.turn(minutes=59)
    second.call("GET", who, token=fresh[0], expect=200)
    second.clock.turn(minutes=2)
    assert second.call("GET", who, token=fresh[1]).json()["error"]["code"] == "expired_token", "it lasted its hour, whatever the clock says"
    second.close()


@pytest.mark.parametrize("workspace", ["nowhere", "..", "%2e%2e", "a%00b"])
def test_nothing_is_written_in_a_workspace_that_is_not_there(yard: YardUnderTest, workspace: str) -> None:
    body = {"name": "rows", "type": "uri_folder", "path": "azureml://datastores/workspaceblobstore/paths/x/"}
    assert yard.call("POST", f"/api/v1/workspaces/{workspace}/data", json=body).status_code in (400, 404)
    assert yard.call("PUT", f"/api/v1/workspaces/{workspace}/computes/cc", json={"type": "local"}).status_code in (400, 404, 405)
    yard.call("GET", "/api/v1/workspaces/nowhere", expect=404)


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("tokens", {"hours": 1, "scope": "default"}, "scope"),
        ("tokens", {"expires_in_hours": 1}, "expires_in_hours"),
        ("principals", {"name": "misspelt", "knid": "service"}, "knid"),
        ("roles", {"Name": "Misspelt", "Actions": ["*"], "NotAction": ["Microsoft.Authorization/*/write"]}, "NotAction"),
        ("roles", {"Name": "Misspelt", "properties": {"permissions": [{"actions": ["*"], "noActions": ["a"]}]}}, "noActions"),
    ],
)
def test_a_misspelt_limit_is_refused_and_not_left_out(yard: YardUnderTest, path: str, body: dict[str, Any], field: str) -> None:
    refused = yard.call("POST", f"/api/v1/{path}", json=body, expect=400).json()["error"]
    assert repr(field) in refused["message"], refused

"""Who is let in, who is refused and how that is remembered; what is said to values that nobody could have meant."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.core.actor import ANY_WORKSPACE
from modelyard.testing.yard import InProcessYard

TOKENS, ROLES, AUDIT = "/api/v1/tokens", "/api/v1/roles", "/api/v1/audit"


def token_of(yard: InProcessYard, name: str, role: str = "", scope: str = ANY_WORKSPACE, **options: Any) -> str:
    yard.call("POST", "/api/v1/principals", json={"name": name}, expect=201)
    if role:
        yard.call("PUT", f"/api/v1/principals/{name}/roles/{role}", params={"workspace_name": scope}, expect=200)
    return str(yard.call("POST", TOKENS, json={"principal": name, **options}, expect=201).json()["token"])


def refusals(yard: InProcessYard) -> list[dict[str, Any]]:
    yard.settle()
    rows = yard.call("GET", AUDIT, params={"limit": 1000}).json()["value"]
    return [row for row in rows if row["event"] == "access.refused"]


# Failed sign-ins


def test_a_caller_who_fails_too_often_waits_and_one_with_a_right_token_does_not(turned: InProcessYard) -> None:
    answers = [turned.call("GET", TOKENS, token=f"yard_x{number}_y") for number in range(40)]
    statuses = [answer.status_code for answer in answers]
    assert statuses[:20] == [401] * 20 and set(statuses[20:]) == {429}
    refused = answers[-1]
    assert 1 <= int(refused.headers["retry-after"]) <= 3 and refused.json()["error"]["code"] == "too_many_failures"
    assert turned.call("GET", TOKENS).status_code == 200, "of the same address"
    assert turned.call("GET", TOKENS, token=token_of(turned, "new")).status_code == 200, "and a token that was never seen"


def test_who_guesses_at_one_token_waits_in_either_dialect(turned: InProcessYard) -> None:
    id = turned.token.split("_")[1]
    statuses = [
        turned.call("GET", "/api/2.0/mlflow/experiments/get", token=f"yard_{id}_{number}", headers={"X": "x"}).status_code
        for number in range(25)
    ]
    assert statuses[0] == 401 and statuses[-1] == 429
    assert turned.call("GET", TOKENS).status_code == 200, "its owner is let in"


def test_refused_requests_leave_one_row_for_many(turned: InProcessYard) -> None:
    reader = token_of(turned, "rita", "Reader")
    turned.settle()
    for _ in range(3):
        turned.call("GET", TOKENS, token="yard_abc123_wrong", expect=401)
        turned.call("GET", TOKENS, token="garbage\x1b[31m", expect=401)
        turned.call("PUT", "/api/v1/workspaces/default/computes/big", json={"type": "amlcompute"}, token=reader, expect=403)
        turned.call("POST", "/api/2.0/mlflow/experiments/create", json={"name": "x"}, token=reader, expect=403)
    rows = {(row["subject"], row["detail"]["status"]): row for row in refusals(turned)}
    assert {key: row["detail"]["count"] for key, row in rows.items()} == {
        ("yard_abc123", 401): 3, ("anonymous", 401): 3, ("rita", 403): 6,
    }  # fmt: skip
    forbidden = rows["rita", 403]
    assert forbidden["workspace"] == "default" and forbidden["detail"]["address"] == "127.0.0.1"
    assert forbidden["detail"]["request"] == "POST /api/2.0/mlflow/experiments/create" and forbidden["detail"]["since"]
    assert "wrong" not in str(rows)
    shown = turned.call("GET", "/api/v1/workspaces/default/audit", expect=200).json()["value"]
    assert [row["subject"] for row in shown if row["event"] == "access.refused"] == ["rita"]


def test_the_callers_that_are_told_apart_are_bounded(turned: InProcessYard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelyard.tenancy.access.refusals.MOST_KEPT", 10)
    for number in range(30):
        turned.call("GET", TOKENS, token=f"yard_id{number}_x")
    rows = refusals(turned)
    assert len(rows) == 12 and sum(row["detail"]["count"] for row in rows) == 30


# Who may what


def test_the_owner_of_a_workspace_gives_roles_in_it_and_nowhere_else(turned: InProcessYard) -> None:
    turned.call("PUT", "/api/v1/workspaces/other", json={}, expect=200)
    owner = token_of(turned, "olga", "Owner", "default")
    token_of(turned, "nick")
    role = "/api/v1/principals/nick/roles/AzureML Data Scientist"
    given = turned.call("PUT", role, params={"workspace_name": "default"}, token=owner, expect=200).json()
    assert given == {"principal": "nick", "role": "AzureML Data Scientist", "workspace": "default"}
    turned.call("DELETE", role, params={"workspace_name": "default"}, token=owner, expect=204)
    turned.call("PUT", role, params={"workspace_name": "other"}, token=owner, expect=404)
    turned.call("PUT", role, params={"workspace_name": "*"}, token=owner, expect=403)
    scientist = token_of(turned, "sam", "AzureML Data Scientist", "default")
    turned.call("PUT", role, params={"workspace_name": "default"}, token=scientist, expect=403)
    rows = turned.call("GET", "/api/v1/workspaces/default/audit", token=owner, expect=200).json()["value"]
    assert [row["event"] for row in rows if row["subject"] == "nick"] == ["role.unassigned", "role.assigned"]


def test_a_scrape_token_reads_the_metrics_and_nothing_else(turned: InProcessYard) -> None:
    scraper = token_of(turned, "prometheus", "Metrics Scraper")
    assert "modelyard_requests_total" in turned.call("GET", "/metrics", token=scraper, expect=200).text
    for path in ("/api/v1/workspaces/default/jobs", "/api/v1/principals", "/api/v1/workspaces/default/models", AUDIT):
        assert turned.call("GET", path, token=scraper).status_code == 403, path
    turned.call("GET", "/metrics", token="none", expect=401)


@pytest.mark.parametrize(("role", "scope"), [("Owner", "default"), ("Reader", "default"), ("AzureML Data Scientist", "*")])
def test_who_may_not_see_every_workspace_reads_no_metrics(turned: InProcessYard, role: str, scope: str) -> None:
    answer = turned.call("GET", "/metrics", token=token_of(turned, "somebody", role, scope))
    assert answer.status_code == (403 if scope == "default" else 200)
    limited = turned.call("POST", TOKENS, json={"workspace": "default"}, expect=201).json()["token"]
    assert turned.call("GET", "/metrics", token=limited).status_code == 403


# The yard's own names, and values that make no sense


@pytest.mark.parametrize("name", ["system", "System", "ｓｙｓｔｅｍ", "job\u00a0train", "sys\u200btem", "a\x1b[31m", "anonymous"])
def test_nobody_takes_a_name_that_could_pass_for_the_yards_own(turned: InProcessYard, name: str) -> None:
    turned.call("POST", "/api/v1/principals", json={"name": name}, expect=400)
    turned.call("POST", ROLES, json={"Name": name, "Actions": ["*/read"]})
    assert name not in {row["name"] for row in turned.call("GET", ROLES).json()["value"]} or name == "job\u00a0train"
    if name.isascii() and name.isalpha():
        turned.call("PUT", f"/api/v1/workspaces/{name}", json={}, expect=400)


MALFORMED: dict[str, list[Any]] = {
    ROLES: [
        {}, {"Name": 1, "Actions": ["x"]}, {"Name": "x"}, {"Name": "x", "Actions": "abc"}, {"Name": "x", "Actions": [1]}, {"Name": "x", "Actions": [None]},
        {"Name": "x", "Actions": {"a": 1}}, {"properties": 7}, {"properties": {"permissions": 5, "roleName": "x"}},
        {"properties": {"permissions": [3], "roleName": "x"}}, {"Name": "x", "Actions": ["a" * 300]}, {"Name": "x", "Actions": ["a"] * 600},
        {"Name": "x" * 300, "Actions": ["a"]}, {"Name": "owner", "Actions": ["a"]}, {"Name": "x", "Actions": ["a"], "Description": ["x"]},
        {"Name": "x", "Actions": ["a"], "NotActions": 5}, {"Name": "x\x1b", "Actions": ["a"]},
    ],
    TOKENS: [
        {"hours": "Infinity"}, {"hours": "NaN"}, {"hours": 1e308}, {"hours": 0}, {"hours": -1}, {"hours": []}, {"description": 3},
        {"principal": {}}, {"workspace": []}, {"description": "\x00"},
    ],
    "/api/v1/principals": [{}, {"name": 3}, {"name": "x", "kind": "god"}, {"name": None}, {"name": ""}],
    "/api/v1/workspaces/default/schedules/s": [
        {}, {"trigger": 3}, {"trigger": {"type": "cron", "expression": "x" * 1_000_000}, "create_job": {}},
        *({"trigger": {"type": "cron", "expression": expression}, "create_job": {"job": {"type": "command", "command": "x", "environment": {"pip": []}}}}
          for expression in ("", "* * * *", "99 * * * *", "* * * * * * * *", "0 0 31 2 *", "0 0 30 2 *", "*/0 * * * *", "1-0 * * * *", "\x00")),
        *({"trigger": {"type": "recurrence", "frequency": "day", "interval": interval}, "create_job": {"job": {"type": "command", "command": "x", "environment": {"pip": []}}}}
          for interval in (0, -1, "Infinity", 10**18, 1e300, "x", None)),
        *({"trigger": {"type": "cron", "expression": "0 0 * * *", **more}, "create_job": {"job": {"type": "command", "command": "x", "environment": {"pip": []}}}}
          for more in ({"time_zone": "Nowhere"}, {"time_zone": "../../etc/passwd"}, {"time_zone": "\x00"}, {"time_zone": "x" * 10_000}, {"time_zone": "/etc/passwd"},
                       {"start_time": "x"}, {"start_time": "99999-01-01"}, {"end_time": "x" * 10_000}, {"start_time": 1e300}, {"end_time": "0000-00-00"})),
    ],
    "/api/v1/workspaces/default/components": [
        {"name": "c", "type": "command", "command": "x", "environment": {"pip": []}, "inputs": {"i": {"type": type_, field: value}}}
        for type_, field, value in [
            ("number", "default", "Infinity"), ("number", "default", "-inf"), ("number", "default", "nan"), ("integer", "default", "Infinity"), ("integer", "default", "1e400"),
            ("number", "min", "Infinity"), ("number", "max", "x"), ("integer", "min", "nan"), ("integer", "default", "9" * 5000), ("number", "default", "9" * 5000),
        ]
    ],
}  # fmt: skip
CASES = [(path, number) for path, bodies in MALFORMED.items() for number in range(len(bodies))]


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Any:
    yard = InProcessYard(tmp_path_factory.mktemp("patient") / "home")
    yield yard
    yard.close()


@pytest.mark.parametrize(("path", "number"), CASES)
def test_what_makes_no_sense_is_a_400(patient: InProcessYard, path: str, number: int) -> None:
    body = MALFORMED[path][number]
    answer = patient.call("PUT" if "schedules" in path else "POST", path, json=body)
    assert answer.status_code == 400, f"{body}: {answer.text}"
    assert answer.json()["error"]["message"]

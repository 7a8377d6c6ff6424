"""MLflow's REST protocol on both databases: semantics, limits, error codes (reference `mlflow-protocol`)."""

from __future__ import annotations

from typing import Any

import pytest

from checked_yard import YardUnderTest

COUNTER = iter(range(10**6))


def experiment(yard: YardUnderTest) -> str:
    return str(yard.mlflow("POST", "experiments/create", {"name": f"e{next(COUNTER)}-{yard.home.parent.name}"})["experiment_id"])


def new_run(yard: YardUnderTest, id: str, **fields: Any) -> str:
    return str(yard.mlflow("POST", "runs/create", {"experiment_id": id, "start_time": 1000, **fields})["run"]["info"]["run_id"])


def refused(
    yard: YardUnderTest, path: str, body: Any, code: str = "INVALID_PARAMETER_VALUE", status: int = 400, method: str = "POST"
) -> str:
    answer = yard.mlflow(method, path, body, expect=status)
    assert answer["error_code"] == code, answer
    return str(answer["message"])


def test_experiments_live_and_die_as_in_mlflow(any_yard: YardUnderTest) -> None:
    yard = any_yard
    assert yard.mlflow("GET", "experiments/get", experiment_id="0")["experiment"]["name"] == "Default"
    id = experiment(yard)
    name = yard.mlflow("GET", "experiments/get", experiment_id=id)["experiment"]["name"]
    refused(yard, "experiments/create", {"name": name}, "RESOURCE_ALREADY_EXISTS")
    yard.mlflow("GET", "experiments/get-by-name", experiment_name="no such", expect=404)
    yard.mlflow("POST", "experiments/delete", {"experiment_id": id})
    assert yard.mlflow("GET", "experiments/get", experiment_id=id)["experiment"]["lifecycle_stage"] == "deleted"
    refused(yard, "runs/create", {"experiment_id": id})
    yard.mlflow("POST", "experiments/restore", {"experiment_id": id})
    yard.mlflow("POST", "experiments/set-experiment-tag", {"experiment_id": id, "key": "team", "value": "blue"})
    found = yard.mlflow("POST", "experiments/search", {"filter": "tags.team = 'blue'", "max_results": 10})["experiments"]
    assert id in [item["experiment_id"] for item in found]


def test_params_are_written_once(any_yard: YardUnderTest) -> None:
    run = new_run(any_yard, experiment(any_yard))
    any_yard.mlflow("POST", "runs/log-parameter", {"run_id": run, "key": "p", "value": "1"})
    any_yard.mlflow("POST", "runs/log-parameter", {"run_id": run, "key": "p", "value": "1"})
    assert "Changing param values is not allowed" in refused(any_yard, "runs/log-parameter", {"run_id": run, "key": "p", "value": "2"})
    refused(any_yard, "runs/log-batch", {"run_id": run, "params": [{"key": "q", "value": "1"}, {"key": "q", "value": "1"}]})
    any_yard.mlflow("POST", "runs/log-parameter", {"run_id": run, "key": "long", "value": "x" * 6001})
    params = {item["key"]: item["value"] for item in any_yard.mlflow("GET", "runs/get", run_id=run)["run"]["data"]["params"]}
    assert params == {"p": "1", "long": "x" * 6000}


def test_a_batch_is_all_or_nothing(any_yard: YardUnderTest) -> None:
    run = new_run(any_yard, experiment(any_yard))
    any_yard.mlflow("POST", "runs/log-parameter", {"run_id": run, "key": "p", "value": "1"})
    body = {
        "run_id": run,
        "metrics": [{"key": "m", "value": 1, "timestamp": 1, "step": 0}],
        "params": [{"key": "p", "value": "other"}],
        "tags": [{"key": "t", "value": "x"}],
    }
    refused(any_yard, "runs/log-batch", body)
    data = any_yard.mlflow("GET", "runs/get", run_id=run)["run"]["data"]
    assert "metrics" not in data and "t" not in {tag["key"] for tag in data["tags"]}


@pytest.mark.parametrize(("kind", "limit"), [("metrics", 1000), ("params", 100), ("tags", 100)])
def test_batches_have_mlflows_limits(any_yard: YardUnderTest, kind: str, limit: int) -> None:
    run = new_run(any_yard, experiment(any_yard))

    def items(count: int) -> list[dict[str, Any]]:
        return [
            {"key": f"k{n}", "value": 1 if kind == "metrics" else "1", "timestamp": 1}
            if kind == "metrics"
            else {"key": f"k{n}", "value": "1"}
            for n in range(count)
        ]

    any_yard.mlflow("POST", "runs/log-batch", {"run_id": run, kind: items(limit)})
    refused(any_yard, "runs/log-batch", {"run_id": run, kind: items(limit + 1)})


def test_metrics_keep_history_and_the_latest_by_step_then_time_then_value(any_yard: YardUnderTest) -> None:
    run = new_run(any_yard, experiment(any_yard))
    points = [(5, 10, 2.0), (5, 10, 3.0), (4, 99, 9.0), (5, 10, 2.0), (-1, 1, 0.5)]
    any_yard.mlflow(
        "POST", "runs/log-batch", {"run_id": run, "metrics": [{"key": "m", "value": v, "timestamp": t, "step": s} for s, t, v in points]}
    )
    latest = any_yard.mlflow("GET", "runs/get", run_id=run)["run"]["data"]["metrics"]
    assert latest == [{"key": "m", "value": 3.0, "timestamp": 10, "step": 5}]
    history = any_yard.mlflow("GET", "metrics/get-history", run_id=run, metric_key="m")["metrics"]
    assert [(p["step"], p["timestamp"], p["value"]) for p in history] == [(-1, 1, 0.5), (4, 99, 9.0), (5, 10, 2.0), (5, 10, 3.0)]
    first = any_yard.mlflow("GET", "metrics/get-history", run_id=run, metric_key="m", max_results=3)
    rest = any_yard.mlflow("GET", "metrics/get-history", run_id=run, metric_key="m", max_results=3, page_token=first["next_page_token"])
    assert first["metrics"] + rest["metrics"] == history and "next_page_token" not in rest


def test_numbers_that_json_cannot_spell_come_as_text(any_yard: YardUnderTest) -> None:
    run = new_run(any_yard, experiment(any_yard))
    for key, value in (("nan", "NaN"), ("inf", "Infinity"), ("neg", "-Infinity")):
        any_yard.mlflow("POST", "runs/log-metric", {"run_id": run, "key": key, "value": value, "timestamp": "5", "step": "1"})
    found = {m["key"]: m["value"] for m in any_yard.mlflow("GET", "runs/get", run_id=run)["run"]["data"]["metrics"]}
    assert found == {"nan": "NaN", "inf": 1.7976931348623157e308, "neg": -1.7976931348623157e308}


@pytest.mark.parametrize(
    "body",
    [
        {"key": "m", "value": "text", "timestamp": 1},
        {"key": "m", "value": 1, "timestamp": 2**63},
        {"key": "m", "value": 1, "timestamp": 1, "step": 2**63},
        {"key": "m", "timestamp": 1},
        {"value": 1, "timestamp": 1},
        {"key": "../up", "value": 1, "timestamp": 1},
        {"key": "a" * 251, "value": 1, "timestamp": 1},
        {"key": "nul\x00", "value": 1, "timestamp": 1},
        {"key": "m", "value": 1, "timestamp": -1},
    ],
)
def test_impossible_metrics_are_refused(any_yard: YardUnderTest, body: dict[str, Any]) -> None:
    refused(any_yard, "runs/log-metric", {"run_id": new_run(any_yard, "0"), **body})


def test_runs_are_searched_with_the_whole_grammar(any_yard: YardUnderTest) -> None:
    yard = any_yard
    id = experiment(yard)
    runs = {}
    for name, rmse, model in (("a", 0.3, "tree"), ("b", 0.1, "Linear"), ("c", None, "tree"), ("d", "NaN", "net")):
        run = new_run(yard, id, run_name=name, start_time=1000 + len(runs))
        runs[name] = run
        yard.mlflow("POST", "runs/log-batch", {"run_id": run, "params": [{"key": "model", "value": model}], "tags": [{"key": "odd key", "value": name}],
            **({"metrics": [{"key": "rmse", "value": rmse, "timestamp": 1}]} if rmse is not None else {})})  # fmt: skip

    def found(filter: str = "", order: list[str] | None = None) -> str:
        body = {"experiment_ids": [id], "filter": filter, "order_by": order or ["attributes.run_name ASC"]}
        return "".join(run["info"]["run_name"] for run in yard.mlflow("POST", "runs/search", body).get("runs", []))

    assert found() == "abcd"
    assert found("metrics.rmse < 0.2") == "b"
    assert found("metrics.rmse >= 0.1 AND params.model = 'tree'") == "a"
    assert found("params.model LIKE 'T%'") == "" and found("params.model ILIKE 't%'") == "ac"
    assert found("params.model != 'tree'") == "bd"
    assert (
        found("tags.`odd key` = 'c'") == "c" and found("tags.missing IS NULL") == "abcd" and found('tags."odd key" IS NOT NULL') == "abcd"
    )
    assert found(f"attributes.run_id IN ('{runs['a']}', '{runs['d']}')") == "ad"
    assert found("attributes.start_time > 1001") == "cd"
    assert found(order=["metrics.rmse ASC"]) == "badc" and found(order=["metrics.rmse DESC"])[:2] == "ab"
    assert found(order=["params.model", "start_time DESC"]) in ("bdca", "dcab")
    for wrong in (
        "rmse <",
        "metrics.rmse = 'x'",
        "params.model > 'x'",
        "foo.bar = 'x'",
        "a OR b",
        "metrics.rmse < 1 OR metrics.rmse > 2",
        "('" * 5000,
    ):
        refused(yard, "runs/search", {"experiment_ids": [id], "filter": wrong})


def test_pages_follow_each_other_and_forged_tokens_are_refused(any_yard: YardUnderTest) -> None:
    id = experiment(any_yard)
    made = {new_run(any_yard, id) for _ in range(5)}
    seen: list[str] = []
    token = None
    while True:
        page = any_yard.mlflow("POST", "runs/search", {"experiment_ids": [id], "max_results": 2, "page_token": token})
        seen += [run["info"]["run_id"] for run in page["runs"]]
        token = page.get("next_page_token")
        if not token:
            break
    assert len(seen) == 5 and set(seen) == made
    for forged in ("nonsense", "e30=", "WzEsMl0=", "[" * 2000):
        refused(any_yard, "runs/search", {"experiment_ids": [id], "page_token": forged})
    refused(any_yard, "runs/search", {"experiment_ids": [id], "max_results": 50_001})


def test_deleted_runs_refuse_writes_and_come_back(any_yard: YardUnderTest) -> None:
    id = experiment(any_yard)
    run = new_run(any_yard, id)
    any_yard.mlflow("POST", "runs/delete", {"run_id": run})
    refused(any_yard, "runs/set-tag", {"run_id": run, "key": "a", "value": "b"})
    assert any_yard.mlflow("POST", "runs/search", {"experiment_ids": [id]}) == {}
    assert len(any_yard.mlflow("POST", "runs/search", {"experiment_ids": [id], "run_view_type": "DELETED_ONLY"})["runs"]) == 1
    any_yard.mlflow("POST", "runs/restore", {"run_id": run})
    any_yard.mlflow("POST", "runs/set-tag", {"run_id": run, "key": "a", "value": "b"})
    any_yard.mlflow("GET", "runs/get", run_id="f" * 32, expect=404)


def test_the_registry_versions_aliases_and_stages(any_yard: YardUnderTest) -> None:
    yard = any_yard
    name = f"model {next(COUNTER)}"
    run = new_run(yard, "0")
    yard.call("PUT", f"/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/m/MLmodel", content=b"flavors: {}", expect=200)
    yard.mlflow("POST", "registered-models/create", {"name": name, "tags": [{"key": "k", "value": "v"}]})
    refused(yard, "registered-models/create", {"name": name}, "RESOURCE_ALREADY_EXISTS")
    refused(yard, "registered-models/create", {"name": "a/b"})
    for _ in range(2):
        yard.mlflow("POST", "model-versions/create", {"name": name, "source": f"runs:/{run}/m", "run_id": run})
    yard.mlflow("POST", "registered-models/alias", {"name": name, "alias": "champion", "version": "1"})
    assert yard.mlflow("GET", "registered-models/alias", name=name, alias="champion")["model_version"]["version"] == "1"
    for alias in ("latest", "v3", "has space", ""):
        refused(yard, "registered-models/alias", {"name": name, "alias": alias, "version": "1"})
    yard.mlflow(
        "POST", "model-versions/transition-stage", {"name": name, "version": "2", "stage": "production", "archive_existing_versions": True}
    )
    latest = yard.mlflow("POST", "registered-models/get-latest-versions", {"name": name})["model_versions"]
    assert [(v["version"], v["current_stage"]) for v in latest] == [("1", "None"), ("2", "Production")]
    assert [v["version"] for v in yard.mlflow("GET", "model-versions/search", filter=f"name = '{name}'")["model_versions"]] == ["2", "1"]
    uri = yard.mlflow("GET", "model-versions/get-download-uri", name=name, version="1")["artifact_uri"]
    path = uri.removeprefix("mlflow-artifacts:/")
    assert yard.call("GET", f"/api/2.0/mlflow-artifacts/artifacts/{path}/MLmodel", expect=200).content == b"flavors: {}"
    yard.mlflow("DELETE", "model-versions/delete", {"name": name, "version": "1"})
    yard.mlflow("GET", "model-versions/get", name=name, version="1", expect=404)
    yard.mlflow("DELETE", "registered-models/delete", {"name": name})
    yard.mlflow("GET", "registered-models/get", name=name, expect=404)


@pytest.mark.parametrize(
    "source",
    [
        "/etc/passwd",
        "file:///etc",
        "http://169.254.169.254/x",
        "mlflow-artifacts:/0/../../etc",
        "mlflow-artifacts:/x#y",
        "s3://b/../k",
        "runs:/none/x",
    ],
)
def test_a_version_whose_source_leads_elsewhere_is_refused(any_yard: YardUnderTest, source: str) -> None:
    name = f"m{next(COUNTER)}"
    any_yard.mlflow("POST", "registered-models/create", {"name": name})
    answer = any_yard.call("POST", "/api/2.0/mlflow/model-versions/create", json={"name": name, "source": source})
    assert answer.status_code in (400, 404), answer.text


@pytest.mark.parametrize("path", ["../../control/yard.db", "%2e%2e/x", "a/%2e%2e/%2e%2e/x", "a%5c..%5cx", "a%00b", "//etc/passwd", "a/./b"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_artifact_paths_that_lead_out_are_refused(any_yard: YardUnderTest, method: str, path: str) -> None:
    run = new_run(any_yard, "0")
    import http.client

    connection = http.client.HTTPConnection(any_yard.url.removeprefix("http://"))
    connection.putrequest(method, f"/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/{path}", skip_accept_encoding=True)
    connection.putheader("Authorization", f"Bearer {any_yard.token}")
    connection.putheader("Content-Length", "0")
    connection.endheaders()
    status = connection.getresponse().status
    connection.close()
    assert status in (400, 404)


def test_artifacts_come_back_as_attachments_with_ranges(any_yard: YardUnderTest) -> None:
    run = new_run(any_yard, "0")
    base = f"/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts"
    any_yard.call("PUT", f"{base}/a/b.html", content=b"<script>", expect=200)
    any_yard.call("PUT", f"{base}/a", content=b"x", expect=409)
    any_yard.call("PUT", f"{base}/a/b.html/c", content=b"x", expect=409)
    answer = any_yard.call("GET", f"{base}/a/b.html", expect=200)
    assert answer.headers["content-disposition"].startswith("attachment") and "sandbox" in answer.headers["content-security-policy"]
    assert any_yard.call("GET", f"{base}/a/b.html", headers={"Range": "bytes=-3"}, expect=206).content == b"pt>"
    assert any_yard.call("GET", f"{base}/a/b.html", headers={"Range": "bytes=50-"}, expect=416)
    listed = any_yard.call("GET", "/api/2.0/mlflow-artifacts/artifacts", params={"path": f"0/{run}/artifacts"}, expect=200).json()
    assert listed == {"files": [{"path": "a", "is_dir": True}]}
    assert any_yard.mlflow("GET", "artifacts/list", run_id=run, path="a")["files"] == [
        {"path": "a/b.html", "is_dir": False, "file_size": 8}
    ]
    any_yard.call("GET", f"{base}/none", expect=404)
    any_yard.call("PUT", f"/api/2.0/mlflow-artifacts/artifacts/0/{'f' * 32}/artifacts/x", content=b"x", expect=404)


def test_logged_models_are_made_finished_and_found(any_yard: YardUnderTest) -> None:
    id = experiment(any_yard)
    run = new_run(any_yard, id)
    made = any_yard.mlflow(
        "POST", "logged-models", {"experiment_id": id, "name": "m", "source_run_id": run, "params": [{"key": "p", "value": "1"}]}
    )["model"]
    model = made["info"]["model_id"]
    assert made["info"]["status"] == "LOGGED_MODEL_PENDING"
    assert (
        any_yard.mlflow("PATCH", f"logged-models/{model}", {"status": "LOGGED_MODEL_READY"})["model"]["info"]["status"]
        == "LOGGED_MODEL_READY"
    )
    any_yard.mlflow("PATCH", f"logged-models/{model}/tags", {"tags": [{"key": "t", "value": "x"}]})
    any_yard.mlflow("POST", "runs/outputs", {"run_id": run, "models": [{"model_id": model, "step": 3}]})
    any_yard.mlflow("POST", "runs/log-metric", {"run_id": run, "key": "acc", "value": 0.9, "timestamp": 1, "model_id": model})
    found = any_yard.mlflow("POST", "logged-models/search", {"experiment_ids": [id], "filter": "metrics.acc > 0.5"})["models"]
    assert [item["info"]["model_id"] for item in found] == [model] and found[0]["data"]["metrics"][0]["value"] == 0.9
    assert any_yard.mlflow("GET", "runs/get", run_id=run)["run"]["outputs"]["model_outputs"] == [{"model_id": model, "step": 3}]
    any_yard.mlflow("DELETE", f"logged-models/{model}", {})
    any_yard.mlflow("GET", f"logged-models/{model}", expect=404)


def test_unknown_endpoints_and_prefixes_answer_as_mlflow(any_yard: YardUnderTest) -> None:
    assert any_yard.mlflow("GET", "nothing/here", expect=404)["error_code"] == "ENDPOINT_NOT_FOUND"
    for prefix in ("/api/2.0", "/api/3.0", "/ajax-api/2.0", "/ws/default/api/2.0"):
        assert (
            any_yard.call("GET", f"{prefix}/mlflow/experiments/get?experiment_id=0", expect=200).json()["experiment"]["name"] == "Default"
        )
    assert any_yard.call("GET", "/health").text == "OK" and any_yard.call("GET", "/version").status_code == 200


def test_refusals_are_quick_even_for_what_is_huge(any_yard: YardUnderTest) -> None:
    any_yard.call(
        "POST", "/api/2.0/mlflow/runs/search", json={"experiment_ids": ["0"], "filter": "metrics.a < 1 AND " * 50_000}, timeout=30
    )
    any_yard.call("POST", "/api/2.0/mlflow/runs/search", content=b'{"a":' * 100_000, timeout=30)

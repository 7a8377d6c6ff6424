"""Tracking: pages by position, charts, names that come free, migration, multi-part artifacts."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from checked_yard import YardUnderTest
from modelyard.work.tracking.model import downsample, sampled_steps

COUNTER = itertools.count()


def experiment(yard: YardUnderTest) -> str:
    return str(yard.mlflow("POST", "experiments/create", {"name": f"tracking-{next(COUNTER)}"})["experiment_id"])


def run_with(yard: YardUnderTest, id: str, *, start: int = 1000, **batch: Any) -> str:
    run = str(yard.mlflow("POST", "runs/create", {"experiment_id": id, "start_time": start})["run"]["info"]["run_id"])
    if batch:
        yard.mlflow("POST", "runs/log-batch", {"run_id": run, **batch})
    return run


def metric(value: Any, key: str = "m") -> dict[str, Any]:
    return {"key": key, "value": value, "timestamp": 1, "step": 0}


ORDERS = [
    [], ["metrics.m DESC"], ["metrics.m ASC"], ["params.p ASC", "metrics.m DESC"], ["tags.t DESC"], ["start_time ASC"],
    ["metrics.m DESC", "metrics.n ASC"], ["attributes.end_time DESC"], ["status", "metrics.m"],
]  # fmt: skip


@pytest.fixture(scope="module")
def mixed(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {}


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_pages_of_any_order_hold_every_run_once(any_yard: YardUnderTest, mixed: dict[str, Any], order: list[str]) -> None:
    """Ties, NaN, infinities, what is missing: small pages put together are the one large page."""
    if any_yard.url not in mixed:
        id = experiment(any_yard)
        for index in range(23):
            batch: dict[str, Any] = {"tags": [{"key": "t", "value": str(index % 3)}] if index % 4 else []}
            if index % 5:
                batch["metrics"] = [metric([0.5, "NaN", -1, "Infinity", 0.5][index % 5]), metric(index % 2, "n")]
            if index % 3:
                batch["params"] = [{"key": "p", "value": f"v{index % 4}"}]
            run = run_with(any_yard, id, start=1000 + index // 4, **batch)
            if index % 2:
                any_yard.mlflow("POST", "runs/update", {"run_id": run, "status": "FINISHED", "end_time": 2000 + index // 3})
        mixed[any_yard.url] = id
    body = {"experiment_ids": [mixed[any_yard.url]], "order_by": order}
    whole = [run["info"]["run_id"] for run in any_yard.mlflow("POST", "runs/search", body)["runs"]]
    assert len(whole) == len(set(whole)) == 23
    for size in (1, 4, 22, 23):
        seen: list[str] = []
        token = None
        while True:
            page = any_yard.mlflow("POST", "runs/search", {**body, "max_results": size, "page_token": token})
            seen += [run["info"]["run_id"] for run in page["runs"]]
            token = page.get("next_page_token")
            if token is None:
                break
        assert seen == whole


def test_ordered_by_a_metric_nan_comes_after_values_and_what_lacks_it_last(any_yard: YardUnderTest) -> None:
    id = experiment(any_yard)
    named = {name: run_with(any_yard, id, metrics=[metric(value)]) for name, value in (("low", 1), ("high", 2), ("nan", "NaN"))}
    named["none"] = run_with(any_yard, id)
    for order, expected in (("DESC", ["high", "low", "nan", "none"]), ("ASC", ["low", "high", "nan", "none"])):
        found = any_yard.mlflow("POST", "runs/search", {"experiment_ids": [id], "order_by": [f"metrics.m {order}"]})["runs"]
        assert [run["info"]["run_id"] for run in found] == [named[name] for name in expected]


@pytest.mark.parametrize("token", ["x", "eyJvZmZzZXQiOiAxfQ==", "WzksMV0=", "WzAsImEiLCJiIl0=", "WzBd", 5, "WzAsMSwyLDMsNCw1XQ=="])
def test_a_page_token_that_is_not_ours_is_refused(any_yard: YardUnderTest, token: Any) -> None:
    id = experiment(any_yard)
    run_with(any_yard, id)
    for order in ([], ["metrics.m DESC"]):
        answer = any_yard.call(
            "POST", "/api/2.0/mlflow/runs/search", json={"experiment_ids": [id], "page_token": token, "order_by": order, "max_results": 1}
        )
        assert answer.status_code in (200, 400), answer.text
        if answer.status_code == 400:
            assert answer.json()["error_code"] == "INVALID_PARAMETER_VALUE"
    assert any_yard.call("POST", "/api/2.0/mlflow/runs/search", json={"experiment_ids": [id], "page_token": "x"}).status_code == 400


def test_a_deleted_experiment_gives_its_name_free(any_yard: YardUnderTest) -> None:
    id = experiment(any_yard)
    name = any_yard.mlflow("GET", "experiments/get", experiment_id=id)["experiment"]["name"]
    run = run_with(any_yard, id)
    any_yard.mlflow("POST", "experiments/delete", {"experiment_id": id})
    any_yard.mlflow("GET", "experiments/get-by-name", experiment_name=name, expect=404)
    again = any_yard.mlflow("POST", "experiments/create", {"name": name})["experiment_id"]
    assert any_yard.mlflow("GET", "experiments/get-by-name", experiment_name=name)["experiment"]["experiment_id"] == again != id
    taken = any_yard.mlflow("POST", "experiments/restore", {"experiment_id": id}, expect=400)
    assert taken["error_code"] == "RESOURCE_ALREADY_EXISTS"
    any_yard.mlflow("POST", "experiments/update", {"experiment_id": again, "new_name": name + "-new"})
    any_yard.mlflow("POST", "experiments/restore", {"experiment_id": id})
    assert any_yard.mlflow("GET", "runs/get", run_id=run)["run"]["info"]["lifecycle_stage"] == "active"


def test_metrics_of_logged_models_name_their_dataset(any_yard: YardUnderTest) -> None:
    id = experiment(any_yard)
    run = run_with(any_yard, id)
    made = {"experiment_id": id, "name": "lm", "source_run_id": run, "params": [{"key": "depth", "value": "3"}]}
    model = any_yard.mlflow("POST", "logged-models", made)["model"]["info"]["model_id"]
    for name, value in (("train", 0.9), ("test", 0.4)):
        point = {**metric(value), "run_id": run, "model_id": model, "dataset_name": name, "dataset_digest": "d"}
        any_yard.mlflow("POST", "runs/log-metric", point)

    def found(**fields: Any) -> bool:
        return bool(any_yard.mlflow("POST", "logged-models/search", {"experiment_ids": [id], **fields}).get("models"))

    assert found(filter="metrics.m > 0.8", datasets=[{"dataset_name": "train"}])
    assert not found(filter="metrics.m > 0.8", datasets=[{"dataset_name": "test", "dataset_digest": "d"}])
    assert found(filter="params.depth = '3'") and not found(filter="params.depth = '4'") and found(filter="tags.x IS NULL")
    assert found(order_by=[{"field_name": "metrics.m", "ascending": False}])
    any_yard.mlflow("POST", "runs/log-metric", {**metric(1), "run_id": run, "model_id": "m-none"}, expect=404)
    metrics = any_yard.mlflow("GET", f"logged-models/{model}")["model"]["data"]["metrics"]
    assert {(item["dataset_name"], item["value"]) for item in metrics} == {("train", 0.9), ("test", 0.4)}


def test_a_long_history_is_read_in_pages_and_sampled(any_yard: YardUnderTest) -> None:
    run = run_with(any_yard, experiment(any_yard))
    for start in range(0, 3000, 1000):
        points = [
            {"key": "loss", "value": 99 if step == 1234 else math.sin(step), "timestamp": step, "step": step}
            for step in range(start, start + 1000)
        ]
        any_yard.mlflow("POST", "runs/log-batch", {"run_id": run, "metrics": points})
    seen: list[int] = []
    token = None
    while True:
        asked = {"run_id": run, "metric_key": "loss", "max_results": 700, **({"page_token": token} if token else {})}
        page = any_yard.mlflow("GET", "metrics/get-history", **asked)
        seen += [point["step"] for point in page["metrics"]]
        token = page.get("next_page_token")
        if not token:
            break
    assert seen == list(range(3000))
    sampled = any_yard.mlflow("GET", "metrics/get-history-bulk-interval", run_ids=run, metric_key="loss", max_results=100)["metrics"]
    assert 100 <= len(sampled) <= 102 and sampled[0]["step"] == 0 and sampled[-1]["step"] == 2999
    chart = any_yard.call("GET", f"/api/v1/workspaces/default/runs/{run}/metrics/loss?points=100", expect=200).json()["value"]
    assert len(chart) <= 100 and max(point["value"] for point in chart) == 99


def test_sampling_keeps_peaks_and_ends() -> None:
    points = [(step, step, 1000.0 if step == 777 else -5.0 if step == 778 else 0.0, False) for step in range(10_000)]
    kept = downsample(points, 50)
    assert len(kept) <= 50 and kept[0] == points[0] and kept[-1] == points[-1]
    assert {1000.0, -5.0} <= {point[2] for point in kept} and kept == sorted(kept)
    assert downsample(points[:50], 50) == points[:50]
    assert sampled_steps([[0, 5, 9], [2]], 100) == {0, 2, 5, 9}
    assert {0, 999} <= sampled_steps([list(range(1000))], 10)


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("experiments/create", {"name": 123}, "Invalid value 123 for parameter 'name' supplied"),
        ("experiments/create", {}, "Missing value for required parameter 'name'"),
        ("runs/create", {"experiment_id": 5}, "Invalid value 5 for parameter 'experiment_id' supplied"),
        ("runs/create", {"experiment_id": "x"}, "Invalid experiment ID 'x'"),
        ("runs/log-metric", {"run_id": "r", "key": 41, "value": 1, "timestamp": 1}, "Invalid value 41 for parameter 'key' supplied"),
        ("runs/log-batch", {"run_id": "r", "metrics": [{"key": "k", "value": 1, "timestamp": "q"}]}, "'metrics[0].timestamp'"),
        ("runs/search", {"experiment_ids": "0"}, "for parameter 'experiment_ids' supplied"),
        ("runs/search", {"experiment_ids": ["0"], "max_results": 0}, "Invalid value 0 for parameter 'max_results' supplied"),
        ("model-versions/create", {"name": "n", "source": 5}, "Invalid value 5 for parameter 'source' supplied"),
    ],
)
def test_a_wrong_request_is_refused_in_mlflows_words(any_yard: YardUnderTest, path: str, body: Any, words: str) -> None:
    answer = any_yard.mlflow("POST", path, body, expect=400)
    assert answer["error_code"] == "INVALID_PARAMETER_VALUE" and words in answer["message"]


def test_bare_nan_as_python_writes_it_is_understood(yard: YardUnderTest) -> None:
    run = run_with(yard, experiment(yard))
    text = b'{"run_id": "%s", "key": "m", "value": NaN, "timestamp": 1}' % run.encode()
    yard.call("POST", "/api/2.0/mlflow/runs/log-metric", content=text, expect=200)
    assert yard.mlflow("GET", "runs/get", run_id=run)["run"]["data"]["metrics"][0]["value"] == "NaN"


def test_an_artifact_comes_in_parts_and_is_read_by_range(any_yard: YardUnderTest) -> None:
    id = experiment(any_yard)
    run = run_with(any_yard, id)
    folder = f"/api/2.0/mlflow-artifacts/mpu/%s/{id}/{run}/artifacts/big"
    parts = [bytes([index]) * 300_000 for index in range(3)]
    begun = any_yard.call("POST", folder % "create", json={"path": "/tmp/big.bin", "num_parts": 3}, expect=200).json()
    etags = {}
    for credential in reversed(begun["credentials"]):
        number = credential["part_number"]
        sent = any_yard.call("PUT", credential["url"].removeprefix(any_yard.url), content=parts[number - 1], expect=200)
        etags[number] = sent.headers["etag"]
    unfinished = {"path": "big.bin", "upload_id": begun["upload_id"], "parts": [{"part_number": 4, "etag": "x"}]}
    assert "have not come" in any_yard.call("POST", folder % "complete", json=unfinished, expect=400).json()["message"]
    finished = {**unfinished, "parts": [{"part_number": number, "etag": etags[number]} for number in etags]}
    any_yard.call("POST", folder % "complete", json=finished, expect=200)
    path = f"/api/2.0/mlflow-artifacts/artifacts/{id}/{run}/artifacts/big/big.bin"
    assert hashlib.sha256(any_yard.call("GET", path, expect=200).content).digest() == hashlib.sha256(b"".join(parts)).digest()
    middle = any_yard.call("GET", path, headers={"Range": "bytes=299999-300001"}, expect=206)
    assert middle.content == b"\x00\x01\x01"
    again = any_yard.call("POST", folder % "create", json={"path": "x", "num_parts": 1}, expect=200).json()
    any_yard.call("POST", folder % "abort", json={"path": "x", "upload_id": again["upload_id"]}, expect=200)
    any_yard.call("POST", folder % "create", json={"path": "x", "num_parts": 0}, expect=400)


EARLY = {
    "SELECT name FROM experiments WHERE deleted_ms > 0": ("gone",),
    "SELECT count(*), sum(deleted_ms IS NOT NULL) FROM runs": (4, 1),
    "SELECT name FROM registered_models": ("old-model",),
}
WORKFLOWS = {
    "SELECT name, enabled FROM schedules": ("every-night", 1),
    "SELECT step, state FROM pipeline_steps": ("one", "Completed"),
    "SELECT count(*), count(parent) FROM jobs": (2, 1),
    "SELECT count(*), count(key_of) FROM tokens": (1, 0),
}
SERVING = {
    "SELECT name, last_modified_by FROM schedules": ("every-night", "admin"),
    "SELECT name, state FROM jobs WHERE parent IS NULL": ("kept", "Completed"),
    "SELECT count(*), count(on_behalf_of) FROM tokens": (2, 0),
    "SELECT count(*), sum(instr(answer, 'yard_')) FROM idempotency": (3, 0),
}


@pytest.mark.parametrize(("release", "kept"), [("0001", EARLY), ("0002", EARLY), ("0003", WORKFLOWS), ("0004", SERVING)])
def test_a_database_of_an_earlier_release_is_brought_up_to_date(release: str, kept: dict[str, tuple[Any, ...]], tmp_path: Path) -> None:
    from modelyard.storage.migrate import migrate
    from modelyard.storage.open import open_database

    with sqlite3.connect(tmp_path / "yard.db") as old:
        old.executescript((Path(__file__).parents[1] / "fixtures" / f"yard-{release}.sql").read_text())
    old.close()
    db: Any = open_database(f"sqlite:///{tmp_path / 'yard.db'}")
    assert migrate(db, tmp_path / "backups")
    assert list((tmp_path / "backups").iterdir())
    assert {query: tuple(db.read_now(lambda unit, query=query: unit.row(sa.text(query)))) for query in kept} == kept
    db.close()


@pytest.mark.parametrize(("written", "program"), [("parallel", "parallel"), ("something", None)])
def test_a_parallel_step_that_waits_in_the_queue_of_an_earlier_release_keeps_its_program(
    written: str, program: str | None, tmp_path: Path
) -> None:
    from modelyard.storage.migrate import migrate
    from modelyard.storage.open import open_database
    from modelyard.work.jobs import store

    with sqlite3.connect(tmp_path / "yard.db") as old:
        old.executescript((Path(__file__).parents[1] / "fixtures" / "yard-0004.sql").read_text())
        name, text = old.execute("SELECT name, spec FROM jobs WHERE type = 'command'").fetchone()
        spec = json.loads(text)
        spec["properties"] = {**spec.get("properties", {}), "mine": 1, "modelyard.program": written}
        old.execute("UPDATE jobs SET spec = ?, state = 'Queued' WHERE name = ?", (json.dumps(spec), name))
    old.close()
    db: Any = open_database(f"sqlite:///{tmp_path / 'yard.db'}")
    migrate(db, tmp_path / "backups")
    record = db.read_now(lambda unit: store.get_anywhere(unit, name))
    assert record.program == program
    shown = record.document()["properties"]
    assert shown["mine"] == 1 and ("modelyard.program" in shown) == (program is None)
    db.close()

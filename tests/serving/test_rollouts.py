"""Rollouts: traffic moves step by step to a deployment that answers well, and comes back from one that does not."""

from __future__ import annotations

import concurrent.futures
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from checked_yard import YardUnderTest
from endpoints import ENDPOINT, call_endpoint, deploy_script, post
from modelyard.testing.waiting import wait_for

NAMES = """
import os, time
def init(): pass
def run(data):
    if os.environ.get("FAILS") and int(data or 0) % 2: raise ValueError("no")
    time.sleep(float(os.environ.get("TAKES", 0)))
    return os.environ["NAME"]
"""


def deploy(yard: YardUnderTest, folder: Path, endpoint: str, name: str, **variables: str) -> None:
    folder.mkdir(exist_ok=True)
    if name == "blue":
        deploy_script(yard, folder, NAMES, endpoint=endpoint, environment_variables={"NAME": "blue"})
        return
    document = json.loads((folder / "deployment.yml").read_text())
    document |= {"name": name, "environment_variables": {"NAME": name, **variables}}
    (folder / "deployment.yml").write_text(json.dumps(document))
    yard.run("online-deployment", "create", "-f", str(folder / "deployment.yml"))


@contextmanager
def load(url: str, key: str) -> Iterator[Counter[tuple[int, str]]]:
    """Four clients that ask for as long as the block runs; what was answered so far."""
    seen: Counter[tuple[int, str]] = Counter()
    over = threading.Event()

    def ask(client: int) -> None:
        sent = client
        while not over.is_set():
            answer = post(url, key, str(sent).encode())
            seen[answer.status_code, answer.text.strip('"')] += 1
            sent += 1

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, client) for client in range(4)]
        try:
            yield seen
        finally:
            over.set()
        for one in asking:
            one.result()


def shown(yard: YardUnderTest, endpoint: str) -> dict[str, Any]:
    return dict(yard.call("GET", f"{ENDPOINT}/{endpoint}", expect=200).json())


@pytest.fixture(scope="module")
def pair(yard: YardUnderTest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, Path]:
    """An endpoint with blue and green, blue taking all traffic."""
    folder = tmp_path_factory.mktemp("pair") / "it"
    deploy(yard, folder, "moving", "blue")
    deploy(yard, folder, "moving", "green")
    return *call_endpoint(yard, "moving"), folder


def test_a_deployment_that_answers_well_gets_all_traffic_step_by_step(yard: YardUnderTest, pair: tuple[str, str, Path]) -> None:
    url, key, _ = pair
    with load(url, key) as seen:
        done = yard.run(
            "online-endpoint", "rollout", "-n", "moving", "--to", "green", "--steps", "20,60,100", "--bake-time", "1",
            "--min-requests", "10",
        )  # fmt: skip
        wait_for(lambda: seen[200, "green"], 10, "an answer of green")
    assert "Completed: every step answered well" in done.stderr
    assert {status for status, _ in seen} == {200}, "no request failed"
    assert seen[200, "blue"] and seen[200, "green"]
    assert {name: share for name, share in shown(yard, "moving")["traffic"].items() if share} == {"green": 100}
    told = [event["event"].partition(".")[2] for event in yard.json("audit", "list", "--subject", "moving") if "rollout" in event["event"]]
    assert sorted(told) == ["rollout_completed", "rollout_started", "rollout_stepped", "rollout_stepped"]


def test_a_deployment_that_fails_gives_the_traffic_back(yard: YardUnderTest, pair: tuple[str, str, Path]) -> None:
    url, key, folder = pair
    before = {name: share for name, share in shown(yard, "moving")["traffic"].items() if share}
    deploy(yard, folder, "moving", "red", FAILS="1")
    with load(url, key):
        done = yard.run(
            "online-endpoint", "rollout", "-n", "moving", "--to", "red", "--steps", "30,100", "--bake-time", "600",
            "--min-requests", "8", ok=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert "Aborted" in done.stderr and "requests failed, more than 1.00%" in done.stderr
    assert {name: share for name, share in shown(yard, "moving")["traffic"].items() if share} == before
    assert shown(yard, "moving")["rollout"]["status"] == "Aborted"


def test_a_deployment_that_is_slow_gives_the_traffic_back(yard: YardUnderTest, pair: tuple[str, str, Path]) -> None:
    url, key, folder = pair
    deploy(yard, folder, "moving", "snail", TAKES="0.2")
    with load(url, key):
        done = yard.run(
            "online-endpoint", "rollout", "-n", "moving", "--to", "snail", "--bake-time", "600", "--min-requests", "3",
            "--max-p99", "100", ok=False,
        )  # fmt: skip
    assert done.returncode == 1 and "ms, more than 100 ms" in done.stderr


def test_a_rollout_is_stopped_by_hand_or_by_a_change_of_the_traffic(yard: YardUnderTest, pair: tuple[str, str, Path]) -> None:
    address = f"{ENDPOINT}/moving/rollout"
    yard.run("online-endpoint", "update", "-n", "moving", "--traffic", "blue=100")
    started = yard.call("POST", address, json={"to": "green", "steps": [25, 100]}, expect=201).json()
    assert started["status"] == "Running" and started["percent"] == 25
    assert shown(yard, "moving")["traffic"] == {"blue": 75, "green": 25}
    refused = yard.call("POST", address, json={"to": "green"}, expect=409).json()
    assert "is being rolled out to green" in refused["error"]["message"]
    stopped = yard.run("online-endpoint", "rollout", "-n", "moving", "--abort", ok=True)
    assert json.loads(stopped.stdout)["status"] == "Aborted"
    assert shown(yard, "moving")["traffic"] == {"blue": 100}
    yard.call("DELETE", address, expect=409)
    yard.call("POST", address, json={"to": "green", "steps": [25, 100]}, expect=201)
    yard.run("online-endpoint", "update", "-n", "moving", "--traffic", "blue=50 green=50")
    ended = shown(yard, "moving")
    assert ended["traffic"] == {"blue": 50, "green": 50} and ended["rollout"]["status"] == "Aborted"
    assert "changed the traffic" in ended["rollout"]["reason"]


def test_a_metric_of_a_run_decides_whether_it_goes_on(yard: YardUnderTest, pair: tuple[str, str, Path]) -> None:
    yard.run("online-endpoint", "update", "-n", "moving", "--traffic", "blue=100")
    run = yard.mlflow("POST", "runs/create", {"experiment_id": "0", "run_name": "outcomes"})["run"]["info"]["run_id"]

    def log(value: float) -> None:
        yard.mlflow("POST", "runs/log-metric", {"run_id": run, "key": "sold", "value": value, "timestamp": int(time.time() * 1000)})

    log(0.001)
    arguments = (
        "--to", "green", "--steps", "40,100", "--bake-time", "0", "--min-requests", "0", "--metric", "sold>=0.02",
    )  # fmt: skip
    started = yard.run("online-endpoint", "rollout", "-n", "moving", *arguments, "--metric-run", run, "--no-wait")
    assert json.loads(started.stdout)["percent"] == 40
    log(0.03)
    wait_for(lambda: shown(yard, "moving")["rollout"]["percent"] == 100, 20, "the second step")
    log(0.01)
    wait_for(lambda: shown(yard, "moving")["rollout"]["status"] != "Running", 20, "its end")
    assert shown(yard, "moving")["rollout"]["reason"] == "the metric sold is 0.01, which is not at least 0.02"
    assert shown(yard, "moving")["traffic"] == {"blue": 100}
    assert yard.run("online-endpoint", "rollout", "-n", "moving", *arguments, ok=False).returncode == 2
    unknown = yard.run("online-endpoint", "rollout", "-n", "moving", *arguments, "--metric-run", "f" * 32, ok=False)
    assert unknown.returncode == 3 and "not found" in unknown.stderr


def test_a_rollout_goes_on_when_the_server_was_killed(own_yard: YardUnderTest, tmp_path: Path) -> None:
    deploy(own_yard, tmp_path / "it", "killed", "blue")
    deploy(own_yard, tmp_path / "it", "killed", "green")
    url, key = call_endpoint(own_yard, "killed")
    with load(url, key) as seen:
        asked = {"to": "green", "steps": [50, 100], "bake_time_s": 1, "min_requests": 5}
        own_yard.call("POST", f"{ENDPOINT}/killed/rollout", json=asked, expect=201)
        own_yard.kill_server()
        own_yard.up()
        wait_for(lambda: shown(own_yard, "killed")["rollout"]["status"] == "Completed", 60, "the end of the rollout")
    assert {status for status, _ in seen} == {200}


@pytest.mark.parametrize(
    ("asked", "status", "says"),
    [
        ({"to": "green", "steps": [50, 20, 100]}, 400, "steps grow and end with 100"),
        ({"to": "green", "steps": [10, 50]}, 400, "steps grow and end with 100"),
        ({"to": "green", "max_error_rate": 3}, 400, "max_error_rate"),
        ({"to": "nobody"}, 404, "nobody"),
        ({"to": "green", "metric": {"run_id": "x", "name": "sold"}}, 400, "a metric needs at_least or at_most"),
        ({}, 400, "to"),
    ],
)
def test_a_rollout_that_makes_no_sense_is_refused(
    yard: YardUnderTest, pair: tuple[str, str, Path], asked: dict[str, Any], status: int, says: str
) -> None:
    refused = yard.call("POST", f"{ENDPOINT}/moving/rollout", json=asked, expect=status).json()
    assert says in json.dumps(refused["error"])


def test_what_is_done_next_with_a_step() -> None:
    from modelyard.serving.online.rollout import NEXT, WAIT, judge, since
    from modelyard.spec.online import Rollout

    rollout = Rollout(to="green", bake_time_s=10, min_requests=100, max_error_rate=0.02, max_p99_ms=50)
    counted = {"requests": 100, "failed": 2, "buckets": [99, 1, 0], "bounds_ms": [50, 100]}
    assert judge(rollout, counted, 9_999) == WAIT and judge(rollout, counted, 10_000) == NEXT
    assert judge(rollout, counted | {"requests": 99, "failed": 99}, 10_000) == WAIT, "too few to say anything"
    assert judge(rollout, counted | {"failed": 3}, 0).startswith("3 of 100 requests failed")
    assert judge(rollout, counted | {"buckets": [98, 2, 0]}, 0) == "99 percent of the requests took up to 100 ms, more than 50 ms"
    later = {"requests": 160, "failed": 5, "buckets": [150, 8, 2], "bounds_ms": [50, 100]}
    assert since(counted, later) == {"requests": 60, "failed": 3, "buckets": [51, 7, 2], "bounds_ms": [50, 100]}
    assert since(later, counted) == counted, "the router was started anew and counts from nothing"


def test_the_rest_of_the_traffic_stays_divided_as_it_was() -> None:
    from modelyard.serving.online.rollout import RolloutRecord
    from modelyard.spec.states import RolloutState

    def shares(before: dict[str, int], step: int) -> dict[str, int]:
        spec = {"to": "green", "steps": [10, 55, 100]}
        return RolloutRecord("default", "e", spec, RolloutState.RUNNING, step, before, {}, "", 0, 0, "me").traffic

    assert [shares({"blue": 100}, step) for step in range(3)] == [
        {"blue": 90, "green": 10}, {"blue": 45, "green": 55}, {"blue": 0, "green": 100},
    ]  # fmt: skip
    assert shares({"blue": 70, "red": 20, "green": 10}, 1) == {"blue": 35, "red": 10, "green": 55}
    assert sum(shares({"a": 33, "b": 33, "c": 34}, 0).values()) == 100
    assert shares({}, 0) == {"green": 100}

"""Online endpoints through the real router and model server."""

from __future__ import annotations

import concurrent.futures
import json
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from checked_yard import YardUnderTest
from endpoints import ENDPOINT, call_endpoint, deploy_script, post
from modelyard.testing.waiting import alive, wait_for

SCRIPT = """
import json, os, time
def init():
    global model
    model = open(os.path.join(os.environ["AZUREML_MODEL_DIR"], "model", "weights.txt")).read()
    print("init was called", flush=True)
def run(raw_data, request_headers):
    data = json.loads(raw_data)
    if data.get("sleep"): time.sleep(data["sleep"])
    if data.get("hold"):
        open(os.environ["TMPDIR"] + "/holding", "w").close()
        while not os.path.exists(os.environ["TMPDIR"] + "/go"): time.sleep(0.01)
    if data.get("fail"): raise ValueError("secret detail")
    if data.get("exit"): os._exit(9)
    return {"model": model, "n": len(data), "pid": os.getpid(), "header": request_headers.get("x-mine")}
"""


@pytest.fixture(scope="module")
def scored(yard: YardUnderTest, tmp_path_factory: pytest.TempPathFactory) -> tuple[YardUnderTest, str, str]:
    folder = tmp_path_factory.mktemp("scored")
    (folder / "model").mkdir()
    (folder / "model/weights.txt").write_text("w1")
    deploy_script(
        yard, folder, SCRIPT, model={"path": "model"}, instance_count=2,
        request_settings={"request_timeout_ms": 4000, "max_concurrent_requests_per_instance": 1, "max_queue_wait_ms": 300},
    )  # fmt: skip
    return (yard, *call_endpoint(yard))


def test_a_script_gets_text_and_headers_and_its_answer_is_json(scored: Any) -> None:
    _, url, key = scored
    answer = post(url, key, b'{"a": 1}', **{"x-mine": "yes", "x-ms-client-request-id": "client-7"})
    assert answer.status_code == 200
    assert {**answer.json(), "pid": 0} == {"model": "w1", "n": 1, "pid": 0, "header": "yes"}
    assert answer.headers["x-ms-client-request-id"] == "client-7" and answer.headers["azureml-model-deployment"] == "blue"
    assert float(answer.headers["x-ms-run-fn-exec-ms"]) >= 0 and answer.headers["x-request-id"]


def test_without_a_key_nothing_is_answered(scored: Any) -> None:
    _, url, key = scored
    assert httpx.post(url, content=b"{}", trust_env=False, verify=False).status_code == 401
    assert post(url, key[:-1]).status_code == 401
    assert post(url.replace("/scored/", "/other/"), key).status_code == 404
    assert post(url, key, **{"azureml-model-deployment": "nothing"}).status_code == 404


def test_keys_open_the_endpoint_only(scored: Any) -> None:
    yard, url, key = scored
    assert yard.call("GET", "/api/v1/workspaces", token=key).status_code == 401
    assert post(url, yard.token).status_code == 401


def test_an_exception_in_the_script_is_a_500_without_its_text(scored: Any) -> None:
    yard, url, key = scored
    answer = post(url, key, b'{"fail": 1}')
    assert answer.status_code == 500 and "secret" not in answer.text and answer.headers["x-ms-run-function-failed"] == "True"
    assert "secret detail" in yard.run("online-deployment", "get-logs", "-e", "scored", "-n", "blue").stdout


def test_several_instances_share_the_work_and_too_much_is_refused_at_once(scored: Any) -> None:
    yard, url, key = scored
    folders = [
        folder for folder in (yard.home / "endpoints/default/scored/blue").glob("*/tmp") if folder.parent.name.endswith(("-0", "-1"))
    ]
    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        held = [pool.submit(post, url, key, b'{"hold": true}') for _ in range(2)]
        wait_for(lambda: sum((folder / "holding").exists() for folder in folders) == 2, 30, "both instances at work")
        refused = list(pool.map(lambda _: post(url, key).status_code, range(3)))
        for folder in folders:
            (folder / "go").touch()
        answers = [future.result() for future in held]
    assert refused == [429] * 3
    assert [answer.status_code for answer in answers] == [200, 200]
    assert len({answer.json()["pid"] for answer in answers}) == 2


def test_a_hung_call_is_answered_and_takes_its_process_from_nobody(scored: Any) -> None:
    _, url, key = scored
    before = {post(url, key).json()["pid"] for _ in range(20)}
    answer = post(url, key, b'{"sleep": 60}')
    assert answer.status_code == 500 and answer.json()["message"].startswith("Scoring timeout after")
    assert {post(url, key).json()["pid"] for _ in range(20)} == before and all(map(alive, before))


def test_a_process_in_which_many_calls_hang_is_replaced(scored: Any) -> None:
    _, url, key = scored
    before = {post(url, key).json()["pid"] for _ in range(20)}
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: post(url, key, b'{"sleep": 60}'), range(8)))
    wait_for(lambda: not all(map(alive, before)), 20, "the end of a process in which calls hang")
    wait_for(lambda: [post(url, key, b'{"sleep": 0.1}').status_code for _ in range(4)] == [200] * 4, 20, "both instances")


def test_a_process_that_exits_is_replaced(scored: Any) -> None:
    _, url, key = scored
    assert post(url, key, b'{"exit": 1}').status_code in (502, 503)
    wait_for(lambda: post(url, key).status_code == 200, 20, "a new process")


def test_keys_are_rotated_one_at_a_time_without_a_failed_request(scored: Any) -> None:
    yard, url, _ = scored
    keys = yard.call("POST", f"{ENDPOINT}/scored/keys").json()
    yard.run("online-endpoint", "regenerate-keys", "-n", "scored", "--key-type", "primary")
    assert post(url, keys["primaryKey"]).status_code == 401
    assert post(url, keys["secondaryKey"]).status_code == 200
    new = yard.call("POST", f"{ENDPOINT}/scored/keys").json()["primaryKey"]
    assert post(url, new).status_code == 200


def test_keys_are_kept_sealed(scored: Any) -> None:
    yard, _, _ = scored
    keys = yard.call("POST", f"{ENDPOINT}/scored/keys").json()
    for path in yard.home.rglob("*"):
        if path.is_file() and not path.is_symlink() and "envs" not in path.parts:
            content = path.read_bytes()
            assert keys["primaryKey"].encode() not in content and keys["secondaryKey"].encode() not in content, path


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"POST /default/scored/score HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello", 400),
        (b"POST /default/scored/score HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /default/scored/score HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nhost: x\r\n" + b"".join(b"x-%d: y\r\n" % n for n in range(150)) + b"\r\n", 431),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", 414),
    ],
)
def test_malformed_requests_get_a_4xx(scored: Any, raw: bytes, status: int) -> None:
    _, url, _ = scored
    parts = httpx.URL(url)
    with socket.create_connection((parts.host, parts.port or 80), timeout=10) as connection:
        connection.sendall(raw)
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 %d" % status), answer[:200]


def test_a_deployment_that_takes_traffic_stays_and_an_in_use_name_is_said(scored: Any) -> None:
    yard, _, _ = scored
    done = yard.run("online-deployment", "delete", "-e", "scored", "-n", "blue", "-y", ok=False)
    assert done.returncode == 5 and "100 % of the traffic" in done.stderr


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("import nothing_like_this\ndef init(): pass\ndef run(d): pass\n", "No module named 'nothing_like_this'"),
        ("def run(d): pass\n", "defines no function init()"),
        ("def init(): raise RuntimeError('weights are missing')\ndef run(d): pass\n", "weights are missing"),
        ("import os\ndef init(): os._exit(1)\ndef run(d): pass\n", "as soon as it starts"),
    ],
)
def test_a_script_that_does_not_load_fails_with_its_reason(yard: YardUnderTest, tmp_path: Path, script: str, words: str) -> None:
    done = deploy_script(yard, tmp_path, script, endpoint="broken", ok=False)
    assert done.returncode == 1 and words in done.stderr and "get-logs" in done.stderr
    assert yard.json("online-deployment", "show", "-e", "broken", "-n", "blue")["provisioning_state"] == "Failed"
    yard.run("online-endpoint", "delete", "-n", "broken", "-y")
    wait_for(lambda: not list((yard.home / "endpoints/default").glob("broken/blue/*")), 20, "the end of the deployment")


def test_an_image_with_a_server_of_its_own_is_refused_by_name(yard: YardUnderTest, tmp_path: Path) -> None:
    (tmp_path / "weights.txt").write_text("w")
    route = {"port": 8501, "path": "/v1/models/half_plus_two"}
    deployment = {
        "name": "tfserving", "endpoint_name": "images", "model": {"path": "weights.txt"}, "environment": {
            "image": "docker.io/tensorflow/serving:latest",
            "inference_config": {"liveness_route": route, "readiness_route": route, "scoring_route": {**route, "path": route["path"] + ":predict"}},
        },
    }  # fmt: skip
    (tmp_path / "deployment.yml").write_text(json.dumps(deployment))
    yard.run("online-endpoint", "create", "-n", "images")
    done = yard.run("online-deployment", "create", "-f", str(tmp_path / "deployment.yml"), ok=False)
    assert done.returncode == 2 and "this yard runs no containers" in done.stderr
    assert yard.json("online-deployment", "list", "-e", "images") == []


def test_a_bad_update_never_takes_traffic_from_a_good_deployment(yard: YardUnderTest, tmp_path: Path) -> None:
    deploy_script(yard, tmp_path, "def init(): pass\ndef run(d): return 'first'\n", endpoint="updated")
    url, key = call_endpoint(yard, "updated")
    (tmp_path / "code/score.py").write_text("def init(): raise RuntimeError('no')\ndef run(d): return 'second'\n")
    assert yard.run("online-deployment", "update", "-f", str(tmp_path / "deployment.yml"), ok=False).returncode == 1
    assert post(url, key).json() == "first"
    (tmp_path / "code/score.py").write_text("def init(): pass\ndef run(d): return 'third'\n")
    yard.run("online-deployment", "update", "-f", str(tmp_path / "deployment.yml"))
    assert post(url, key).json() == "third"
    yard.run("online-endpoint", "delete", "-n", "updated", "-y")
    assert post(url, key).status_code == 404


def test_traffic_must_name_what_is_there(yard: YardUnderTest) -> None:
    yard.run("online-endpoint", "create", "-n", "lonely")
    done = yard.run("online-endpoint", "update", "-n", "lonely", "--traffic", "green=100", ok=False)
    assert done.returncode == 2 and "does not have" in done.stderr
    yard.run("online-endpoint", "delete", "-n", "lonely", "-y")


def test_two_deployments_share_the_traffic_as_told(yard: YardUnderTest, tmp_path: Path) -> None:
    deploy_script(yard, tmp_path, "def init(): pass\ndef run(d): return 'blue'\n", endpoint="shared")
    (tmp_path / "code/score.py").write_text("def init(): pass\ndef run(d): return 'green'\n")
    document = json.loads((tmp_path / "deployment.yml").read_text())
    (tmp_path / "deployment.yml").write_text(json.dumps({**document, "name": "green"}))
    yard.run("online-deployment", "create", "-f", str(tmp_path / "deployment.yml"))
    url, key = call_endpoint(yard, "shared")
    assert {post(url, key).json() for _ in range(20)} == {"blue"}
    assert post(url, key, **{"azureml-model-deployment": "green"}).json() == "green"
    yard.run("online-endpoint", "update", "-n", "shared", "--traffic", "blue=50 green=50")
    assert {post(url, key).json() for _ in range(60)} == {"blue", "green"}
    yard.run("online-endpoint", "delete", "-n", "shared", "-y")


def test_a_hostile_model_reads_nothing_of_the_yard(yard: YardUnderTest, tmp_path: Path) -> None:
    if yard.record["isolation"] == "none":
        pytest.skip("this machine offers no isolation; the yard says so")
    script = (
        "import os\n"
        "def init(): pass\n"
        "def run(data):\n"
        "    found = []\n"
        f"    for path in ('control/master.key', 'control/yard.db', 'control/router/routes.json', 'endpoints/default/scored/blue'):\n"
        f"        try: (os.listdir if path.endswith('blue') else open)('{yard.home}/' + path); found.append(path)\n"
        "        except OSError: pass\n"
        f"    try: os.kill({yard.record['pid']}, 0); found.append('kill')\n"
        "    except OSError: pass\n"
        "    return found\n"
    )
    deploy_script(yard, tmp_path, script, endpoint="hostile")
    url, key = call_endpoint(yard, "hostile")
    assert post(url, key).json() == []
    yard.run("online-endpoint", "delete", "-n", "hostile", "-y")


def test_a_deployment_takes_a_logged_model_by_its_address_or_its_runs(yard: YardUnderTest) -> None:
    yard.run("online-endpoint", "create", "-n", "logged")
    run = yard.call("POST", "/api/2.0/mlflow/runs/create", json={"experiment_id": "0"}, expect=200).json()["run"]["info"]["run_id"]
    for name, text in (("MLmodel", b"flavors: {}"), ("requirements.txt", b"")):
        yard.call("PUT", f"/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/m/{name}", content=text, expect=200)
    where = f"{ENDPOINT}/logged/deployments/blue"
    for model in (f"runs:/{run}/m", {"path": f"runs:/{run}/m"}):
        made = yard.call("PUT", where, json={"name": "blue", "endpoint_name": "logged", "model": model}, expect=200).json()
        assert made["properties"]["model"].startswith("azureml://datastores/workspaceblobstore/paths/Pinned/")
    gone = f"models:/m-{'0' * 32}"
    refused = yard.call("PUT", where, json={"name": "blue", "endpoint_name": "logged", "model": gone}, expect=400).json()["error"]
    assert f"there is no model at '{gone}'" in refused["message"]
    yard.run("online-endpoint", "delete", "-n", "logged", "-y")


GATED = """
import os, time
def init():
    home = os.path.expanduser("~")
    if os.path.exists(home + "/started"):
        while not os.path.exists(home + "/gate"):
            time.sleep(0.05)
    open(home + "/started", "w").close()
def run(data): return "here"
"""


def test_after_a_restart_a_deployment_has_succeeded_only_when_its_instances_answer(own_yard: YardUnderTest, tmp_path: Path) -> None:
    deploy_script(own_yard, tmp_path, GATED, endpoint="gated", instance_count=2)

    def state() -> Any:
        return own_yard.call("GET", f"{ENDPOINT}/gated/deployments/blue", expect=200).json()["provisioning_state"]

    own_yard.run("down")
    own_yard.up()
    assert state() == "Succeeded", "the instances ran on"
    own_yard.run("down", "--all")
    own_yard.up()
    assert state() == "Updating"
    for index in range(2):
        (own_yard.home / f"endpoints/default/gated/blue/1-{index}/home/gate").write_text("")
    wait_for(lambda: state() == "Succeeded", 30, "the instances")
    url, key = call_endpoint(own_yard, "gated")
    assert {post(url, key).json() for _ in range(4)} == {"here"}


def test_an_update_keeps_the_traffic_that_it_does_not_name_and_says_what_it_changes(yard: YardUnderTest, tmp_path: Path) -> None:
    deploy_script(yard, tmp_path, "def init(): pass\ndef run(data): return 1\n", endpoint="steady")
    (tmp_path / "endpoint.yml").write_text("name: steady\ntags: {team: risk}\n")
    for verb in ("create", "update"):
        done = yard.run("online-endpoint", verb, "-f", str(tmp_path / "endpoint.yml"))
        assert json.loads(done.stdout)["traffic"] == {"blue": 100}
        assert ("tags was not set and is team=risk" in done.stderr) == (verb == "create") and "traffic" not in done.stderr
    assert post(*call_endpoint(yard, "steady")).status_code == 200
    (tmp_path / "endpoint.yml").write_text("name: steady\ntags: {team: risk}\nauth_mode: aml_token\ntraffic: {blue: 0}\n")
    said = yard.run("online-endpoint", "update", "-f", str(tmp_path / "endpoint.yml")).stderr
    assert "traffic was blue=100 and is blue=0" in said and "auth_mode was key and is aml_token" in said
    yard.run("online-endpoint", "delete", "-n", "steady", "-y")

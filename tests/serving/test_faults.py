"""Endpoints under misbehaving models and misbehaving callers: what goes wrong stays where it is, is told, and is put right."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from checked_yard import YardUnderTest
from endpoints import ENDPOINT, call_endpoint, deploy_script, post
from modelyard.testing.waiting import wait_for

SCRIPT = """
import ctypes, json, os, sys, threading
held = []
def init(): pass
def run(data):
    asked = json.loads(data or "{}")
    if "leak" in asked:
        held.append(bytearray(os.urandom(1)) * (asked["leak"] << 20))
    if "hold" in asked:
        ctypes.PyDLL(None).sleep(60)  # without letting go of the interpreter
    if "stream" in asked:
        return (b"x" * (1 << 20) for _ in range(asked["stream"]))
    if "answer" in asked:
        return "x" * (asked["answer"] << 20)
    return os.getpid()
"""


@pytest.fixture(scope="module")
def faulty(yard: YardUnderTest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    done = deploy_script(
        yard, tmp_path_factory.mktemp("faulty"), SCRIPT, endpoint="faulty", request_settings={"request_timeout_ms": 500},
        resources={"limits": {"memory": "200Mi", "cpu": "2"}},
        liveness_probe={"initial_delay": 0, "period": 1, "timeout": 1, "failure_threshold": 2},
    )  # fmt: skip
    assert "warning" not in done.stderr
    return call_endpoint(yard, "faulty")


def instance(yard: YardUnderTest) -> dict[str, Any]:
    return dict(yard.call("GET", f"{ENDPOINT}/faulty/deployments/blue", expect=200).json()["instances"][0])


def comes_back(faulty: tuple[str, str]) -> int:
    """The process that answers, once one does."""

    def answers() -> bool:
        try:
            return post(*faulty).status_code == 200
        except httpx.TransportError:
            return False

    wait_for(answers, 30, "an answer")
    return int(post(*faulty).text)


def test_an_instance_tells_how_it_is(yard: YardUnderTest, faulty: tuple[str, str]) -> None:
    comes_back(faulty)
    found = instance(yard)
    assert found["state"] == "Running" and found["restarts"] == 0 and 5 < found["memory_mb"] < 200
    assert yard.json("online-deployment", "show", "-n", "blue", "-e", "faulty")["instances"][0]["name"] == found["name"]


def test_a_model_that_takes_more_memory_than_it_may_is_started_again(yard: YardUnderTest, faulty: tuple[str, str]) -> None:
    before = comes_back(faulty)
    assert post(*faulty, json.dumps({"leak": 400})).status_code in (200, 408, 503)
    wait_for(lambda: instance(yard)["restarts"] >= 1, 20, "its end")
    assert instance(yard)["reason"].startswith("it used more than the 200 MiB that it may")
    assert comes_back(faulty) != before


def test_a_call_that_never_lets_go_of_the_interpreter_ends_its_process(yard: YardUnderTest, faulty: tuple[str, str]) -> None:
    before = comes_back(faulty)
    assert post(*faulty, b'{"hold": true}').status_code == 408
    assert comes_back(faulty) != before
    log = yard.run("online-deployment", "get-logs", "-n", "blue", "-e", "faulty").stdout
    assert "Timeout (0:00:02)!" in log and "in run" in log, "the log says where it was"


def test_a_process_that_answers_no_probe_is_started_again(yard: YardUnderTest, faulty: tuple[str, str]) -> None:
    before = comes_back(faulty)
    os.kill(before, signal.SIGSTOP)
    assert comes_back(faulty) != before


def test_a_model_that_hangs_in_init_fails_its_deployment_and_nothing_else(
    yard: YardUnderTest, faulty: tuple[str, str], tmp_path: Path
) -> None:
    comes_back(faulty)
    (tmp_path / "code").mkdir()
    (tmp_path / "code/score.py").write_text("import time\ndef init(): time.sleep(600)\ndef run(data): return 1\n")
    deployment = {
        "name": "hanging", "endpoint_name": "faulty", "code_configuration": {"code": "code", "scoring_script": "score.py"},
        "environment": {"pip": []}, "readiness_probe": {"initial_delay": 0, "period": 1, "failure_threshold": 2},
    }  # fmt: skip
    (tmp_path / "deployment.yml").write_text(json.dumps(deployment))
    done = yard.run("online-deployment", "create", "-f", str(tmp_path / "deployment.yml"), ok=False)
    assert done.returncode != 0 and "the model server was not ready in time" in done.stderr
    assert post(*faulty).status_code == 200


def test_an_endpoint_answers_whatever_of_the_yard_is_killed(own_yard: YardUnderTest, tmp_path: Path) -> None:
    deploy_script(own_yard, tmp_path, SCRIPT, endpoint="steady")
    target = call_endpoint(own_yard, "steady")
    model = comes_back(target)
    supervisor = json.loads((own_yard.home / "control/supervisor/running.json").read_text())["pid"]
    own_yard.kill_server()
    assert int(post(*target).text) == model, "without the server"
    os.kill(supervisor, signal.SIGKILL)
    assert int(post(*target).text) == model, "without the supervisor"
    own_yard.up()
    os.kill(router_pid(own_yard), signal.SIGKILL)
    assert comes_back(target) == model, "by the next router"
    os.kill(model, signal.SIGKILL)
    assert comes_back(target) != model, "by the next model server"


def test_a_large_answer_passes_through_without_being_held(yard: YardUnderTest, faulty: tuple[str, str]) -> None:
    comes_back(faulty)
    before = peak_memory(yard)
    headers = {"Authorization": f"Bearer {faulty[1]}"}
    with httpx.stream("POST", faulty[0], content=b'{"answer": 32}', headers=headers, trust_env=False, verify=False, timeout=30) as answer:
        assert answer.status_code == 200 and int(answer.headers["content-length"]) == (32 << 20) + 2
        assert sum(len(part) for part in answer.iter_bytes()) == (32 << 20) + 2
    assert peak_memory(yard) - before < 12 << 20


@pytest.mark.torture
def test_an_answer_of_ten_gigabytes_passes_through(yard: YardUnderTest, faulty: tuple[str, str]) -> None:
    comes_back(faulty)
    before = peak_memory(yard)
    headers = {"Authorization": f"Bearer {faulty[1]}"}
    with httpx.stream(
        "POST", faulty[0], content=b'{"stream": 10240}', headers=headers, trust_env=False, verify=False, timeout=60
    ) as answer:
        assert answer.status_code == 200
        assert sum(len(part) for part in answer.iter_raw()) == 10240 << 20
    assert peak_memory(yard) - before < 32 << 20
    assert instance(yard)["restarts"] == 0


@pytest.mark.torture
def test_a_caller_that_does_not_read_holds_up_nobody_for_long(faulty: tuple[str, str]) -> None:
    comes_back(faulty)
    body = b'{"answer": 32}'
    with connected(faulty) as lazy:
        lazy.sendall(head(faulty, len(body)) + body)
        assert lazy.recv(15) == b"HTTP/1.1 200 OK"
        wait_for(lambda: post(*faulty).status_code == 200, 60, "an answer for somebody else")


def router_pid(yard: YardUnderTest) -> int:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(yard.home / "control/router/sock"))) as client:
        return int(client.get("http://router/").json()["pid"])


def peak_memory(yard: YardUnderTest) -> int:
    """The most bytes that the router has held."""
    peak = next(line for line in Path(f"/proc/{router_pid(yard)}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) * 1024


@contextmanager
def connected(faulty: tuple[str, str]) -> Iterator[socket.socket]:
    url = httpx.URL(faulty[0])
    with socket.create_connection((url.host, url.port or 80), timeout=20) as made:
        yield made


def head(faulty: tuple[str, str], length: int, key: str | None = None) -> bytes:
    url = httpx.URL(faulty[0])
    return (
        f"POST {url.path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {faulty[1] if key is None else key}\r\n"
        f"content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    ).encode()


def test_a_large_body_without_a_key_is_refused_before_it_is_read(yard: YardUnderTest, faulty: tuple[str, str]) -> None:
    before = peak_memory(yard)
    with connected(faulty) as caller:
        caller.sendall(head(faulty, 90 << 20, key="wrong"))
        for _ in range(32):  # of a caller that goes on sending all the same, the answer is read
            caller.sendall(b" " * (1 << 20))
        answer = caller.recv(65536)
    assert answer.startswith(b"HTTP/1.1 401 ") and b"connection: close" in answer
    assert peak_memory(yard) - before < 8 << 20


def test_thousands_of_idle_and_slow_callers_keep_nobody_out(faulty: tuple[str, str]) -> None:
    comes_back(faulty)
    url = httpx.URL(faulty[0])
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    held: list[socket.socket] = []
    try:
        for index in range(min(10_000, most - 1000)):
            one = socket.create_connection((url.host, url.port or 80), timeout=20)
            held.append(one)
            if index % 4 == 1:
                one.sendall(head(faulty, 1000)[: 40 + index % 30])  # a head that never ends
            elif index % 4 == 2:
                one.sendall(head(faulty, 1000) + b'{"a')  # a body that never comes
        answers = [post(*faulty) for _ in range(200)]
        assert {answer.status_code for answer in answers} == {200}
    finally:
        for one in held:
            one.close()
    assert post(*faulty).status_code == 200


def test_a_caller_with_wrong_keys_waits_and_one_with_the_right_key_does_not(faulty: tuple[str, str]) -> None:
    comes_back(faulty)
    # From an address of its own: the other tests of this router try wrong keys too.
    with httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.9")) as caller:
        answers = [caller.post(faulty[0], content=b"{}", headers={"Authorization": f"Bearer wrong{number}"}) for number in range(25)]
        assert answers[0].status_code == 401 and answers[-1].status_code == 429 and int(answers[-1].headers["retry-after"]) >= 1
        assert caller.post(faulty[0], content=b"{}", headers={"Authorization": f"Bearer {faulty[1]}"}).status_code == 200


def test_the_router_keeps_the_body_of_javas_client(faulty: tuple[str, str]) -> None:
    comes_back(faulty)
    offer = (
        b"connection: Upgrade, HTTP2-Settings, close\r\nhttp2-settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\nupgrade: h2c\r\n\r\n"
    )
    with connected(faulty) as java:
        java.sendall(head(faulty, 13)[:-2] + offer)
        java.sendall(b'{"answer": 0}')
        received = b"".join(iter(lambda: java.recv(65536), b""))
    assert received.startswith(b"HTTP/1.1 200 ") and received.endswith(b'""'), received

"""Bodies: read for those who may, within limits, and never for long on the event loop."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import openapi
import pytest

from modelyard.engine.openapi import operations
from modelyard.spec import jsontext
from modelyard.testing.yard import InProcessYard
from modelyard.wire.mlflow.app import registered

JOBS = "/api/v1/workspaces/default/jobs"
MOST = 6
"""Yardsticks that one callback of the event loop may take. Seconds would not do, not even those of its thread: where cores and caches are shared
with much else, the same work takes several times as many."""
VALUES = {"path": "a", "number": "1", "version": "1", "digest": "0" * 64, "kind": "job"}


def natively() -> Iterator[tuple[str, str, bool]]:
    """(method, path, whether the body is a stream) of each native route with a body."""
    for operation in operations(openapi.application()):
        if operation.declared.body is not None:
            yield operation.method.upper(), filled(operation.path), not operation.repeatable


def filled(template: str) -> str:
    return re.sub(r"\{(\w+)\}", lambda match: {"workspace": "default", **VALUES}.get(match[1], "none"), template)


def in_mlflow() -> Iterator[tuple[str, str]]:
    for method, path in registered():
        if method != "GET":
            plain = re.sub(r"\(\?P<(\w+)>[^)]*\)", lambda match: VALUES.get(match[1], "none"), path)
            yield method, f"/{plain}" if plain.startswith(("v1/", "get-artifact", "model-versions/get-artifact")) else f"/api/2.0/{plain}"


def token_of(yard: InProcessYard, role: str) -> str:
    yard.call("POST", "/api/v1/principals", json={"name": "rita"}, expect=201)
    yard.call("PUT", f"/api/v1/principals/rita/roles/{role}", params={"workspace_name": "*"}, expect=200)
    return str(yard.call("POST", "/api/v1/tokens", json={"principal": "rita"}, expect=201).json()["token"])


READ_BY_READERS = re.compile(r"/search|/tokens$|batchGetInfos|get-latest-versions|/import/runs/marks|/import/marks|/share$|search-datasets")
"""What answers a question that is asked in a body, and tokens of one's own."""


def test_a_body_is_not_read_for_a_caller_who_may_not_do_what_it_asks(turned: InProcessYard) -> None:
    reader = token_of(turned, "Reader")
    routes = [*((method, path) for method, path, _ in natively()), *in_mlflow()]
    assert len(routes) > 90
    for method, path in routes:
        read = False

        async def body() -> AsyncIterator[bytes]:
            nonlocal read
            read = True
            yield b"["

        answer = turned.call(method, path, token=reader, content=body())
        if READ_BY_READERS.search(path):
            assert answer.status_code < 500, f"{method} {path}: {answer.text}"
        elif not read:
            assert 400 <= answer.status_code < 500, f"{method} {path}: {answer.text}"
        else:
            pytest.fail(f"{method} {path} read a Reader's body and answered {answer.status_code}")


# What is acceptable JSON

NESTED = "[" * 300 + "]" * 300
REFUSED = {
    "nested deeper than 64": f'{{"properties": {{"x": {NESTED}}}}}',
    "appears twice": '{"a": 1, "b": {"c": 1, "c": 2}}',
    "NaN is not a number": '{"a": [NaN]}',
    "-Infinity is not a number": '{"a": -Infinity}',
    "too large": '{"a": 1e999}',
    "more than 64 bits": '{"a": 9223372036854775808}',
    "the integer 1111111111": '{"a": ' + "1" * 5_000_000 + "}",
    "more than 100,000 values": '{"a": [' + "0," * 100_000 + "0]}",
    "not text in UTF-8": '{"a": "\\ud800"}',
    "Extra data": "{} {}",
    "Expecting value": "[" * 100 + "x",
}


@pytest.mark.parametrize("reason", REFUSED)
def test_json_that_is_not_acceptable_is_refused_with_the_reason(turned: InProcessYard, reason: str) -> None:
    path = "/api/v1/workspaces/default/components"
    answer = turned.call("POST", path, content=REFUSED[reason].encode(), expect=400).json()["error"]
    assert answer["code"] == "invalid_json" and reason in answer["message"] and len(answer["message"]) < 200


def test_depth_and_bytes_beyond_reason_are_refused_too(turned: InProcessYard) -> None:
    path = "/api/v1/workspaces/default/components"
    assert "deeper" in turned.call("POST", path, content=b"[" * 3_000_000, expect=400).text
    assert turned.call("POST", path, content=b"\xff", expect=400).json()["error"]["code"] == "invalid_json"
    too_large = turned.call("POST", path, content=b" " * (8 * 2**20 + 1), expect=413).json()["error"]
    assert too_large["code"] == "body_too_large" and too_large["kind"] == "too_large"


def test_what_is_acceptable_is_read_as_it_is() -> None:
    document = {"a": [1, -(2**63), 2.5, None, True, "ä\u2028"], "b": {"c": {}}}
    assert jsontext.loads(json.dumps(document)) == document == jsontext.loads(json.dumps(document, ensure_ascii=False).encode())


def test_of_many_problems_the_first_are_listed_and_the_others_counted(turned: InProcessYard) -> None:
    unknown = {f"key{number}": 1 for number in range(5000)}
    answer = turned.call("POST", "/api/v1/workspaces/default/components", json={"type": "command", "command": "x", **unknown}, expect=400)
    problems = answer.json()["error"]["problems"]
    assert len(problems) == 51 and "more problems" in problems[-1]["message"]


# Nobody holds up the event loop


@contextmanager
def watched() -> Iterator[list[tuple[float, str]]]:
    """(yardsticks, what it was) of the callbacks that took too long.

    Without the garbage collector, which walks what the other tests of this process left, in whichever thread it happens to be due.
    """
    longest: list[tuple[float, str]] = []
    run, before = asyncio.Handle._run, yardstick()

    def measured(handle: asyncio.Handle) -> None:
        begun = time.thread_time()
        run(handle)
        longest.append((time.thread_time() - begun, repr(handle)[:300]))
        longest.sort(reverse=True)
        del longest[5:]

    asyncio.Handle._run = measured  # type: ignore[method-assign]
    gc.disable()
    try:
        yield longest
    finally:
        asyncio.Handle._run = run  # type: ignore[method-assign]
        gc.enable()
        stick = max(before, yardstick())
        longest[:] = [(took / stick, what) for took, what in longest if took > MOST * stick]


def yardstick() -> float:
    """Seconds that the thread takes now for something that is always the same."""
    begun = time.thread_time()
    json.loads(WIDE)
    return time.thread_time() - begun


WIDE = json.dumps({f"key{number}": number for number in range(90_000)}).encode()
LARGEST: dict[str, bytes] = {
    "as many unknown keys as are read": WIDE,
    "as many properties as are read": b'{"name": "n", "properties": ' + WIDE + b', "tags": {}}',
    "one long text in each field": json.dumps(
        dict.fromkeys(("name", "command", "type", "path", "description", "filter", "version", "key", "schedule"), "a" * 900_000)
    ).encode(),
    "as many bytes as are read": b'{"x": "' + b"y" * (8 * 2**20 - 10) + b'"}',
    "more bytes than are read": b" " * (34 * 2**20),
    "more values than are read": b'{"x": [' + b"0," * 3_900_000 + b"0]}",
    "nested too deep": b"[" * (8 * 2**20),
}
QUICK = ("as many unknown keys as are read", "one long text in each field", "nested too deep")


def _held_up(yard: InProcessYard, routes: list[tuple[str, str]], kinds: tuple[str, ...]) -> list[str]:
    """The routes that took the event loop for too long, by kind of body."""
    problems = []
    for method, path in routes:
        for kind in kinds:
            with watched() as longest:
                answer = yard.call(method, path, content=LARGEST[kind], headers={"Content-Type": "application/json"})
            assert answer.status_code < 500, f"{method} {path}, {kind}: {answer.text}"
            problems += [f"{method} {path}, {kind}: {took:.1f} yardsticks in {what}" for took, what in longest]
    return problems


def test_no_body_holds_up_the_event_loop(turned: InProcessYard) -> None:
    """A sample of the routes, one for each way in which a body is read; `make torture` walks them all."""
    routes = [
        ("POST", "/api/v1/workspaces/default/jobs"),
        ("PUT", "/api/v1/workspaces/default/schedules/none"),
        ("POST", "/api/v1/roles"),
        ("POST", "/api/v1/tokens"),
        ("POST", "/api/v1/workspaces/default/import/runs"),
        ("POST", "/api/v1/workspaces/default/datastores/workspaceblobstore/uploads"),
        ("POST", "/api/v1/workspaces/default/datastores/workspaceblobstore/uploads/content"),
        ("POST", "/api/2.0/mlflow/runs/log-batch"),
        ("POST", "/api/2.0/mlflow/runs/search"),
        ("POST", "/v1/traces"),
    ]
    assert _held_up(turned, routes, QUICK) == []


@pytest.mark.torture
def test_no_route_is_held_up_by_its_largest_body(turned: InProcessYard) -> None:
    routes = [*((method, path) for method, path, _ in natively()), *in_mlflow()]
    assert _held_up(turned, routes, tuple(LARGEST)) == []


ACCEPTED: dict[str, Callable[[], dict[str, Any]]] = {
    "a long command": lambda: {"command": "python train.py " + "a" * 99_000, "environment": {"pip": []}},
    "a command of quotes": lambda: {"command": "python train.py " + "'a' " * 24_000, "environment": {"pip": []}},
    "a command that opens expressions": lambda: {"command": "true " + "${{" * 30_000, "environment": {"pip": []}},
    "a command of blanks": lambda: {"command": "true ${{" + " " * 90_000, "environment": {"pip": []}},
    "many properties": lambda: {"command": "true", "environment": {"pip": []}, "properties": {f"k{n}": n for n in range(90_000)}},
    "many tags": lambda: {"command": "true", "environment": {"pip": []}, "tags": {f"k{n}": n for n in range(90_000)}},
    "many variables": lambda: {"command": "true", "environment": {"pip": []}, "environment_variables": {f"k{n}": n for n in range(50_000)}},
    "many packages": lambda: {"command": "true", "environment": {"pip": [f"p{n}==1.{n}" for n in range(4_900)]}},
}


@pytest.mark.parametrize("what", ACCEPTED)
def test_the_largest_job_holds_up_neither_its_submission_nor_the_loops(turned: InProcessYard, what: str) -> None:
    """What is stored is read again at each turn of the loops, and after each start."""
    body = json.dumps({"type": "command", **ACCEPTED[what]()}).encode()
    turned.call(
        "POST", JOBS, json={"type": "command", "command": "true", "environment": {"pip": []}}, expect=201
    )  # nothing is loaded later
    turned.settle()
    with watched() as longest:
        job = turned.call("POST", JOBS, content=body)
        turned.settle()
        for path in ("", f"/{job.json()['name']}") if job.status_code == 201 else ():
            assert turned.call("GET", f"{JOBS}{path}").status_code == 200
    assert job.status_code in (201, 400), job.text
    assert longest == []


def test_a_command_longer_than_a_process_can_be_given_is_refused(turned: InProcessYard) -> None:
    body = {"type": "command", "command": "a" * 100_001, "environment": {"pip": []}}
    problem = turned.call("POST", "/api/v1/workspaces/default/jobs", json=body, expect=400).json()["error"]["problems"][0]
    assert problem["field"] == "command" and "100,001 bytes; 100,000 are allowed" in problem["message"]

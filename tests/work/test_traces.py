"""Traces over MLflow's calls and OpenTelemetry's, on both databases; the genuine client is in test_genuine_clients."""

from __future__ import annotations

import gzip
import itertools
import json
import os
from typing import Any

import pytest

from checked_yard import YardUnderTest

COUNTER = itertools.count()


def experiment(yard: YardUnderTest) -> str:
    return str(yard.mlflow("POST", "experiments/create", {"name": f"traces-{next(COUNTER)}"})["experiment_id"])


def otlp(yard: YardUnderTest, experiment: str, spans: list[dict[str, Any]], **headers: str) -> Any:
    body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).encode()
    if headers.get("content-encoding") == "gzip":
        body = gzip.compress(body)
    sent = {"x-mlflow-experiment-id": experiment, "content-type": "application/json", **headers}
    return yard.call("POST", "/v1/traces", content=body, headers=sent)


def span(trace: str, id: str, parent: str = "", name: str = "step", code: int = 1) -> dict[str, Any]:
    return {
        "traceId": trace, "spanId": id, "parentSpanId": parent, "name": name, "status": {"code": code},
        "startTimeUnixNano": "1000000000", "endTimeUnixNano": "3500000000",
        "attributes": [{"key": "mlflow.spanInputs", "value": {"stringValue": '{"x": 1}'}}],
    }  # fmt: skip


def search(yard: YardUnderTest, experiment: str, filter: str = "") -> list[dict[str, Any]]:
    location = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment}}
    return list(yard.mlflow("POST", "traces/search", {"locations": [location], "filter": filter}).get("traces", []))


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_spans_of_any_exporter_become_a_trace(any_yard: YardUnderTest, encoding: str) -> None:
    id, trace = experiment(any_yard), os.urandom(16).hex()
    child = otlp(any_yard, id, [span(trace, "b" * 16, "a" * 16, "child")], **{"content-encoding": encoding})
    assert child.status_code == 200, child.text
    assert search(any_yard, id)[0]["state"] == "IN_PROGRESS"
    otlp(any_yard, id, [span(trace, "a" * 16, name="root", code=2)])
    (found,) = search(any_yard, id, "trace.status = 'ERROR' AND name = 'root' AND execution_time_ms = 2500")
    assert found["trace_id"] == "tr-" + trace and found["request_preview"] == '{"x": 1}' and found["execution_duration"] == "2.500s"
    whole = any_yard.mlflow("GET", "traces/get", trace_id=found["trace_id"])["trace"]
    assert [item["name"] for item in whole["spans"]] == ["root", "child"]
    assert search(any_yard, id, "span.name = 'child'") and not search(any_yard, id, "span.name = 'nothing'")


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b"", {}), (b"{", {}), (b"{}", {}), (b"[1]", {}), (b'{"resourceSpans": 5}', {}), (b"\xff\xff", {"content-type": "application/x-protobuf"}),
        (b"x", {"content-type": "text/plain"}), (b"notgzip", {"content-encoding": "gzip"}), (b"x", {"content-encoding": "br"}),
        (gzip.compress(b"0" * 70_000_000), {"content-encoding": "gzip"}),
        (b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"zz","spanId":"aa"}]}]}]}', {}),
        (b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"aa","spanId":"aa"}]}]}]}', {}),
        (b"[" * 100_000, {}),
    ],
    ids=range(13),
)  # fmt: skip
def test_an_export_that_cannot_be_read_is_refused(yard: YardUnderTest, content: bytes, headers: dict[str, str]) -> None:
    sent = {"x-mlflow-experiment-id": "0", "content-type": "application/json", **headers}
    answer = yard.call("POST", "/v1/traces", content=content, headers=sent)
    assert answer.status_code == 400 and answer.json()["error_code"] == "INVALID_PARAMETER_VALUE", answer.text


def test_traces_of_clients_before_the_third_version(any_yard: YardUnderTest) -> None:
    id = experiment(any_yard)
    begun = any_yard.mlflow("POST", "traces", {"experiment_id": id, "timestamp_ms": 5000, "tags": [{"key": "a", "value": "b"}]})[
        "trace_info"
    ]
    ended = {"timestamp_ms": 5100, "status": "OK", "request_metadata": [{"key": "k", "value": "v" * 9000}]}
    done = any_yard.mlflow("PATCH", f"traces/{begun['request_id']}", ended)["trace_info"]
    assert done["execution_time_ms"] == 100 and done["status"] == "OK" and len(done["request_metadata"][0]["value"]) == 8000
    assert any_yard.mlflow("GET", f"traces/{begun['request_id']}/info")["trace_info"]["request_id"] == begun["request_id"]
    assert len(any_yard.mlflow("GET", "traces", experiment_ids=id)["traces"]) == 1


def test_tags_links_assessments_and_the_end(any_yard: YardUnderTest) -> None:
    id, trace = experiment(any_yard), os.urandom(16).hex()
    run = any_yard.mlflow("POST", "runs/create", {"experiment_id": id, "start_time": 1})["run"]["info"]["run_id"]
    otlp(any_yard, id, [span(trace, "a" * 16)])
    name = "tr-" + trace
    any_yard.mlflow("PATCH", f"traces/{name}/tags", {"key": "who's", "value": "x"})
    any_yard.mlflow("POST", "traces/link-to-run", {"trace_ids": [name], "run_id": run})
    assert search(any_yard, id, "tags.`who's` = 'x'") and search(any_yard, id, f"run_id = '{run}'")
    any_yard.mlflow("DELETE", f"traces/{name}/tags", {"key": "who's"})
    any_yard.mlflow("DELETE", f"traces/{name}/tags", {"key": "who's"}, expect=404)
    first = any_yard.mlflow("POST", f"traces/{name}/assessments", {"assessment": {"assessment_name": "good", "feedback": {"value": True}}})
    first_id = first["assessment"]["assessment_id"]
    second = {"assessment_name": "good", "feedback": {"value": False}, "overrides": first_id}
    second_id = any_yard.mlflow("POST", f"traces/{name}/assessments", {"assessment": second})["assessment"]["assessment_id"]
    path = f"traces/{name}/assessments/"
    assert any_yard.mlflow("GET", path + first_id)["assessment"]["valid"] is False
    assert search(any_yard, id, "feedback.good = 'false'")
    any_yard.mlflow("DELETE", path + second_id)
    assert any_yard.mlflow("GET", path + first_id)["assessment"]["valid"] is True
    assert any_yard.mlflow("PATCH", path + first_id, {"assessment": {"rationale": "why"}})["assessment"]["rationale"] == "why"
    any_yard.mlflow("POST", f"traces/{name}/assessments", {"assessment": {}}, expect=400)
    any_yard.mlflow("POST", "traces/delete-traces", {"experiment_id": id}, expect=400)
    assert any_yard.mlflow("POST", "traces/delete-traces", {"experiment_id": id, "trace_ids": [name]}) == {"traces_deleted": 1}
    any_yard.mlflow("GET", f"traces/{name}", expect=404)


@pytest.mark.parametrize("filter", ["bogus = 1", "trace.status > 'a'", "metrics.x > 1", "execution_time_ms = 'a'", "tags.x RLIKE 'a'"])
def test_a_filter_that_is_not_of_traces_is_refused(yard: YardUnderTest, filter: str) -> None:
    location = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}}
    yard.mlflow("POST", "traces/search", {"locations": [location], "filter": filter}, expect=400)

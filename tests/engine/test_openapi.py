"""The OpenAPI document of the native API: whole, valid, the one that is served, and only growing."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import httpx
import openapi
import pytest
from api_changes import breaking_changes
from fastapi import APIRouter, FastAPI, Response
from openapi_spec_validator import validate
from rest_page import page, permissions

from checked_yard import YardUnderTest, contract_of
from contract import Contract
from modelyard.core.errors import Invalid, Problem
from modelyard.engine.openapi import answers, document_of
from modelyard.engine.openapi import operations as operations_of
from modelyard.sdk.transport import check
from modelyard.spec.fields import parse
from modelyard.spec.job import CommandJob
from modelyard.spec.loading import answered
from modelyard.testing.waiting import wait_for
from modelyard.testing.yard import InProcessYard

RENEW = "Renew it: python tools/openapi.py"
Document = dict[str, Any]


@pytest.fixture(scope="module")
def document() -> Document:
    return document_of(openapi.application())


def operations(document: Document) -> list[tuple[str, str, Document]]:
    return [(path, method, operation) for path, methods in document["paths"].items() for method, operation in methods.items()]


def test_the_document_is_valid_and_every_operation_has_a_name_of_its_own(document: Document) -> None:
    validate(document)
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(ids) == len(set(ids)) and all(re.fullmatch(r"[a-z]+(_[a-z]+)+", id) for id in ids)
    assert {"jobs_list", "jobs_create", "online_endpoints_create_or_update", "models_get"} <= set(ids)


def test_every_operation_declares_what_it_answers_takes_and_refuses(document: Document) -> None:
    for path, method, operation in operations(document):
        where = f"{method} {path}"
        declared = {_resolved(document, parameter)["name"] for parameter in operation.get("parameters", [])}
        assert set(re.findall(r"\{(\w+)\}", path)) <= declared, where
        assert {"400", "401", "403", "404", "409", "429", "500", "503", "507"} <= set(operation["responses"]), where
        assert operation["summary"] and operation["tags"], where
        streamed = "application/octet-stream" in operation.get("requestBody", {}).get("content", {})
        assert ("Idempotency-Key" in declared) == (method not in ("get", "head") and not streamed), where
        for status, answer in operation["responses"].items():
            content = _resolved(document, answer).get("content", {})
            assert content or status in ("204", "416") or method == "head", f"{where} {status}"
            assert all(media != "application/json" or shown["schema"] for media, shown in content.items()), f"{where} {status}"
    shown = document["paths"]["/api/v1/workspaces/{workspace}/jobs"]["post"]
    assert shown["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/AnyJob-Input"}
    assert document["components"]["schemas"]["CommandJob-Input"]["required"] == ["command", "environment"]


def test_a_route_that_declares_nothing_is_named() -> None:
    router = APIRouter(prefix="/api/v1/things", tags=["things"])

    @router.get("")
    async def list_() -> Response:
        return Response()

    application = FastAPI()
    application.include_router(router)
    with pytest.raises(RuntimeError, match="GET /api/v1/things declares no answer"):
        document_of(application)


def test_an_answer_may_be_a_mapping_without_a_name() -> None:
    router = APIRouter(prefix="/api/v1/things", tags=["things"])

    @router.get("")
    @answers(dict[str, int])
    async def list_() -> Response:
        return Response()

    application = FastAPI()
    application.include_router(router)
    shown = document_of(application)["paths"]["/api/v1/things"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert shown == {"type": "object", "additionalProperties": {"type": "integer"}}


def test_a_yard_serves_the_document(yard: YardUnderTest, document: Document) -> None:
    served = httpx.get(f"{yard.url}/openapi.json", trust_env=False, verify=False).json()
    assert openapi.normalised(served) == openapi.normalised(document)


def test_the_api_only_grows_and_the_snapshot_keeps_up(document: Document) -> None:
    before = openapi.SNAPSHOT.read_text()
    broken = breaking_changes(json.loads(before), document)
    assert not broken, "clients of /api/v1 would break:\n" + "\n".join(broken)
    assert openapi.normalised(document) == before, f"the API has grown beyond its snapshot. {RENEW}"


def test_the_reference_page_is_the_one_of_this_api(document: Document) -> None:
    found = list(operations_of(openapi.application()))
    assert openapi.PAGE.read_text() == page(document, found), f"docs/reference/rest.md is of another API. {RENEW}"
    assert [operation.id for operation in found if not list(permissions(operation.endpoint))] == [], "no permission is known of these"


def _resolved(document: Document, value: Document) -> Document:
    if "$ref" not in value:
        return value
    _, _, group, name = value["$ref"].split("/")
    return document["components"][group][name]  # type: ignore[no-any-return]


# The comparison


def small() -> Document:
    """One resource with a parameter, a body and an answer."""
    body = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 10},
            "mode": {"enum": ["a", "b"], "type": "string"},
            "status": {"type": "string", "readOnly": True},
            "size": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
        },
        "required": ["name"],
    }
    answer = {
        "type": "object",
        "properties": {"id": {"type": "string"}, "parts": {"type": "array", "items": {"$ref": "#/components/schemas/Part"}}},
        "required": ["id"],
    }
    part = {"type": "object", "properties": {"weight": {"type": "number"}, "inner": {"$ref": "#/components/schemas/Part"}}}
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}}
    post = {
        "operationId": "things_create",
        "parameters": [{"name": "limit", "in": "query", "required": False, "schema": {"type": "integer"}}],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {"201": {"content": content}},
    }
    return {"paths": {"/things": {"post": post}}, "components": {"schemas": {"Thing": answer, "Part": part}}}


def post(document: Document) -> Document:
    return document["paths"]["/things"]["post"]  # type: ignore[no-any-return]


def body(document: Document) -> Document:
    return post(document)["requestBody"]["content"]["application/json"]["schema"]  # type: ignore[no-any-return]


def schemas(document: Document) -> Document:
    return document["components"]["schemas"]  # type: ignore[no-any-return]


BREAKING: dict[str, Callable[[Document], Any]] = {
    "POST /things is gone": lambda d: d["paths"].pop("/things"),
    "its operationId things_create is now": lambda d: post(d).update(operationId="things_make"),
    "query parameter limit is gone": lambda d: post(d).update(parameters=[]),
    "query parameter limit is now required": lambda d: post(d)["parameters"][0].update(required=True),
    "query parameter limit: it no longer takes integer": lambda d: post(d)["parameters"][0].update(schema={"type": "boolean"}),
    "body.mode is gone": lambda d: body(d)["properties"].pop("mode"),
    "body.mode is now required": lambda d: body(d)["required"].append("mode"),
    "body.size: it no longer takes string": lambda d: body(d)["properties"].update(size={"type": "integer"}),
    "body.mode: b is no longer taken": lambda d: body(d)["properties"]["mode"].update(enum=["a"]),
    "body.name: maxLength is now 5": lambda d: body(d)["properties"]["name"].update(maxLength=5),
    "body.mode is now ignored": lambda d: body(d)["properties"]["mode"].update(readOnly=True),
    "body.name: only x are now taken": lambda d: body(d)["properties"]["name"].update(enum=["x"]),
    "it answers no 201 any more": lambda d: post(d).update(responses={"200": post(d)["responses"]["201"]}),
    "answer 201.parts is gone": lambda d: schemas(d)["Thing"]["properties"].pop("parts"),
    "answer 201.id may now be absent": lambda d: schemas(d)["Thing"].update(required=[]),
    "answer 201.id: it may now be null": lambda d: schemas(d)["Thing"]["properties"].update(
        id={"anyOf": [{"type": "string"}, {"type": "null"}]}
    ),
    "answer 201.parts[].weight is gone": lambda d: schemas(d)["Part"]["properties"].pop("weight"),
    "answer 201.parts[].weight: it may now be string": lambda d: schemas(d)["Part"]["properties"].update(weight={"type": "string"}),
}


@pytest.mark.parametrize("what", BREAKING)
def test_what_breaks_a_client_is_named(what: str) -> None:
    changed = copy.deepcopy(small())
    BREAKING[what](changed)
    assert any(what in line for line in breaking_changes(small(), changed)), breaking_changes(small(), changed)


ADDITIONS: dict[str, Callable[[Document], Any]] = {
    "a path": lambda d: d["paths"].update({"/others": {"get": {"operationId": "x", "responses": {}}}}),
    "an operation": lambda d: d["paths"]["/things"].update({"get": {"operationId": "x", "responses": {}}}),
    "an optional parameter": lambda d: post(d)["parameters"].append({"name": "x", "in": "query", "schema": {}}),
    "an optional request field": lambda d: body(d)["properties"].update(extra={"type": "string"}),
    "an answer field": lambda d: schemas(d)["Thing"]["properties"].update(extra={"type": "string"}),
    "an answer field that is always there": lambda d: schemas(d)["Thing"]["required"].append("parts"),
    "a further value of a request field": lambda d: body(d)["properties"]["mode"]["enum"].append("c"),
    "a further type of a request field": lambda d: body(d)["properties"].update(mode={}),
    "another type of a field that is ignored": lambda d: body(d)["properties"].update(status={"type": "integer", "readOnly": True}),
    "a request field that is no longer required": lambda d: body(d).update(required=[]),
    "a whole number in place of any": lambda d: schemas(d)["Part"]["properties"].update(weight={"type": "integer"}),
    "a further kind of a noun": lambda d: schemas(d)["Thing"]["properties"]["parts"].update(
        items={"oneOf": [{"$ref": "#/components/schemas/Part"}, {"$ref": "#/components/schemas/Thing"}]}
    ),
    "a further answer": lambda d: post(d)["responses"].update({"200": {}}),
}


@pytest.mark.parametrize("what", ADDITIONS)
def test_additions_pass(what: str) -> None:
    changed = copy.deepcopy(small())
    ADDITIONS[what](changed)
    assert breaking_changes(small(), changed) == []


def test_an_answer_that_differs_from_its_declaration_fails_the_test_that_got_it(document: Document) -> None:
    contract = Contract(document)

    def response_to(method: str, path: str, status: int, content: Any) -> httpx.Response:
        return httpx.Response(status, json=content, request=httpx.Request(method, f"http://yard{path}"))

    experiments = "/api/v1/workspaces/default/experiments"
    contract.check(response_to("GET", experiments, 200, {"value": []}))
    wrong = [
        (response_to("GET", experiments, 200, {"value": [], "more": 1}), "'more' was unexpected"),
        (response_to("GET", experiments, 200, {"value": [{"id": 1}]}), "is not of type 'string'|is a required property"),
        (response_to("GET", experiments, 418, {}), "answers 418, which it does not declare"),
        (response_to("GET", experiments, 404, {"error": {"code": "x"}}), "is a required property"),
        (response_to("GET", "/api/v1/nowhere", 200, {}), "is not in the document"),
    ]
    for response, message in wrong:
        with pytest.raises(AssertionError, match=message):
            contract.check(response)
    assert contract.template_of("/api/v1/workspaces/w/datastores/d/files/a/b.csv") == (
        "/api/v1/workspaces/{workspace}/datastores/{name}/files/{path}"
    )
    assert contract.template_of("/api/v1/workspaces/w/runs/groups") == "/api/v1/workspaces/{workspace}/runs/groups"


def test_a_failure_that_nobody_expected_is_answered_as_declared(own_yard: YardUnderTest) -> None:
    own_yard.call("PUT", "/api/v1/workspaces/default/computes/damaged", json={"type": "amlcompute"}, expect=200)
    with sqlite3.connect(own_yard.home / "control" / "yard.db") as database:
        database.execute("UPDATE computes SET spec = '{'")
    database.close()
    failed = own_yard.call("GET", "/api/v1/workspaces/default/computes", expect=500)
    error = failed.json()["error"]
    assert error["code"] == "internal" and error["request_id"] == failed.headers["x-request-id"]
    assert "Error" not in failed.text
    wait_for(lambda: error["request_id"] in own_yard.log(), 10, "the log's line")


# Repeated requests


def test_a_repeated_request_is_answered_as_the_first_one_was(yard: YardUnderTest) -> None:
    """With the same Idempotency-Key; nothing is done twice."""
    base = "/api/v1/workspaces/default"
    done = yard.submit("true")
    yard.wait_job(done)
    held = yard.submit("sleep 300")
    endpoint = f"{base}/online-endpoints/repeated"
    yard.call("PUT", endpoint, json={"auth_mode": "key"}, expect=200)
    requests: list[tuple[str, str, Any]] = [
        ("PATCH", f"{base}/jobs/{done}", {"description": "x"}),
        ("POST", f"{base}/jobs/{done}/archive", None),
        ("POST", f"{base}/jobs/{done}/restore", None),
        ("POST", f"{base}/jobs/{done}/rerun", None),
        ("POST", f"{base}/jobs/{held}/cancel", None),
        ("PUT", endpoint, {"description": "x"}),
        ("PUT", f"{base}/batch-endpoints/repeated", {}),
        ("POST", f"{endpoint}/regenerate-keys", {"key_type": "primary"}),
        ("DELETE", f"{base}/batch-endpoints/repeated", None),
    ]
    for index, (method, path, sent) in enumerate(requests):
        headers = {"Idempotency-Key": f"repeated-{index}"}
        first = yard.call(method, path, json=sent, headers=headers)
        keys = yard.call("POST", f"{endpoint}/keys").content
        second = yard.call(method, path, json=sent, headers=headers)
        assert first.is_success and second.is_success, f"{path}: {first.text} {second.text}"
        assert second.content == first.content, path
        assert yard.call("POST", f"{endpoint}/keys").content == keys, path
    yard.call("DELETE", endpoint, expect=204)


def test_a_streamed_body_and_the_mlflow_dialect_go_without_idempotency_keys(yard: YardUnderTest) -> None:
    content, headers = b"streamed", {"Idempotency-Key": "streamed"}
    digest = hashlib.sha256(content).hexdigest()
    part = {"Upload-Offset": "0", "Upload-Length": str(len(content)), **headers}
    yard.call("PUT", f"/api/v1/workspaces/default/blobs/{digest}", content=content, headers=part, expect=201)
    manifest = json.dumps({"files": [["a", digest, len(content)], ["b", digest, len(content)]]}).encode()
    frames = manifest + b"\n" + (f"{digest} {len(content)}\n".encode() + content) * 2
    uploads = "/api/v1/workspaces/default/datastores/workspaceblobstore/uploads/content"
    sent = yard.call("POST", uploads, content=frames, headers=headers, expect=200).json()
    assert sent["missing"] == [] and sent["uri"].startswith("azureml://datastores/workspaceblobstore/paths/LocalUpload/")
    for _ in range(2):
        path, body = "/api/2.0/mlflow/registered-models/alias", {"name": "none", "alias": "x", "version": "1"}
        assert yard.call("POST", path, json=body, headers=headers).status_code == 404
        yard.call("POST", "/api/2.0/mlflow/experiments/set-experiment-tag", json={"experiment_id": "0", "key": "k", "value": "v"},
                  headers=headers, expect=200)  # fmt: skip


# What the server alone fills


NOUNS: dict[str, tuple[str, str, Document]] = {
    "workspaces": ("PUT", "/api/v1/workspaces/filled", {}),
    "datastores": ("PUT", "/api/v1/workspaces/default/datastores/filled", {"type": "azure_blob", "account_name": "a", "container_name": "c"}),
    "computes": ("PUT", "/api/v1/workspaces/default/computes/filled", {"type": "amlcompute"}),
    "data": ("POST", "/api/v1/workspaces/default/data", {"name": "filled", "path": "https://127.0.0.1:1/x", "type": "uri_file"}),
    "environments": ("POST", "/api/v1/workspaces/default/environments", {"name": "filled", "pip": []}),
    "components": (
        "POST", "/api/v1/workspaces/default/components", {"name": "filled", "type": "command", "command": "true", "environment": {"pip": []}},
    ),
    "jobs": ("POST", "/api/v1/workspaces/default/jobs", {"type": "command", "command": "true", "environment": {"pip": []}}),
    "pipelines": ("POST", "/api/v1/workspaces/default/jobs", {"type": "pipeline", "jobs": {"one": {"command": "true", "environment": {"pip": []}}}}),
    "schedules": (
        "PUT", "/api/v1/workspaces/default/schedules/filled",
        {"trigger": {"type": "cron", "expression": "0 0 1 1 *"}, "create_job": {"job": {"type": "command", "command": "true", "environment": {"pip": []}}}},
    ),
    "online endpoints": ("PUT", "/api/v1/workspaces/default/online-endpoints/filled", {}),
    "batch endpoints": ("PUT", "/api/v1/workspaces/default/batch-endpoints/filled", {}),
}  # fmt: skip


@pytest.mark.parametrize("noun", NOUNS)
def test_read_only_fields_count_for_nothing_when_they_are_sent(yard: YardUnderTest, noun: str) -> None:
    method, path, sent = NOUNS[noun]
    contract = contract_of(yard.url)
    operation = contract.document["paths"][str(contract.template_of(path))][method.lower()]
    fields = dict(_read_only(contract.document, operation["requestBody"]["content"]["application/json"]["schema"], sent))
    assert {"id", "creation_context"} <= set(fields)
    shown = yard.call(method, path, json={**sent, **fields}).json()
    assert "error" not in shown, shown
    assert {name: shown[name] for name in fields if shown.get(name) == fields[name]} == {}


def _read_only(document: Document, schema: Document, sent: Document) -> Iterator[tuple[str, Any]]:
    """Each read-only field of the type that is sent, with a value that no server would answer."""
    resolved = _resolved(document, schema)
    for alternative in resolved.get("oneOf", []):
        inner = _resolved(document, alternative)
        if inner["properties"]["type"].get("const") == sent["type"]:
            yield from _read_only(document, inner, sent)
    for name, item in resolved.get("properties", {}).items():
        if item.get("readOnly"):
            yield name, _foreign(document, item)


def _foreign(document: Document, schema: Document) -> Any:
    """A value of the declared type that no server would answer."""
    kinds = [_resolved(document, kind) for kind in schema.get("anyOf", [schema])]
    shown = next(kind for kind in kinds if kind.get("type") != "null")
    match shown.get("type", "string"):
        case "array":
            return [_foreign(document, shown["items"])]
        case "object":
            inner = shown.get("additionalProperties")
            return {"sent": _foreign(document, inner) if isinstance(inner, dict) else "sent"}
        case "boolean":
            return False
    return "sent"


# A client of an earlier version


def test_a_client_leaves_out_what_a_newer_server_adds() -> None:
    job = answered(
        "job", {"type": "command", "command": "true", "environment": "azureml:e:1", "status": "Running", "later": 1, "limits": {"timeout": 3, "later": 1}}
    )  # fmt: skip
    assert (job.status, job.limits.timeout) == ("Running", 3) and not hasattr(job, "later")
    component = answered("component", {"type": "automl", "name": "a", "task": "classification", "primary_metric": "auc"})
    assert component.document()["primary_metric"] == "auc"
    with pytest.raises(Invalid):
        parse(CommandJob, {"command": "true", "environment": "azureml:e:1", "later": 1})


def test_a_client_reads_an_error_with_more_in_it_than_it_knows() -> None:
    problem = {"message": "wrong", "field": "x", "file": "", "line": 1, "column": 2, "later": 3}
    body = {"error": {"code": "c", "kind": "invalid", "message": "m", "request_id": "r", "problems": [problem], "later": 3}}
    with pytest.raises(Invalid) as caught:
        check(cast(Any, SimpleNamespace(status=400, json=lambda: body)))
    assert caught.value.problems == (Problem("wrong", "x", "", 1, 2),)


# The page


def test_the_page_of_the_api_fetches_nothing_and_runs_nothing(turned: InProcessYard) -> None:
    answer = turned.call("GET", "/docs/api", expect=200)
    text = answer.text
    assert answer.headers["content-security-policy"].startswith("default-src 'none'") and answer.headers["content-type"].startswith(
        "text/html"
    )
    style = text.partition("<style>")[2].partition("</style>")[0]
    assert base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() in answer.headers["content-security-policy"]
    assert not re.search(r"<script|<link|<img|<iframe|\bon\w+=|javascript:|(src|href)=\"?(https?:)?//", text)
    assert "POST /api/v1/workspaces/{workspace}/jobs" in text and 'href="#CommandJob-Input"' in text and 'id="CommandJob-Input"' in text
    for path in ("/docs", "/redoc", "/docs/api/oauth2-redirect"):
        turned.call("GET", path, expect=404)


def test_a_browser_at_the_yards_address_is_told_how_to_reach_it_and_nothing_of_what_is_in_it(turned: InProcessYard) -> None:
    answer = turned.call("GET", "/", token="yard_nobody_x", expect=200)
    assert answer.headers["content-type"].startswith("text/html") and "default-src 'none'" in answer.headers["content-security-policy"]
    style = answer.text.partition("<style>")[2].partition("</style>")[0]
    assert base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() in answer.headers["content-security-policy"]
    assert "yard login --url" in answer.text and not re.search(r"<script|<link|<img|<iframe|\bon\w+=|javascript:", answer.text)
    for path in re.findall(r'href="([^"]+)"', answer.text):
        turned.call("GET", path, expect=200)

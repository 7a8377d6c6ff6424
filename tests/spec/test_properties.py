"""Properties: which of them mean something to a yard, and what is said of those that only look as if they did."""

from __future__ import annotations

import types
import typing
from pathlib import Path
from typing import Any

import pytest

from checked_yard import YardUnderTest
from modelyard.core.errors import Invalid
from modelyard.spec.properties import JobProperties, OnlineDeploymentProperties, OnlineEndpointProperties, Properties, nouns

ROOT = Path(__file__).parents[2]
W = "/api/v1/workspaces/default"


def test_a_property_of_the_wrong_type_has_its_default_and_the_others_theirs() -> None:
    read = OnlineDeploymentProperties.read({"scale_down_after_s": "soon", "rate_limit": "600/min", "mine": [1]})
    assert (read.scale_down_after_s, read.rate_limit, read.scale_on, read.optimize) == (60.0, (600, 60), "requests", None)
    assert OnlineDeploymentProperties.read({"optimize": "none"}).optimize is None
    assert [OnlineDeploymentProperties.read({"batching": most}).batching for most in ({"max": 8}, 8, {"max": "8"}, None)] == [8, 8, 8, None]
    assert OnlineDeploymentProperties.check({"mine": 1, "owner": "me", "scale_down_after_s": "1"}) == []


@pytest.mark.parametrize(
    ("properties", "code"),
    [
        ({"rate_limit": "many"}, "invalid_rate"),
        ({"scale_on": "luck"}, "invalid_scale_on"),
        ({"optimize": "tensorrt"}, "invalid_optimize"),
        ({"batching": {"max": 0}}, "invalid_batching"),
        ({"batching": {"most": 2}}, "invalid_batching"),
    ],
)
def test_a_value_without_which_nothing_sensible_can_be_done_is_refused_by_name(properties: dict[str, Any], code: str) -> None:
    with pytest.raises(Invalid, match=f"property {next(iter(properties))} is") as refused:
        OnlineDeploymentProperties.check(properties)
    assert refused.value.code == code and refused.value.hint


def test_what_looks_like_a_property_of_the_yard_and_is_none_is_noted() -> None:
    assert OnlineDeploymentProperties.check({"rate_limits": "1/s"}) == [
        "property rate_limits is none that the yard knows and has no effect; did you mean 'rate_limit'?"
    ]
    assert OnlineDeploymentProperties.check({"allowed_callers": "a"}) == [
        "property allowed_callers belongs to online endpoints; here it has no effect"
    ]
    assert JobProperties.check({"modelyard.program": "parallel"}) == [
        "property modelyard.program is none that the yard knows and has no effect"
    ]
    assert JobProperties.check({"anything": {"of": "mine"}, "mlflow.note": 1, "azureml.git.commit": "c", "rerun_of": "j"}) == []


def test_what_is_no_list_of_callers_lets_nobody_in_instead_of_everybody() -> None:
    allowed = [OnlineEndpointProperties.read({"allowed_callers": value}).allowed_callers for value in ("a, b", ["a", "b"], {}, 7, "", None)]
    assert allowed == [["a", "b"], ["a", "b"], ["{}"], ["7"], [], None]


def test_what_the_yard_settles_is_never_read_from_what_somebody_wrote() -> None:
    written = {"code": "sha256:forged", "environment": "forged:1", "input.data": "sha256:forged", "attempt": 9, "rerun_of": "j"}
    read = JobProperties.read(written, {"environment": "e:1", "input.data": "d:1 sha256:real"})
    assert (read.code, read.environment, read.inputs, read.attempt, read.rerun_of) == (None, "e:1", {"data": "d:1 sha256:real"}, None, "j")
    assert JobProperties.read(written).inputs == {}


def shown(annotation: Any) -> str:
    """A type as the page says it."""
    words = {str: "text", bool: "true or false", float: "number", int: "number", dict: "mapping", list: "list", tuple: "text", Any: "text"}
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return shown(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return shown(next(part for part in typing.get_args(annotation) if part is not type(None)))
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in typing.get_args(annotation))
    return words[origin or annotation]


def lines_of(noun: type[Properties]) -> list[str]:
    lines = []
    for name, field in noun.names().items():
        default = "" if field.default is None else f"`{field.default}`"
        extra: Any = field.json_schema_extra
        lines.append(f"| `{name}` | {shown(field.annotation)} | {default} | {extra['by']} | {field.description} |")
    return lines


def test_every_property_is_documented_and_no_other() -> None:
    text = (ROOT / "docs/reference/properties.md").read_text()
    sections = dict(part.split("\n", 1) for part in text.split("\n## ")[1:])
    assert list(sections) == [noun.noun.capitalize() for noun in nouns()]
    for noun in nouns():
        lines = [line for line in sections[noun.noun.capitalize()].splitlines() if line.startswith("| `")]
        assert lines == lines_of(noun)


def test_what_is_noted_of_properties_stands_in_the_answer(yard: YardUnderTest) -> None:
    name = yard.submit("true", properties={"modelyard.program": "parallel", "mine": 1})
    job = yard.call("GET", f"{W}/jobs/{name}", expect=200).json()
    assert [line for line in job["warnings"] if "property" in line] == JobProperties.check({"modelyard.program": 1})
    body = {"auth_mode": "key", "properties": {"allowed_caller": "anna", "mine": 1}}
    made = yard.call("PUT", f"{W}/online-endpoints/noted", json=body, expect=200).json()
    note = "property allowed_caller is none that the yard knows and has no effect; did you mean 'allowed_callers'?"
    assert made["properties"]["modelyard.notes"] == [note]
    kept = yard.call("GET", f"{W}/online-endpoints/noted", expect=200).json()
    assert kept["properties"] == body["properties"]
    again = yard.call("PUT", f"{W}/online-endpoints/noted", json={"properties": made["properties"]}, expect=200).json()
    assert again["properties"]["modelyard.notes"] == [note], "an answer can be sent again, and its notes are not kept"
    assert "modelyard.notes" not in yard.call("GET", f"{W}/online-endpoints/noted", expect=200).json()["properties"]
    for path, asset in (
        ("environments", {"name": "noted", "pip": []}), ("batch-endpoints/noted", {}),
    ):  # fmt: skip
        method = "PUT" if "/" in path else "POST"
        found = yard.call(method, f"{W}/{path}", json={**asset, "properties": {"modelyard.x": 1, "mine": 2}}).json()
        assert found["properties"]["modelyard.notes"] == ["property modelyard.x is none that the yard knows and has no effect"]
    yard.call("DELETE", f"{W}/online-endpoints/noted", expect=204)


def test_a_change_that_would_make_a_spec_unreadable_is_refused(yard: YardUnderTest) -> None:
    name = yard.submit("true", properties={"mine": 1})
    yard.call("POST", f"{W}/environments", json={"name": "changed", "pip": [], "tags": {"a": "b"}}, expect=201)
    for path in (f"jobs/{name}", "environments/changed/versions/1"):
        refused = yard.call("PATCH", f"{W}/{path}", json={"tags": 5}, expect=400).json()["error"]
        assert refused["code"] == "invalid_spec" and refused["problems"][0]["field"] == "tags"
        yard.call("PATCH", f"{W}/{path}", json={"tags": {"n": 5}, "description": "said"}, expect=200)
        assert yard.call("GET", f"{W}/{path}", expect=200).json()["description"] == "said"
    bare = yard.call("PATCH", f"{W}/jobs/{name}", json={"properties": None}, expect=200).json()
    assert "mine" not in bare["properties"] and "attempt" in bare["properties"]

"""Text from a caller is a value: where it meets a command, a header, SQL or a document, it does not become part of the syntax."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from checked_yard import YardUnderTest
from modelyard.core.errors import Invalid
from modelyard.core.names import as_one_word, one_word
from modelyard.spec import expressions
from modelyard.spec.fields import parse
from modelyard.spec.job import CommandJob

HOSTILE = "a; touch $(pwd)'\"&&ran `id` #50%?.txt"


def test_a_value_is_not_read_again_for_expressions() -> None:
    values = {("inputs", "a"): "${{inputs.b}} $[[x]]", ("inputs", "b"): "secret"}
    text = "${{inputs.a}} $[[--a ${{inputs.a}}]] $[[--c ${{inputs.c}}]]"
    assert expressions.resolve(text, values.get) == "${{inputs.b}} $[[x]] --a ${{inputs.b}} $[[x]] "


@given(st.text(min_size=1))
def test_one_word_is_one_word_in_any_quotes(name: str) -> None:
    word = "/" + as_one_word(name)
    assert one_word(word)
    for written in (word, f'"{word}"', f"'{word}'"):
        assert shlex.split(written) == [word]


def job(**fields: Any) -> CommandJob:
    return parse(CommandJob, {"command": "true", "environment": {"pip": []}, **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {"command": "true\0"},
        {"environment_variables": {"A=B": "x"}},
        {"environment_variables": {"": "x"}},
        {"environment_variables": {"A\nB": "x"}},
        {"environment_variables": {"A": "x\0"}},
        {"inputs": {"a": "x\0"}},
        {"experiment_name": "x\0"},
        {"inputs": {"a": {"type": "uri_file", "path": "azureml://datastores/d/paths/x\0"}}},
    ],
)  # fmt: skip
def test_what_no_process_can_be_given_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        job(**fields)


def test_the_value_of_a_variable_is_any_text() -> None:
    assert job(environment_variables={"A": "two\nlines = $x"}).environment_variables == {"A": "two\nlines = $x"}


def test_a_scripts_header_does_not_end_the_answer() -> None:
    from modelyard_runtime.serving import http1

    response = http1.Response(200, b"{}", [("x-a", "b\r\n\r\nHTTP/1.1 200 OK"), ("x-c\n", "d\0")])
    head, _, body = http1._message(response, b"{}", True).partition(b"\r\n\r\n")
    assert body == b"{}" and head.split(b"\r\n")[2:] == [b"x-a: b    HTTP/1.1 200 OK", b"x-c : d ", b"content-length: 2"]


def test_a_file_name_stays_inside_its_header() -> None:
    from modelyard.assets.files.rest import attachment

    assert attachment("model.pkl") == 'attachment; filename="model.pkl"'
    assert attachment('a"; x="\\é.txt') == "attachment; filename=\"a__ x=___.txt\"; filename*=UTF-8''a%22%3B%20x%3D%22%5C%C3%A9.txt"


def test_text_of_a_run_is_no_markup_on_a_card() -> None:
    from modelyard.oversight.cards.model import _cell

    assert _cell("a\\| b\r\n<script>x</script> [x](javascript:y) `z`") == (
        "a\\&#124; b &lt;script&gt;x&lt;/script&gt; [x]&#40;javascript:y) &#96;z&#96;"
    )


def test_the_caller_of_a_batch_endpoint_adds_nothing_to_its_commands() -> None:
    from modelyard.serving.batch.model import arguments
    from modelyard.spec.component import ComponentInput

    component: Any = SimpleNamespace(inputs={"text": ComponentInput(type="string")})
    assert arguments(component, {"text": "two words, 50% - {a}"})["text"]["value"] == "two words, 50% - {a}"
    for text in ("x; id", "$(id)", "`id`", "a & b", "a | b", "a > b", "a\nid", "'; id", '"; id'):
        with pytest.raises(Invalid) as refused:
            arguments(component, {"text": text})
        assert "on which a shell acts" in str(refused.value)


@pytest.mark.parametrize("key", ['a"b', "a\\b", 'x"."y', "plain", "$.a", "a.b", "é", "a[0]"])
def test_a_key_of_any_spelling_is_found_in_sqlites_json(key: str) -> None:
    from modelyard.storage.filters import json_text

    rows = sa.table("rows", sa.column("tags", sa.Text))
    with sa.create_engine("sqlite://").connect() as connection:
        connection.execute(sa.text("CREATE TABLE rows (tags TEXT)"))
        connection.execute(rows.insert(), [{"tags": json.dumps({key: "1", "other": "2"}, ensure_ascii=False)}, {"tags": "{}"}])
        text = json_text("sqlite", rows.c.tags, key)
        assert connection.execute(sa.select(text).select_from(rows)).scalars().all() == ["1", None]
        assert connection.execute(sa.select(sa.func.count()).where(text == "1").select_from(rows)).scalar() == 1
        connection.rollback()
    connection.engine.dispose()


def test_a_backslash_in_a_pattern_is_a_character(any_yard: YardUnderTest) -> None:
    id = any_yard.mlflow("POST", "experiments/create", {"name": "back\\slash/50%"})["experiment_id"]
    for pattern, matches in (("back\\slash/%", True), ("back\\s%", True), ("back\\\\%", False), ("%/50%", True)):
        found = any_yard.mlflow("POST", "experiments/search", {"filter": f"name LIKE '{pattern}'", "max_results": 100}).get(
            "experiments", []
        )
        assert (id in [item["experiment_id"] for item in found]) == matches, pattern


def uploaded(yard: YardUnderTest, folder: Path, name: str) -> str:
    from modelyard import MLClient
    from modelyard.entities import Data

    folder.mkdir(exist_ok=True)
    (folder / name).write_text("its content\n")
    client = MLClient(None, "sub", "group", "default", url=yard.url, token=yard.token)
    data = client.data.create_or_update(Data(name=f"named-{abs(hash(name))}", type="uri_file", path=str(folder / name)))
    return f"azureml:{data.name}:{data.version}"


@pytest.mark.parametrize("command", ["cat ${{inputs.f}}", 'cat "${{inputs.f}}"', "cat '${{inputs.f}}'", "sh -c \"cat ${{inputs.f}}\"", "cat <<E\n$(cat ${{inputs.f}})\nE"])  # fmt: skip
def test_no_shell_acts_on_the_name_of_a_file(yard: YardUnderTest, tmp_path: Path, command: str) -> None:
    name = yard.submit(f"{command}\nls", inputs={"f": {"type": "uri_file", "path": uploaded(yard, tmp_path / "d", HOSTILE)}})
    assert yard.wait_job(name)["status"] == "Completed", yard.job_log(name)
    log = yard.job_log(name)
    assert log.split() == ["its", "content", "logs", "outputs"], log


def test_nor_on_that_of_one_in_a_local_datastore(yard: YardUnderTest, tmp_path: Path) -> None:
    folder = tmp_path / "my files"
    folder.mkdir()
    (folder / HOSTILE).write_text("its content\n")
    for path in (tmp_path, folder):
        path.chmod(0o755)
    yard.call(
        "PUT", "/api/v1/workspaces/default/datastores/spaced", json={"name": "spaced", "type": "local", "path": str(folder)}, expect=200
    )
    one = {"type": "uri_file", "path": f"azureml://datastores/spaced/paths/{HOSTILE}"}
    name = yard.submit("cat ${{inputs.f}} ${{inputs.all}}/*; ls", inputs={"f": one, "all": {"path": "azureml://datastores/spaced/paths/"}})
    assert yard.wait_job(name)["status"] == "Completed", yard.job_log(name)
    assert yard.job_log(name).split() == ["its", "content", "its", "content", "logs", "outputs"]


def test_an_address_that_others_wrote_is_a_word_or_refused(yard: YardUnderTest) -> None:
    hostile = "https://127.0.0.1/x?a=1&touch"
    asset = {"name": "address", "version": "1", "type": "uri_file", "path": hostile}
    yard.call("POST", "/api/v1/workspaces/default/data", json=asset, expect=201)
    direct = {"type": "uri_file", "mode": "direct", "path": "azureml:address:1"}
    refused = yard.wait_job(yard.submit("echo ${{inputs.u}}", inputs={"u": direct}))
    assert refused["status"] == "Failed" and refused["error"]["code"] == "unsafe_address", refused
    passed = yard.submit('echo "$AZURE_ML_INPUT_u"', inputs={"u": direct})
    assert yard.wait_job(passed)["status"] == "Completed" and yard.job_log(passed).strip() == hostile
    own = yard.submit('echo "${{inputs.u}}"', inputs={"u": {**direct, "path": hostile}})
    assert yard.wait_job(own)["status"] == "Completed" and yard.job_log(own).strip() == hostile


@pytest.mark.parametrize("name", ["../jobs", "a?x=1", "a#b", "a\\b", "", "a\nb", ".", "a/./b"])
def test_the_client_asks_for_nothing_but_what_was_named(name: str) -> None:
    from modelyard import MLClient

    client = MLClient(None, "sub", "group", "default", url="http://127.0.0.1:9", token="x")
    for ask in (client.models.get, client.jobs.get, client.data.get):
        with pytest.raises(Invalid, match="a name that no resource can have"):
            ask(name, "1") if ask != client.jobs.get else ask(name)
    with pytest.raises(Invalid, match="a name that no resource can have"):
        client.models.delete(name)
    with pytest.raises(Invalid, match="a name that no resource can have"):
        client.online_deployments.begin_delete(name, "endpoint")


def test_a_value_is_one_column_of_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    from modelyard.cli.output import show

    show([{"a": "x\ty", "b": "1\n2\tinjected"}], "tsv", None)
    show("two\nlines", "tsv", None)
    show([{"a": "\x1b[2Jx", "b": "[/bold]"}], "table", None)
    assert capsys.readouterr().out.splitlines()[:3] == ["x y\t1 2 injected", "two", "lines"]


def test_a_file_of_any_name_comes_back(yard: YardUnderTest, tmp_path: Path) -> None:
    uri = uploaded(yard, tmp_path / "up", HOSTILE)
    name, version = uri.split(":")[1:]
    path = yard.call("GET", f"/api/v1/workspaces/default/data/{name}/versions/{version}", expect=200).json()["path"]
    from modelyard import MLClient
    from modelyard.sdk.upload import download

    client = MLClient(None, "sub", "group", "default", url=yard.url, token=yard.token)
    (file,) = download(client._transport, path, tmp_path / "down")
    assert (file.name, file.read_text()) == (HOSTILE, "its content\n")


def test_an_output_is_kept_under_its_name_and_written_under_a_plain_one(yard: YardUnderTest, tmp_path: Path) -> None:
    path = "azureml://datastores/workspaceblobstore/paths/odd/a; touch ran.txt"
    name = yard.submit("echo made > ${{outputs.o}}; ls", outputs={"o": {"type": "uri_file", "path": path}})
    assert yard.wait_job(name)["status"] == "Completed", yard.job_log(name)
    assert yard.job_log(name).split() == ["logs", "outputs"]
    after = yard.submit('cat "${{inputs.o}}"', inputs={"o": {"type": "uri_file", "path": path}})
    assert yard.wait_job(after)["status"] == "Completed" and yard.job_log(after) == "made\n"


def test_a_nul_character_is_refused_on_every_database(any_yard: YardUnderTest) -> None:
    body = {"name": "q", "type": "local", "path": "/tmp/\0"}
    answer = any_yard.call("PUT", "/api/v1/workspaces/default/datastores/q", json=body, expect=400)
    assert "path holds a NUL character" in answer.text

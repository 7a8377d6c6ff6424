"""Data is never lost or mixed: outputs merge name by name, and what was referred to stays as it was."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from checked_yard import YardUnderTest

STORE = "azureml://datastores/workspaceblobstore/paths"


def write(yard: YardUnderTest, path: str | None, script: str, ok: bool = True, **output: Any) -> str:
    """A job with one output `o`, written by `script`."""
    name = yard.submit(script, outputs={"o": {"type": "uri_folder", **({"path": path} if path else {}), **output}})
    job = yard.wait_job(name)
    assert job["status"] == ("Completed" if ok else "Failed"), (job.get("error"), yard.job_log(name))
    return name


def put(text: str, file: str = "a.txt") -> str:
    return f"mkdir -p ${{{{outputs.o}}}}/$(dirname {file}) && echo {text} > ${{{{outputs.o}}}}/{file}"


def listed(yard: YardUnderTest, prefix: str) -> dict[str, str]:
    """path → content below a folder of the blob store."""
    files = yard.call(
        "GET", "/api/v1/workspaces/default/datastores/workspaceblobstore/files", params={"prefix": prefix}, expect=200
    ).json()["value"]
    get = "/api/v1/workspaces/default/datastores/workspaceblobstore/files/"
    return {file["path"].removeprefix(prefix): yard.call("GET", get + file["path"], expect=200).text.strip() for file in files}


def read(yard: YardUnderTest, input: dict[str, Any]) -> str:
    """What a job sees in an input: its files with their content, a line each."""
    name = yard.submit('cd ${{inputs.d}} && find . -type f | sort | while read f; do echo "$f=$(cat "$f")"; done', inputs={"d": input})
    assert yard.wait_job(name)["status"] == "Completed", yard.job_log(name)
    return yard.job_log(name).strip()


def test_outputs_at_one_path_merge_name_by_name(any_yard: YardUnderTest) -> None:
    write(any_yard, f"{STORE}/merge/models", put("one", "first.txt"))
    write(any_yard, f"{STORE}/merge/models/", put("two", "second.txt"))
    write(any_yard, f"{STORE}/merge", put("three", "models/deep/third.txt"))
    write(any_yard, f"{STORE}/merge/models", put("new", "first.txt"))
    expected = {"models/first.txt": "new", "models/second.txt": "two", "models/deep/third.txt": "three"}
    assert listed(any_yard, "merge/") == expected
    assert (
        read(any_yard, {"type": "uri_folder", "path": f"{STORE}/merge/"})
        == "./models/deep/third.txt=three\n./models/first.txt=new\n./models/second.txt=two"
    )


def test_two_steps_of_a_pipeline_write_to_one_path(yard: YardUnderTest) -> None:
    def step(text: str, file: str) -> dict[str, Any]:
        out = {"o": {"type": "uri_folder", "path": f"{STORE}/steps/out"}}
        return {"type": "command", "command": put(text, file), "environment": {"pip": []}, "outputs": out}

    body = {"type": "pipeline", "jobs": {"one": step("1", "one.txt"), "two": step("2", "two.txt")}}
    name = yard.call("POST", "/api/v1/workspaces/default/jobs", json=body, expect=201).json()["name"]
    assert yard.wait_job(name)["status"] == "Completed"
    assert listed(yard, "steps/out/") == {"one.txt": "1", "two.txt": "2"}


def test_a_job_that_failed_writes_nothing_over_at_a_shared_path(yard: YardUnderTest) -> None:
    write(yard, f"{STORE}/failing/out", put("good"))
    name = write(yard, f"{STORE}/failing/out", put("bad") + " && " + put("more", "b.txt") + " && exit 3", ok=False)
    assert listed(yard, "failing/out/") == {"a.txt": "good", "b.txt": "more"}
    outputs = yard.call("GET", f"/api/v1/workspaces/default/jobs/{name}/outputs", expect=200).json()
    assert listed(yard, outputs["o"]["uri"].split("/paths/")[1]) == {"a.txt": "bad", "b.txt": "more"}


@pytest.mark.parametrize("path", ["azureml/", "azureml/another/o", "azureml", "LocalUpload/x", "Pinned/x", "Shared", "", "/"])
def test_what_the_yard_fills_itself_is_not_written_over(yard: YardUnderTest, path: str) -> None:
    body = {"command": "true", "environment": {"pip": []}, "outputs": {"o": {"path": f"{STORE}/{path}"}}}
    refused = yard.call("POST", "/api/v1/workspaces/default/jobs", json=body)
    assert refused.status_code == 400 and "output o" in refused.text


def test_a_job_may_name_its_own_folder(yard: YardUnderTest) -> None:
    name = write(yard, STORE + "/azureml/${{name}}/mine/", put("own"))
    assert listed(yard, f"azureml/{name}/") == {"mine/a.txt": "own"}


def test_a_file_output_whose_path_ends_in_a_slash_keeps_what_is_there(yard: YardUnderTest) -> None:
    write(yard, f"{STORE}/slash/out", put("there"))
    name = yard.submit("echo file > ${{outputs.o}}", outputs={"o": {"type": "uri_file", "path": f"{STORE}/slash/out/"}})
    assert yard.wait_job(name)["status"] == "Completed"
    assert listed(yard, "slash/out/") == {"a.txt": "there", "o": "file"}
    named = yard.submit("echo named > ${{outputs.o}}", outputs={"o": {"type": "uri_file", "path": f"{STORE}/slash/out/b.txt"}})
    assert yard.wait_job(named)["status"] == "Completed"
    assert listed(yard, "slash/out/") == {"a.txt": "there", "o": "file", "b.txt": "named"}


@pytest.mark.parametrize(("file", "code"), [("a.txt/below", "path_is_file"), ("folder", "path_is_folder")])
def test_a_file_does_not_become_a_folder(yard: YardUnderTest, file: str, code: str) -> None:
    path = f"{STORE}/kinds/{code}"
    write(yard, path, put("file") + " && " + put("inside", "folder/x"))
    name = write(yard, path, put("other", file) + " && " + put("new", "new.txt"), ok=False)
    assert yard.wait_job(name)["error"]["code"] == code
    assert listed(yard, f"kinds/{code}/") == {"a.txt": "file", "folder/x": "inside", "new.txt": "new"}


def test_what_was_referred_to_stays_as_it_was(any_yard: YardUnderTest, tmp_path: Path) -> None:
    """A data asset, a model, a job's output and a job's input at a path that another job writes over afterwards."""
    path = f"{STORE}/stays/out"
    first = write(any_yard, path, put("before"), name="promoted")
    any_yard.call("POST", "/api/v1/workspaces/default/data", json={"name": "rows", "type": "uri_folder", "path": path}, expect=201)
    file = {"name": "row", "type": "uri_file", "path": f"{path}/a.txt"}
    any_yard.call("POST", "/api/v1/workspaces/default/data", json=file, expect=201)
    model = {"name": "weights", "type": "custom_model", "path": path}
    any_yard.call("POST", "/api/v1/workspaces/default/models", json=model, expect=201)
    reader = any_yard.submit("cat ${{inputs.d}}/a.txt", inputs={"d": {"type": "uri_folder", "path": path}})
    assert any_yard.wait_job(reader)["status"] == "Completed"
    write(any_yard, path, put("after"))
    for reference in ("azureml:promoted:1", "azureml:rows:1", f"azureml://jobs/{first}/outputs/o"):
        assert read(any_yard, {"type": "uri_folder", "path": reference}) == "./a.txt=before", reference
    assert "a.txt=before" in read(any_yard, {"type": "custom_model", "path": "azureml:weights:1"})
    one = any_yard.submit("cat ${{inputs.d}}", inputs={"d": {"type": "uri_file", "path": "azureml:row:1"}})
    assert any_yard.wait_job(one)["status"] == "Completed" and any_yard.job_log(one) == "before\n"
    assert read(any_yard, {"type": "uri_folder", "path": path}) == "./a.txt=after"
    any_yard.run("job", "download", "-n", first, "--output-name", "o", "-p", str(tmp_path / "down"))
    assert next((tmp_path / "down").rglob("a.txt")).read_text() == "before\n"
    again = any_yard.json("job", "rerun", "-n", reader)["name"]
    assert any_yard.wait_job(again)["status"] == "Completed" and any_yard.job_log(again) == "before\n"


def test_a_queued_job_reads_what_lay_there_when_it_was_submitted(tmp_path: Path) -> None:
    yard = YardUnderTest(tmp_path / "home", settings="cpu_slots = 4\n")
    yard.up()
    try:
        path = f"{STORE}/queued/out"
        write(yard, path, put("submitted"))
        narrow = {"type": "amlcompute", "size": "Standard_DS1_v2", "max_instances": 1}
        yard.call("PUT", "/api/v1/workspaces/default/computes/narrow", json=narrow, expect=200)
        blocker = yard.submit("while [ ! -f go ]; do sleep 0.05; done", compute="azureml:narrow")
        queued = yard.submit("cat ${{inputs.d}}/a.txt", inputs={"d": {"type": "uri_folder", "path": path}}, compute="azureml:narrow")
        write(yard, path, put("later"))
        (yard.home / f"jobs/{blocker}/code/go").touch()
        assert yard.wait_job(queued)["status"] == "Completed"
        assert yard.job_log(queued) == "submitted\n"
    finally:
        yard.down()


def test_a_registered_model_is_not_changed_by_its_run(yard: YardUnderTest) -> None:
    experiment = yard.mlflow("POST", "experiments/create", {"name": "changes its artifacts"})["experiment_id"]
    run = yard.mlflow("POST", "runs/create", {"experiment_id": experiment})["run"]["info"]["run_id"]
    at = f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/{run}/artifacts/model/weights"
    yard.call("PUT", at, content=b"registered", expect=200)
    yard.mlflow("POST", "registered-models/create", {"name": "fixed"})
    sent = {"name": "fixed", "source": f"runs:/{run}/model", "run_id": run}
    yard.mlflow("POST", "model-versions/create", sent)
    yard.call("PUT", at, content=b"changed", expect=200)
    fetched = yard.call("GET", "/model-versions/get-artifact", params={"name": "fixed", "version": "1", "path": "weights"}, expect=200)
    assert fetched.content == b"registered"
    uri = yard.mlflow("GET", "model-versions/get-download-uri", None, name="fixed", version="1")["artifact_uri"]
    path = uri.removeprefix("mlflow-artifacts:/")
    assert yard.call("GET", f"/api/2.0/mlflow-artifacts/artifacts/{path}/weights", expect=200).content == b"registered"
    yard.call("DELETE", at, expect=200)
    yard.run("model", "show", "-n", "fixed", "--version", "1")
    assert (
        yard.call("GET", "/model-versions/get-artifact", params={"name": "fixed", "version": "1", "path": "weights"}).content
        == b"registered"
    )


def test_the_same_version_of_data_at_a_path_that_changed_is_refused(yard: YardUnderTest) -> None:
    path = f"{STORE}/again/out"
    write(yard, path, put("one"))
    body = {"name": "again", "version": "1", "type": "uri_folder", "path": path}
    for _ in range(2):
        yard.call("POST", "/api/v1/workspaces/default/data", json=body, expect=201)
    write(yard, path, put("two"))
    refused = yard.call("POST", "/api/v1/workspaces/default/data", json=body, expect=409).json()["error"]
    assert refused["code"] == "version_exists" and "content" in refused["message"]


def test_assets_outlive_the_job_that_wrote_them(yard: YardUnderTest) -> None:
    """Made of its default output, of a reused step's, or of a pipeline's: deleting jobs takes nothing from them, and nothing is silently empty."""
    single = write(yard, None, put("single"))
    body = {"name": "of-a-job", "type": "uri_folder", "path": f"azureml://jobs/{single}/outputs/o"}
    yard.call("POST", "/api/v1/workspaces/default/data", json=body, expect=201)
    command = {"type": "command", "command": put("reused"), "environment": {"pip": []}, "outputs": {"o": {"type": "uri_folder"}}}
    pipeline = {
        "type": "pipeline", "outputs": {"final": {"type": "uri_folder"}},
        "jobs": {"one": {**command, "outputs": {"o": "${{parent.outputs.final}}"}}},
    }  # fmt: skip
    names = []
    for _ in range(2):
        names.append(yard.call("POST", "/api/v1/workspaces/default/jobs", json=pipeline, expect=201).json()["name"])
        assert yard.wait_job(names[-1])["status"] == "Completed"
    first, second = (yard.call("GET", f"/api/v1/workspaces/default/jobs/{name}/outputs", expect=200).json()["final"] for name in names)
    assert first["source"] == second["source"] not in names, "the step that wrote it, also where it was reused"
    model = {"name": "of-a-pipeline", "type": "custom_model", "path": f"azureml://jobs/{names[1]}/outputs/final"}
    yard.call("POST", "/api/v1/workspaces/default/models", json=model, expect=201)
    for name in (single, names[0]):
        yard.call("DELETE", f"/api/v1/workspaces/default/jobs/{name}", expect=204)
    assert read(yard, {"type": "uri_folder", "path": "azureml:of-a-job:1"}) == "./a.txt=single"
    assert "a.txt=reused" in read(yard, {"type": "custom_model", "path": "azureml:of-a-pipeline:1"})
    assert "a.txt=reused" in read(yard, {"type": "uri_folder", "path": f"azureml://jobs/{names[1]}/outputs/final"})


# What the yard does not keep: folders of this machine, addresses


@pytest.fixture
def shared(yard: YardUnderTest, tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "shared"
    folder.mkdir()
    yard.call("PUT", "/api/v1/workspaces/default/datastores/shared", json={"type": "local", "path": str(folder)}, expect=200)
    yield folder
    yard.call("DELETE", "/api/v1/workspaces/default/datastores/shared", expect=204)


def test_outputs_in_a_folder_of_this_machine_merge_and_a_failed_job_writes_nothing_over(yard: YardUnderTest, shared: Path) -> None:
    path = "azureml://datastores/shared/paths/out"
    (shared / "out").mkdir()
    (shared / "out" / "there.txt").write_text("there\n")
    write(yard, path, put("one", "deep/one.txt"))
    failed = write(yard, path, put("bad", "deep/one.txt") + " && " + put("bad", "two.txt") + " && exit 1", ok=False)
    found = {str(file.relative_to(shared / "out")): file.read_text().strip() for file in (shared / "out").rglob("*") if file.is_file()}
    assert found == {"there.txt": "there", "deep/one.txt": "one", "two.txt": "bad"}
    uri = yard.call("GET", f"/api/v1/workspaces/default/jobs/{failed}/outputs", expect=200).json()["o"]["uri"]
    assert listed(yard, uri.split("/paths/")[1]) == {"deep/one.txt": "bad", "two.txt": "bad"}


@pytest.mark.parametrize("promoted", [True, False])
def test_an_asset_in_a_folder_of_this_machine_that_was_changed_is_refused_by_name(
    yard: YardUnderTest, shared: Path, promoted: bool
) -> None:
    path, name = "azureml://datastores/shared/paths/in", f"in-a-folder-{promoted}"
    write(yard, path, put("before"), **({"name": name} if promoted else {}))
    if not promoted:
        yard.call("POST", "/api/v1/workspaces/default/data", json={"name": name, "type": "uri_folder", "path": path}, expect=201)
    given = {"type": "uri_folder", "path": f"azureml:{name}:1"}
    assert read(yard, given) == "./a.txt=before"
    (shared / "in" / "b.txt").write_text("after")
    job = yard.wait_job(yard.submit("ls ${{inputs.d}}", inputs={"d": given}))
    assert job["status"] == "Failed" and job["error"]["code"] == "content_changed" and "shared/paths/in" in job["error"]["message"]
    assert read(yard, {"type": "uri_folder", "path": path}) == "./a.txt=before\n./b.txt=after"


def test_an_asset_of_which_nothing_can_be_told_says_so(yard: YardUnderTest, shared: Path) -> None:
    empty = {"name": "not-there-yet", "type": "uri_folder", "path": "azureml://datastores/shared/paths/later"}
    made = yard.call("POST", "/api/v1/workspaces/default/data", json=empty, expect=201).json()
    (note,) = made["properties"]["modelyard.notes"]
    assert "shared/paths/later" in note and "not be noticed" in note
    (shared / "there").mkdir()
    known = {**empty, "name": "there", "path": "azureml://datastores/shared/paths/there"}
    made = yard.call("POST", "/api/v1/workspaces/default/data", json=known, expect=201).json()
    assert "modelyard.notes" not in made["properties"]


def test_an_asset_on_the_web_that_was_changed_is_refused_by_name(yard: YardUnderTest) -> None:
    state = {"tag": '"one"', "body": b"before"}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("ETag", str(state["tag"]))
            self.send_header("Content-Length", str(len(state["body"])))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(bytes(state["body"]))  # type: ignore[arg-type]

        do_HEAD = do_GET

        def log_message(self, *arguments: Any) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        body = {"name": "on-the-web", "type": "uri_file", "path": f"http://127.0.0.1:{server.server_address[1]}/rows.csv"}
        yard.call("POST", "/api/v1/workspaces/default/data", json=body, expect=201)
        given = {"d": {"type": "uri_file", "path": "azureml:on-the-web:1"}}
        name = yard.submit("cat ${{inputs.d}}", inputs=given)
        assert yard.wait_job(name)["status"] == "Completed" and yard.job_log(name) == "before"
        state.update(tag='"two"', body=b"after")
        job = yard.wait_job(yard.submit("cat ${{inputs.d}}", inputs=given))
        assert job["status"] == "Failed" and job["error"]["code"] == "content_changed" and "rows.csv" in job["error"]["message"]
    finally:
        server.shutdown()
        server.server_close()

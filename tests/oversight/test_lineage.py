"""What a model or data version was made from and what was made from it: through pipelines, sweeps, reused steps, nested runs and registries."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import orjson
import pytest

from modelyard.assets.files import service as files
from modelyard.cli.nouns.lineage import tree
from modelyard.core.errors import Invalid
from modelyard.oversight.lineage import service
from modelyard.oversight.lineage.emission import read_setting
from modelyard.oversight.lineage.loop import Emitter
from modelyard.spec.references import BLOBSTORE
from modelyard.storage.migrate import migrate
from modelyard.storage.open import open_database
from modelyard.testing.memory.executor import Process
from modelyard.testing.yard import InProcessYard

BASE = "/api/v1/workspaces/default"
EMPTY = {"pip": []}


class Works:
    """A yard whose commands write a file to every output; `hold` goes on until it is finished."""

    def __init__(self, root: Path) -> None:
        self.tokens: dict[str, str] = {}
        self.yard = InProcessYard(root, answer=self._answer)

    def _answer(self, process: Process) -> int | None:
        self.tokens[process.run.id.job] = process.environment["MLFLOW_TRACKING_TOKEN"]
        for port in process.run.outputs:
            process.files[f"/outputs/{port}/made.txt"] = process.command.encode()
        return None if process.command.startswith("hold") else 0

    def post(self, path: str, body: dict[str, Any], expect: int = 201) -> dict[str, Any]:
        return dict(self.yard.call("POST", f"{BASE}/{path}", json=body, expect=expect).json())

    def job(self, body: dict[str, Any]) -> dict[str, Any]:
        name = self.post("jobs", {"environment": EMPTY, **body} if body.get("type", "command") == "command" else body)["name"]
        self.yard.settle()
        return dict(self.yard.call("GET", f"{BASE}/jobs/{name}", expect=200).json())

    def data(self, name: str) -> str:
        blob = self.yard.yard.objects.put_bytes(name.encode())
        self.yard.write(lambda unit: files.put_file(unit, BLOBSTORE, f"{name}/a.csv", blob.digest, blob.size))
        made = self.post("data", {"name": name, "path": f"azureml://datastores/{BLOBSTORE}/paths/{name}/", "type": "uri_folder"})
        return f"{name}:{made['version']}"

    def model(self, name: str, path: str) -> str:
        return f"{name}:{self.post('models', {'name': name, 'path': path, 'type': 'custom_model'})['version']}"

    def lineage(self, kind: str, name: str, **params: Any) -> dict[str, Any]:
        return dict(self.yard.call("GET", f"{BASE}/lineage/{kind}/{name}", params=params, expect=200).json())


@pytest.fixture
def works(tmp_path: Path) -> Iterator[Works]:
    made = Works(tmp_path / "home")
    yield made
    made.yard.close()


def names(steps: list[dict[str, Any]], *kinds: str) -> set[str]:
    return {step["name"] for step in steps if step["kind"] in (kinds or ("job", "model", "data"))}


def step(command: str, inputs: dict[str, Any], **more: Any) -> dict[str, Any]:
    body = {"type": "command", "command": command, "environment": EMPTY, "outputs": {"o": {"type": "uri_folder"}}, "inputs": inputs}
    return {**body, **more}


def pipeline(raw: str) -> dict[str, Any]:
    """clean → train, with a step beside them that reads other data."""
    return {
        "type": "pipeline",
        "inputs": {"raw": {"type": "uri_folder", "path": f"azureml:{raw}"}},
        "outputs": {"model": {"type": "uri_folder"}},
        "jobs": {
            "clean": step("clean", {"raw": "${{parent.inputs.raw}}"}),
            "train": step("train", {"from": "${{parent.jobs.clean.outputs.o}}"}, outputs={"o": "${{parent.outputs.model}}"}),
            "report": step("report", {"other": {"type": "uri_folder", "path": "azureml:other:1"}}),
        },
    }


def test_a_model_of_a_pipelines_output_leads_to_the_data_of_its_first_step_and_back(works: Works) -> None:
    raw, other = works.data("raw"), works.data("other")
    job = works.job(pipeline(raw))
    clean, train, report = (job["steps"][name]["job_name"] for name in ("clean", "train", "report"))
    model = works.model("churn", f"azureml://jobs/{job['name']}/outputs/model")
    found = works.lineage("model", model)
    assert names(found["upstream"]) == {train, clean, raw, job["name"]}
    assert not {report, other} & names(found["upstream"]), "what only stands beside it did not lead to the model"
    back = works.lineage("data", raw)
    assert {clean, train, job["name"], model} <= names(back["downstream"])
    assert model not in names(works.lineage("data", other)["downstream"])
    assert {"source": {"kind": "job", "name": clean}, "target": {"kind": "job", "name": train}, "relation": "read by"} in found["edges"]


def test_what_is_named_by_the_path_of_an_output_comes_from_the_job_that_wrote_it(works: Works) -> None:
    raw = works.data("raw")
    job = works.job(step("train ${{inputs.i}}", {"i": {"type": "uri_folder", "path": f"azureml:{raw}"}}))["name"]
    below = f"datastores/{BLOBSTORE}/paths/azureml/{job}/o"
    long = f"azureml://subscriptions/s/resourcegroups/g/workspaces/default/{below}/"
    model = works.model("churn", f"azureml://{below}/made.txt")
    data = works.post("data", {"name": "made", "path": long, "type": "uri_folder"})
    reader = works.job({"command": "r ${{inputs.i}}", "inputs": {"i": {"type": "uri_folder", "path": f"azureml://{below}/"}}})["name"]
    assert works.post("models", {"name": "again", "path": f"azureml://{below}/", "type": "custom_model"})["job_name"] == job
    for kind, name in (("model", model), ("data", f"made:{data['version']}"), ("job", reader)):
        assert names(works.lineage(kind, name)["upstream"]) == {job, raw}, kind
    assert {model, "made:1", reader} <= names(works.lineage("data", raw)["downstream"])


def test_a_reused_step_is_behind_the_model_of_the_pipeline_that_reused_it(works: Works) -> None:
    raw = works.data("raw")
    works.data("other")
    first = works.job(pipeline(raw))
    second = works.job(pipeline(raw))
    clean = first["steps"]["clean"]["job_name"]
    assert second["steps"]["clean"]["reused_from"] == clean
    model = works.model("churn", f"azureml://jobs/{second['name']}/outputs/model")
    assert {raw, clean} <= names(works.lineage("model", model)["upstream"])
    back = works.lineage("data", raw)
    assert model in names(back["downstream"]) and second["name"] in names(back["downstream"])


def test_the_model_of_a_sweep_comes_from_the_trial_that_wrote_it_and_its_card_tells_of_that_trial(works: Works) -> None:
    raw = works.data("raw")
    sweep = works.post(
        "jobs",
        {
            "type": "sweep", "objective": {"goal": "minimize", "primary_metric": "loss"}, "sampling_algorithm": "grid",
            "search_space": {"x": {"type": "choice", "values": [1, 2, 3]}}, "limits": {"max_total_trials": 3, "max_concurrent_trials": 3},
            "inputs": {"raw": {"type": "uri_folder", "path": f"azureml:{raw}"}},
            "outputs": {"model": {"type": "custom_model", "name": "swept"}},
            "trial": {"command": "hold ${{search_space.x}} ${{inputs.raw}} ${{outputs.model}}", "environment": EMPTY},
        },
    )["name"]  # fmt: skip
    works.yard.settle()
    trials = works.yard.call("GET", f"{BASE}/jobs/{sweep}", expect=200).json()["trials"]
    for trial in trials:
        body = {"run_id": trial["job_name"], "metrics": [{"key": "loss", "value": abs(trial["params"]["x"] - 2), "timestamp": 1}]}
        params = [{"key": "x", "value": str(trial["params"]["x"])}]
        works.yard.mlflow("POST", "runs/log-batch", {**body, "params": params}, token=works.tokens[trial["job_name"]])
        works.yard.executor.finish(trial["job_name"])
    works.yard.settle()
    best = works.yard.call("GET", f"{BASE}/jobs/{sweep}", expect=200).json()["best"]["job_name"]
    upstream = works.lineage("model", "swept:1")["upstream"]
    assert names(upstream, "job") == {best, sweep} and raw in names(upstream)
    card = works.yard.call("GET", f"{BASE}/models/swept/versions/1/card", expect=200).json()
    assert card["run"]["run_id"] == best and card["run"]["taken_over_by"] == sweep
    assert card["run"]["metrics"] == {"loss": 0} and card["run"]["params"] == {"x": "2"} and card["inputs"] == {"x": "2"}
    assert card["made_from"] == [raw] and card["data"]["raw"].startswith(raw)
    assert card["model"]["creation_context"]["created_by"] == "admin"
    assert len(names(works.lineage("job", sweep)["upstream"], "job")) == 3, "asked for the sweep itself, all its trials are behind it"


def test_a_model_of_a_run_inside_a_job_leads_to_the_data_of_the_job(works: Works) -> None:
    raw = works.data("raw")
    job = works.job({"command": "hold ${{inputs.raw}}", "inputs": {"raw": {"type": "uri_folder", "path": f"azureml:{raw}"}}})["name"]
    experiment = works.yard.mlflow("GET", "runs/get", run_id=job)["run"]["info"]["experiment_id"]
    tags = [{"key": "mlflow.parentRunId", "value": job}]
    body = {"experiment_id": experiment, "start_time": 1, "tags": tags}
    child = works.yard.mlflow("POST", "runs/create", body, token=works.tokens[job])["run"]["info"]["run_id"]
    place = f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/{child}/artifacts/model/MLmodel"
    works.yard.call("PUT", place, content=b"flavors: {}\n", token=works.tokens[job], expect=200)
    works.yard.executor.finish(job)
    works.yard.settle()
    model = works.model("nested", f"runs:/{child}/model")
    assert {child, job, raw} <= names(works.lineage("model", model)["upstream"])
    assert model in names(works.lineage("data", raw)["downstream"])
    card = works.yard.call("GET", f"{BASE}/models/nested/versions/1/card", expect=200).json()
    assert card["made_from"] == [raw] and "raw" in card["data"]


def test_data_made_of_an_output_and_of_a_loop_lead_back_to_what_was_read(works: Works) -> None:
    raw = works.data("raw")
    loop = {
        "type": "pipeline",
        "inputs": {"raw": {"type": "uri_folder", "path": f"azureml:{raw}"}},
        "outputs": {"all": {"type": "uri_folder"}},
        "jobs": {
            "each": {"type": "parallel_for", "body": "${{parent.jobs.part}}", "items": '[{"n": 1}, {"n": 2}]'},
            "part": step("part", {"raw": "${{parent.inputs.raw}}", "n": 0}, component=None),
            "join": step("join", {"parts": "${{parent.jobs.each.outputs.o}}"}, outputs={"o": "${{parent.outputs.all}}"}),
        },
    }
    body = {key: value for key, value in loop["jobs"]["part"].items() if key != "component"}  # type: ignore[index]
    component = {"type": "command", "name": "part", **{key: body[key] for key in ("command", "environment", "outputs")}}
    component["inputs"] = {"raw": {"type": "uri_folder"}, "n": {"type": "integer"}}
    loop["jobs"]["part"] = {"type": "command", "component": component, "inputs": {"raw": "${{parent.inputs.raw}}", "n": 0}}  # type: ignore[index]
    job = works.job(loop)
    assert job["status"] == "Completed", job.get("error")
    made = works.post("data", {"name": "joined", "type": "uri_folder", "path": f"azureml://jobs/{job['name']}/outputs/all"})
    upstream = works.lineage("data", f"joined:{made['version']}")["upstream"]
    assert raw in names(upstream) and job["steps"]["join"]["job_name"] in names(upstream)
    assert job["steps"]["each/1"]["job_name"] in names(upstream)


def test_files_without_a_name_and_paths_that_several_jobs_write_to_are_behind_what_was_made_of_them(works: Works) -> None:
    works.data("raw")  # its path is read below, without its name
    shared = "azureml://datastores/workspaceblobstore/paths/scenes/models"
    read = {"type": "uri_folder", "path": "azureml://datastores/workspaceblobstore/paths/raw/"}
    writers = set()
    for number in (1, 2):
        command = f"write {number} ${{{{inputs.i}}}} ${{{{outputs.o}}}}"
        job = works.job(
            {"command": command, "inputs": {"i": read}, "outputs": {"o": {"type": "uri_folder", "path": f"{shared}/{number}/"}}}
        )
        assert job["status"] == "Completed", job.get("error")
        writers.add(job["name"])
    made = works.post("data", {"name": "scenes", "type": "uri_folder", "path": shared + "/"})
    upstream = works.lineage("data", f"scenes:{made['version']}")["upstream"]
    assert writers == names(upstream, "job") and read["path"] in names(upstream, "path")
    reader = works.job({"command": "r ${{inputs.i}}", "inputs": {"i": {"type": "uri_folder", "path": f"{shared}/2/"}}})["name"]
    second = works.lineage("job", reader)["upstream"]
    assert len(names(second, "job")) == 1 and names(second, "job") < writers


def test_an_asset_of_a_registry_is_not_taken_for_the_workspaces_own_of_that_name(works: Works) -> None:
    works.yard.call("PUT", "/api/v1/workspaces/shared", json={"kind": "registry"}, expect=200)
    own = works.data("raw")
    works.yard.call("POST", f"{BASE}/data/raw/versions/1/share", json={"registry": "shared"}, expect=201)
    path = "azureml://registries/shared/data/raw/versions/1"
    job = works.job({"command": "read ${{inputs.raw}}", "inputs": {"raw": {"type": "uri_folder", "path": path}}})
    assert job["status"] == "Completed"
    assert "shared/raw:1" in names(works.lineage("job", job["name"])["upstream"], "data")
    assert job["name"] not in names(works.lineage("data", own)["downstream"])


def test_who_made_each_part_stands_with_it_and_a_deleted_one_is_called_so(works: Works) -> None:
    raw = works.data("raw")
    works.data("other")
    works.yard.call("POST", "/api/v1/principals", json={"name": "ada"}, expect=201)
    role = "/api/v1/principals/ada/roles/AzureML Data Scientist"
    works.yard.call("PUT", role, params={"workspace_name": "default"}, expect=200)
    adas = works.yard.call("POST", "/api/v1/tokens", json={"principal": "ada"}, expect=201).json()["token"]
    job = works.yard.call("POST", f"{BASE}/jobs", json=pipeline(raw), token=adas, expect=201).json()
    works.yard.settle()
    model = works.model("churn", f"azureml://jobs/{job['name']}/outputs/model")
    found = works.lineage("model", model)
    makers = {kind: {item["created_by"] for item in found["upstream"] if item["kind"] == kind} for kind in ("job", "data")}
    assert makers == {"job": {"ada"}, "data": {"admin"}}, "the steps are hers, what they read is not"
    assert {item["status"] for item in found["upstream"] if item["kind"] == "job"} == {"Completed"}
    lone = works.job({"command": "lone", "outputs": {"o": {"type": "uri_folder"}}})["name"]
    reader = works.job({"command": "r ${{inputs.i}}", "inputs": {"i": {"type": "uri_folder", "path": f"azureml://jobs/{lone}/outputs/o"}}})[
        "name"
    ]
    works.yard.call("DELETE", f"{BASE}/jobs/{lone}", expect=204)
    (upstream,) = (item for item in works.lineage("job", reader)["upstream"] if item["name"] == lone)
    assert upstream["status"] == "Deleted"
    curated = works.job({"command": "c", "environment": "azureml:AzureML-sklearn-1.5@latest"})["name"]
    (upstream,) = (item for item in works.lineage("job", curated)["upstream"] if item["kind"] == "environment")
    assert "curated" in upstream["name"] and "status" not in upstream, "a curated environment cannot be deleted"


def test_a_lineage_that_is_cut_off_says_so(works: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = works.data("raw")
    works.data("other")
    job = works.job(pipeline(raw))
    model = works.model("churn", f"azureml://jobs/{job['name']}/outputs/model")
    assert works.lineage("model", model)["truncated"] is False
    assert works.lineage("model", model, depth=1)["truncated"] is True
    monkeypatch.setattr(service, "MAX_NODES", 3)
    assert works.lineage("model", model)["truncated"] is True
    works.yard.call("GET", f"{BASE}/lineage/model/{model}/openlineage", expect=400)


def test_openlineage_events_follow_from_step_to_step(works: Works) -> None:
    raw = works.data("raw")
    works.data("other")
    job = works.job(pipeline(raw))
    works.model("churn", f"azureml://jobs/{job['name']}/outputs/model")
    events = works.yard.call("GET", f"{BASE}/lineage/model/churn/openlineage", expect=200).json()["value"]
    by_job = {event["job"]["name"]: event for event in events}
    clean, train = (by_job[job["steps"][name]["job_name"]] for name in ("clean", "train"))
    assert [item["name"] for item in clean["inputs"]] == ["raw"]
    assert [item for item in clean["outputs"] if item["namespace"].endswith(".output")] == train["inputs"]
    assert clean["run"]["facets"]["parent"]["job"]["name"] == job["name"]


class Collector(BaseHTTPRequestHandler):
    """An OpenLineage backend: takes events, or answers with `status`."""

    taken: ClassVar[list[dict[str, Any]]] = []
    status: ClassVar[int] = 201

    def do_POST(self) -> None:
        event = orjson.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.headers["Authorization"] == "Bearer key-1" and self.path == "/api/v1/lineage"
        if self.status == 201:
            self.taken.append(event)
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


def emitter(works: Works, target: str) -> Emitter:
    works.yard.yard.settings = replace(works.yard.yard.settings, openlineage=target, openlineage_api_key="key-1")
    made = Emitter(works.yard.yard)
    works.yard.run(made.turn())
    return made


def told(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(event["eventType"], event["job"]["name"]) for event in events]


def test_events_go_to_an_address_in_order_wait_while_it_is_away_and_one_that_it_refuses_holds_up_none(works: Works) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Collector.taken.clear()
    Collector.status = 503
    lone: dict[str, Any] = {"command": "lone", "outputs": {"o": {"type": "uri_folder", "name": "made"}}}
    try:
        works.job(lone)
        emitting = emitter(works, f"http://127.0.0.1:{server.server_port}/api/v1/lineage")
        first = works.job(lone)["name"]
        works.yard.run(emitting.turn())
        assert not Collector.taken and works.yard.yard.alarms.counts() == {"openlineage_not_taken": 1}
        Collector.status = 201
        works.yard.run(Emitter(works.yard.yard).turn())  # a server that was started anew goes on where the other was
        assert told(Collector.taken) == [("START", first), ("COMPLETE", first)] and not works.yard.yard.alarms.counts()
        assert [item["name"] for item in Collector.taken[1]["outputs"]] == ["made", f"{first}/o"]
        Collector.status = 400
        works.job(lone)
        works.yard.run(emitting.turn())
        Collector.status = 201
        last = works.job(lone)["name"]
        works.yard.run(emitting.turn())
        assert told(Collector.taken)[2:] == [("START", last), ("COMPLETE", last)]
    finally:
        server.shutdown()
        server.server_close()


def test_events_go_to_a_file_a_line_each(works: Works, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    emitting = emitter(works, str(file))
    raw = works.data("raw")
    works.data("other")
    job = works.job(pipeline(raw))
    for _ in range(2):
        works.yard.run(emitting.turn())
    events = [orjson.loads(line) for line in file.read_bytes().splitlines()]
    assert told(events)[0] == ("START", job["name"]) and told(events)[-1] == ("COMPLETE", job["name"]) and len(events) == 8
    assert file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(Invalid, match="neither an http address nor the whole path"):
        read_setting("events.jsonl", "")


def test_the_tree_for_people_names_each_resource_once_and_says_how_many_are_left_out() -> None:
    trials = [{"kind": "job", "name": f"t{n}", "via": "data raw:1", "relation": "read by", "distance": 1} for n in range(15)]
    edges = [
        {"source": {"kind": "data", "name": "raw:1"}, "target": {"kind": "job", "name": item["name"]}, "relation": "read by"}
        for item in trials
    ]
    both = {"source": {"kind": "job", "name": "t0"}, "target": {"kind": "job", "name": "t1"}, "relation": "read by"}
    thing = {"kind": "data", "name": "raw:1", "created_by": "ada", "created_at": "2026-01-05T12:00:00Z"}
    lines = list(tree({"thing": thing, "upstream": [], "downstream": trials, "edges": [*edges, both], "truncated": False}))
    assert lines[:4] == ["data raw:1  (by ada, 2026-01-05 12:00)", "used for", "├── job t0", "│   └── job t1 (again)"]
    assert lines[-1] == "└── … and 5 more of kind job; -o json has them all"
    assert list(tree({"thing": thing, "upstream": [], "downstream": [], "edges": [], "truncated": False}))[-1].startswith(
        "(nothing is known"
    )


def test_an_older_yard_learns_what_its_records_tell_of_lineage(tmp_path: Path) -> None:
    path = tmp_path / "yard.db"
    old = sqlite3.connect(path)
    old.executescript((Path(__file__).parents[1] / "fixtures" / "yard-0004.sql").read_text())
    step, parent = "sweet_apple_kxgumnvdga", "kept"
    spec = orjson.dumps({"inputs": {"i": {"path": "azureml://jobs/earlier/outputs/o"}, "n": {"value": 3}}}).decode()
    old.execute("UPDATE jobs SET spec = ? WHERE name = ?", (spec, step))
    old.execute("UPDATE asset_versions SET created_by = ? WHERE name = 'rows'", (f"job {step}",))
    folder = f"azureml://datastores/workspaceblobstore/paths/azureml/{step}/o/"
    old.executemany("INSERT INTO named_outputs VALUES ('default', ?, ?, 'uri_folder', ?)", [(step, "o", folder), (parent, "all", folder)])
    old.commit()
    old.close()
    db = open_database(f"sqlite:///{path}")
    migrate(db, tmp_path)
    db.close()
    new = sqlite3.connect(path)
    assert new.execute("SELECT run, source FROM named_outputs ORDER BY run").fetchall() == [(parent, step), (step, None)]
    assert new.execute("SELECT holder, name, strong FROM holds WHERE kind = 'job'").fetchall() == [(step, "earlier", 0)]
    assert new.execute("SELECT created_by, made_in FROM asset_versions WHERE name = 'rows'").fetchall() == [("admin", step)]
    new.close()

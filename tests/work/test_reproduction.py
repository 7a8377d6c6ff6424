"""Jobs that can be made again: rerun and verify, lineage, deletion that lasts, system metrics, groups of runs."""

from __future__ import annotations

import subprocess
from typing import Any

from checked_yard import YardUnderTest

LOG = """python3 - <<'P'
import json, os, random, urllib.request as u
points = [{{"key": "loss", "value": {value}, "timestamp": 1, "step": s}} for s in range(3)]
body = {{"run_id": os.environ["MLFLOW_RUN_ID"], "metrics": points, "params": [{{"key": "random" + "_state", "value": "{seed}"}}]}}
request = u.Request(os.environ["MLFLOW_TRACKING_URI"] + "/api/2.0/mlflow/runs/log-batch", json.dumps(body).encode(),
    {{"Authorization": "Bearer " + os.environ["MLFLOW_TRACKING_TOKEN"], "Content-Type": "application/json"}})
u.urlopen(request).read()
P
echo kept > $AZURE_ML_OUTPUT_out/file"""


def submit(yard: YardUnderTest, value: str = "1 / (s + 1)", seed: str = "None", **fields: Any) -> str:
    outputs = {"out": {"type": "uri_folder"}, **fields.pop("outputs", {})}
    return yard.submit(LOG.format(value=value, seed=seed), outputs=outputs, **fields)


def verify(yard: YardUnderTest, first: str) -> dict[str, Any]:
    yard.wait_job(first)
    again = yard.call("POST", f"/api/v1/workspaces/default/jobs/{first}/rerun", expect=201).json()["name"]
    assert yard.wait_job(again)["status"] == "Completed", yard.job_log(again)
    return dict(yard.call("GET", f"/api/v1/workspaces/default/jobs/{first}/verify?against={again}", expect=200).json())


def test_a_rerun_that_comes_to_the_same_is_identical(yard: YardUnderTest) -> None:
    report = verify(yard, submit(yard))
    assert report["identical"] and report["compared"] == {"metrics": 1, "params": 1, "outputs": 1, "artifacts": 0}, report
    assert any(line.startswith("seeds:") for line in report["unpinned"]), "autologgers log random_state also where none is set"
    assert not any(line.startswith("seeds:") for line in verify(yard, submit(yard, seed="3"))["unpinned"])


def test_a_rerun_that_differs_names_what_differs(yard: YardUnderTest) -> None:
    report = verify(yard, submit(yard, "random.random()"))
    assert not report["identical"] and [item["name"] for item in report["differences"]] == ["loss"]


def test_a_job_of_which_something_was_made_is_kept_and_its_lineage_told(yard: YardUnderTest) -> None:
    base = "/api/v1/workspaces/default"
    name = submit(yard, outputs={"out": {"type": "uri_folder", "name": "made-of-it"}})
    yard.wait_job(name)
    found = yard.call("GET", f"{base}/lineage/data/made-of-it", expect=200).json()
    assert (
        found["upstream"][0].items()
        >= {"kind": "job", "name": name, "via": "data made-of-it:1", "distance": 1, "created_by": "admin"}.items()
    )
    down = yard.call("GET", f"{base}/lineage/job/{name}", expect=200).json()["downstream"]
    assert ("data", "made-of-it:1") in [(step["kind"], step["name"]) for step in down]
    (event,) = yard.call("GET", f"{base}/lineage/job/{name}/openlineage", expect=200).json()["value"]
    assert event["eventType"] == "COMPLETE" and event["outputs"][0]["name"] == "made-of-it"
    refused = yard.call("DELETE", f"{base}/jobs/{name}", expect=409).json()["error"]
    assert "made-of-it:1" in refused["message"]
    yard.call("GET", f"{base}/lineage/model/none", expect=404)
    yard.call("GET", f"{base}/lineage/bogus/none", expect=400)


def test_a_deleted_job_is_gone_with_all_it_left(yard: YardUnderTest) -> None:
    base = "/api/v1/workspaces/default"
    name = submit(yard)
    yard.wait_job(name)
    yard.call("DELETE", f"{base}/jobs/{name}", expect=204)
    yard.call("GET", f"{base}/jobs/{name}", expect=404)
    yard.mlflow("GET", "runs/get", run_id=name, expect=404)
    assert not (yard.home / "jobs" / name).exists()
    running = yard.submit("sleep 60")
    yard.call("DELETE", f"{base}/jobs/{running}", expect=409)
    yard.call("POST", f"{base}/jobs/{running}/cancel", expect=200)


def test_gc_removes_runs_when_their_time_to_come_back_is_over(own_yard: YardUnderTest) -> None:
    id = own_yard.mlflow("POST", "experiments/create", {"name": "gone"})["experiment_id"]
    run = own_yard.mlflow("POST", "runs/create", {"experiment_id": id, "start_time": 1})["run"]["info"]["run_id"]
    own_yard.call("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{id}/{run}/artifacts/a.txt", content=b"x", expect=200)
    own_yard.mlflow("POST", "experiments/delete", {"experiment_id": id})
    own_yard.run("down")
    assert "removed" not in own_yard.run("gc", "--deleted-days", "1").stderr.split("files")[0].replace("removed 0", "")
    own_yard.run("gc", "--deleted-days", "0")
    own_yard.up()
    own_yard.mlflow("GET", "runs/get", run_id=run, expect=404)
    own_yard.mlflow("GET", "experiments/get", experiment_id=id, expect=404)


def test_what_a_job_uses_of_the_machine_is_measured(yard: YardUnderTest) -> None:
    name = yard.submit("python3 -c 'import time; e = time.time() + 1.6\nwhile time.time() < e: pass'")
    yard.wait_job(name)
    metrics = {m["key"]: m["value"] for m in yard.mlflow("GET", "runs/get", run_id=name)["run"]["data"]["metrics"]}
    assert metrics["system/cpu_utilization_percentage"] > 10 and metrics["system/system_memory_usage_megabytes"] > 1


def test_runs_are_grouped_projected_counted_and_filtered_jobs_found(yard: YardUnderTest) -> None:
    base = "/api/v1/workspaces/default"
    id = yard.mlflow("POST", "experiments/create", {"name": "seeds"})["experiment_id"]
    for depth in ("3", "5"):
        for seed in range(3):
            run = yard.mlflow("POST", "runs/create", {"experiment_id": id, "start_time": 1})["run"]["info"]["run_id"]
            params = [{"key": "depth", "value": depth}, {"key": "seed", "value": str(seed)}]
            metrics = [{"key": "loss", "value": int(depth) + seed, "timestamp": 1}]
            yard.mlflow("POST", "runs/log-batch", {"run_id": run, "params": params, "metrics": metrics})
    for way in ("ignore=seed", "by=params.depth"):
        groups = yard.call("GET", f"{base}/runs/groups?over=loss&experiment=seeds&{way}", expect=200).json()["value"]
        found = {group["by"]["params.depth"]: group["metrics"]["loss"] for group in groups}
        assert found["3"]["mean"] == 4 and found["5"]["std"] == 1 and found["5"]["count"] == 3
    page = yard.call("GET", f"{base}/runs?experiment=seeds&columns=metrics.loss&count=true&limit=2", expect=200).json()
    assert page["count"] == 6 and len(page["value"]) == 2 and page["value"][0]["params"] == {} and "loss" in page["value"][0]["metrics"]
    yard.call("GET", f"{base}/runs?experiment=none", expect=404)
    yard.call("GET", f"{base}/runs?columns=bogus", expect=400)
    yard.call("GET", f"{base}/runs/groups?over=loss", expect=400)
    tagged = yard.submit("true", tags={"team": "blue"})
    names = [job["name"] for job in yard.call("GET", f"{base}/jobs?tag=team=blue", expect=200).json()["value"]]
    assert names == [tagged] and yard.call("GET", f"{base}/jobs?tag=team=red", expect=200).json()["value"] == []


def test_uncommitted_changes_travel_with_the_job(yard: YardUnderTest, tmp_path: Any) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "a.sh").write_text("echo one\n")

    def git(*arguments: str) -> None:
        subprocess.run(["git", "-c", "user.name=n", "-c", "user.email=e@x", "-C", str(code), *arguments], check=True, capture_output=True)

    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    git("remote", "add", "origin", "https://someone:secret@example.org/code.git")
    (code / "a.sh").write_text("echo two\n")
    (tmp_path / "job.yml").write_text("command: sh a.sh\ncode: code\nenvironment: {pip: []}\n")
    properties = yard.json("job", "create", "-f", str(tmp_path / "job.yml"))["properties"]
    assert properties["azureml.git.dirty"] == "True" and properties["azureml.git.repository_uri"] == "https://example.org/code.git"
    assert len(properties["azureml.git.commit"]) == 40 and properties["azureml.git.diff"].endswith("uncommitted.patch")

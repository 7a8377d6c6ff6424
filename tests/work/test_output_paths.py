"""What is shown of the paths of a job's outputs."""

from __future__ import annotations

from checked_yard import YardUnderTest

JOBS = "/api/v1/workspaces/default/jobs"
PATH = "azureml://datastores/workspaceblobstore/paths/kept/${{name}}/${{output_name}}/"


def test_a_job_shows_the_path_that_its_output_has_and_one_made_from_it_its_own(yard: YardUnderTest) -> None:
    name = yard.submit("echo 1 > ${{outputs.rows}}/a", outputs={"rows": {"path": PATH}, "rest": {}})
    assert yard.wait_job(name)["status"] == "Completed", yard.job_log(name)
    shown = yard.call("GET", f"{JOBS}/{name}", expect=200).json()["outputs"]
    assert shown["rows"]["path"] == f"azureml://datastores/workspaceblobstore/paths/kept/{name}/rows/"
    assert "path" not in shown["rest"]
    schedule = {
        "trigger": {"type": "cron", "expression": "0 6 * * 1"},
        "create_job": {"job": f"azureml:{name}"},
    }
    yard.call("PUT", "/api/v1/workspaces/default/schedules/again", json=schedule, expect=200)
    fired = yard.call("POST", "/api/v1/workspaces/default/schedules/again/trigger", expect=201).json()["job_name"]
    path = yard.call("GET", f"{JOBS}/{fired}", expect=200).json()["outputs"]["rows"]["path"]
    assert path == f"azureml://datastores/workspaceblobstore/paths/kept/{fired}/rows/"
    yard.wait_job(fired)
    yard.call("DELETE", "/api/v1/workspaces/default/schedules/again", expect=204)

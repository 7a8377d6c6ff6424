"""What is shown of the paths of a job's outputs."""

from __future__ import annotations

from pathlib import Path

from checked_yard import YardUnderTest
from modelyard.testing.waiting import wait_for

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


def test_a_mounted_output_writes_over_nothing_that_another_changed_meanwhile(yard: YardUnderTest, tmp_path: Path) -> None:
    """In the yard's own store, and in a folder of this machine."""
    folder = tmp_path.resolve() / "store"
    folder.mkdir()
    folder.chmod(0o755)
    yard.call(
        "PUT", "/api/v1/workspaces/default/datastores/machine", json={"name": "machine", "type": "local", "path": str(folder)}, expect=200
    )
    for store in ("workspaceblobstore", "machine"):
        base = f"azureml://datastores/{store}/paths/mounted-here/"
        first = yard.submit("cd ${{outputs.o}} && echo 1 > a && echo 1 > b", outputs={"o": {"path": base}})
        assert yard.wait_job(first)["status"] == "Completed"
        wait = "until [ -e $TMPDIR/go ]; do sleep 0.1; done"
        slow = yard.submit(
            f"cd ${{{{outputs.o}}}} && cat a b && echo 2 > b && echo 2 > c && echo ready && {wait}",
            outputs={"o": {"path": base, "mode": "rw_mount"}},
        )
        wait_for(lambda slow=slow: "ready" in yard.job_log(slow), 60, "the mounted files")  # type: ignore[misc]
        other = yard.submit("cd ${{outputs.o}} && echo 3 > a", outputs={"o": {"path": base}})
        assert yard.wait_job(other)["status"] == "Completed"
        (yard.home / "jobs" / slow / "tmp" / "go").touch()
        assert yard.wait_job(slow)["status"] == "Completed", yard.job_log(slow)
        assert yard.job_log(slow).split() == ["1", "1", "ready"]
        seen = yard.submit("cd ${{inputs.d}} && cat a b c", inputs={"d": {"path": base}})
        assert yard.wait_job(seen)["status"] == "Completed" and yard.job_log(seen).split() == ["3", "2", "2"]

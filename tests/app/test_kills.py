"""kill -9 of the server at awkward moments: nothing acknowledged is missing, jobs and endpoints go on."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from checked_yard import YardUnderTest
from modelyard.testing.waiting import wait_for


def test_a_running_job_survives_the_server_and_is_finished_by_the_next(own_yard: YardUnderTest) -> None:
    name = own_yard.submit("echo up; while [ ! -f go ]; do sleep 0.05; done; echo done > ${{outputs.o}}/x", outputs={"o": {}})
    wait_for(lambda: "up" in own_yard.job_log(name), 60, "the job")
    own_yard.kill_server()
    (own_yard.home / f"jobs/{name}/code/go").touch()
    exit_record = own_yard.home / f"jobs/{name}/attempt-1/exit.json"
    wait_for(exit_record.exists, 30, "the end of the command while no server runs")
    own_yard.up()
    assert own_yard.wait_job(name)["status"] == "Completed"
    assert own_yard.call("GET", f"/api/v1/workspaces/default/jobs/{name}/outputs", expect=200).json()["o"]["uri"]


def post_job(yard: YardUnderTest, name: str) -> int:
    """Submit with a plain connection that is closed whatever happens to the server meanwhile."""
    with contextlib.closing(http.client.HTTPConnection(yard.url.removeprefix("http://"), timeout=30)) as connection:
        body = json.dumps({"name": name, "command": "echo ran", "environment": {"pip": []}})
        connection.request("POST", "/api/v1/workspaces/default/jobs", body, {"Authorization": f"Bearer {yard.token}"})
        return connection.getresponse().status


def test_every_acknowledged_job_is_there_after_kills_and_each_ran_once(own_yard: YardUnderTest, tmp_path: Path) -> None:
    """A client submits without pause while the server is killed again and again; afterwards its ledger is checked."""
    acknowledged: list[str] = []
    stop = threading.Event()

    def submit() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            try:
                if post_job(own_yard, f"ledger-{number}") == 201:
                    acknowledged.append(f"ledger-{number}")
            except (http.client.HTTPException, OSError):
                wait_for(lambda: stop.is_set() or (own_yard.home / "control/server.json").exists(), 30)

    thread = threading.Thread(target=submit)
    thread.start()
    for kill in range(3):
        wanted = len(acknowledged) + 4
        wait_for(lambda wanted=wanted: len(acknowledged) >= wanted, 60, f"acknowledged jobs before kill {kill}")
        own_yard.kill_server()
        (own_yard.home / "control/server.json").unlink(missing_ok=True)
        own_yard.up()
    stop.set()
    thread.join()
    for name in acknowledged:
        assert own_yard.wait_job(name, 180)["status"] == "Completed", name
        assert own_yard.job_log(name) == "ran\n", f"{name} ran once"


def test_an_endpoint_answers_while_there_is_no_server(own_yard: YardUnderTest, tmp_path: Path) -> None:
    from endpoints import call_endpoint, deploy_script

    deploy_script(own_yard, tmp_path, "def init(): pass\ndef run(data): return {'n': len(data)}\n")
    url, key = call_endpoint(own_yard)
    own_yard.kill_server()
    for _ in range(20):
        assert httpx.post(url, content=b"{}", headers={"Authorization": f"Bearer {key}"}, trust_env=False, verify=False).json() == {"n": 2}
    own_yard.up()
    assert call_endpoint(own_yard) == (url, key)
    assert httpx.post(url, content=b"{}", headers={"Authorization": f"Bearer {key}"}, trust_env=False, verify=False).status_code == 200


def test_a_record_whose_pid_belongs_to_somebody_else_is_not_a_running_yard(own_yard: YardUnderTest) -> None:
    record = own_yard.home / "control/server.json"
    kept = json.loads(record.read_text())
    own_yard.kill_server()
    record.write_text(json.dumps({**kept, "pid": os.getpid()}))
    own_yard.up()
    assert own_yard.record["pid"] not in (os.getpid(), kept["pid"])


def test_a_second_server_on_one_home_names_the_first(own_yard: YardUnderTest) -> None:
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "modelyard.app", "serve", "--port", "0"], capture_output=True, text=True, env=own_yard.environment
    )
    assert done.returncode == 5 and f"process {own_yard.record['pid']}" in done.stderr


def test_a_damaged_database_is_refused_with_the_way_back(own_yard: YardUnderTest) -> None:
    own_yard.kill_server()
    database = own_yard.home / "control/yard.db"
    for part in own_yard.home.glob("control/yard.db-*"):
        part.unlink()
    data = bytearray(database.read_bytes())
    data[4096 : 4096 + 2000] = b"\xff" * 2000
    database.write_bytes(bytes(data) if len(data) > 8192 else b"not a database at all" * 500)
    done = own_yard.run("up", "--port", "0", ok=False)
    assert done.returncode == 1 and "damaged" in done.stderr and "yard restore" in done.stderr


def test_backup_and_restore_bring_everything_back(own_yard: YardUnderTest, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("kept")
    own_yard.run("data", "create", "-n", "d", "--type", "uri_file", "--path", str(tmp_path / "d.csv"))
    own_yard.run("online-endpoint", "create", "-n", "kept")
    keys = own_yard.json("online-endpoint", "get-credentials", "-n", "kept")
    own_yard.run("backup", str(tmp_path / "yard.tar"))
    other = YardUnderTest(tmp_path / "elsewhere" / "home")
    other.home.parent.mkdir()
    other.run("restore", str(tmp_path / "yard.tar"))
    own_yard.down()
    other.up()
    try:
        assert other.json("online-endpoint", "get-credentials", "-n", "kept") == keys
        path = other.json("data", "show", "-n", "d")["path"].split("/paths/")[1]
        assert other.call("GET", f"/api/v1/workspaces/default/datastores/workspaceblobstore/files/{path}").content == b"kept"
        assert other.run("fsck", "--read-data").returncode == 0
        blob = next(path for path in (other.home / "blobs").rglob("*") if path.is_file())
        blob.chmod(0o600)
        blob.write_bytes(b"rot")
        assert other.run("fsck", "--read-data", ok=False).returncode == 11
        blob.unlink()
        assert other.run("fsck", ok=False).returncode == 10
    finally:
        other.down()


def test_gc_removes_what_nothing_holds_and_nothing_else(own_yard: YardUnderTest, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("held and larger")
    own_yard.run("data", "create", "-n", "d", "--type", "uri_file", "--path", str(tmp_path / "d.csv"))
    experiment = own_yard.mlflow("POST", "experiments/create", {"name": "gc"})["experiment_id"]
    run = own_yard.mlflow("POST", "runs/create", {"experiment_id": experiment})["run"]["info"]["run_id"]
    path = f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/{run}/artifacts/a.txt"
    own_yard.call("PUT", path, content=b"loose", expect=200)
    own_yard.call("DELETE", path, expect=200)
    own_yard.run("down")
    before = {path.name for path in (own_yard.home / "blobs").rglob("*") if path.is_file()}
    own_yard.run("gc", "--older-than", "0")
    after = {path.name for path in (own_yard.home / "blobs").rglob("*") if path.is_file()}
    assert len(before - after) == 1 and len(after) == 1
    own_yard.up()


# Which database a home belongs to


@pytest.fixture
def on_postgres(postgres: Callable[[], str], tmp_path: Path) -> Iterator[YardUnderTest]:
    made = YardUnderTest(tmp_path / "home", postgres())
    made.up()
    yield made
    made.down()


def test_a_home_remembers_its_database(on_postgres: YardUnderTest, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("kept")
    on_postgres.run("data", "create", "-n", "d", "--type", "uri_file", "--path", str(tmp_path / "d.csv"))
    for _ in range(2):
        on_postgres.run("down")
        assert on_postgres.run("fsck", "--read-data").returncode == 0
        on_postgres.run("gc", "--older-than", "0")
        assert not (on_postgres.home / "control/yard.db").exists()
        on_postgres.run("up")
        assert on_postgres.json("data", "show", "-n", "d")["version"] == "1"


def test_a_home_refuses_another_database(on_postgres: YardUnderTest, postgres: Callable[[], str], tmp_path: Path) -> None:
    other, empty = YardUnderTest(tmp_path / "other", postgres()), postgres()
    other.up()
    other.down()
    on_postgres.run("down")
    for url, what in ((other.database_url, "another_database"), (empty, "database_missing")):
        done = on_postgres.run("up", "--database-url", url, ok=False)
        assert done.returncode != 0 and ("is not the one" in done.stderr or "is empty" in done.stderr), (what, done.stderr)
    on_postgres.run("up")


def test_data_in_sqlite_is_not_left_behind_for_an_empty_database(own_yard: YardUnderTest, postgres: Callable[[], str]) -> None:
    own_yard.run("down")
    for record in (True, False):  # a home of an earlier version has no record
        if not record:
            (own_yard.home / "control/database.json").unlink()
        done = own_yard.run("up", "--database-url", postgres().replace("yard@", "yard:hidden@"), ok=False)
        assert done.returncode == 1 and "SQLite in its own folder" in done.stderr and "hidden" not in done.stderr


@pytest.mark.parametrize("command", [["fsck"], ["gc"], ["backup", "here.tar"]])
def test_maintenance_makes_no_database(command: list[str], tmp_path: Path) -> None:
    nowhere = YardUnderTest(tmp_path / "home")
    done = nowhere.run(*command, ok=False, cwd=tmp_path)
    assert done.returncode == 2 and "there is no yard" in done.stderr
    assert not list(tmp_path.rglob("yard.db"))


def test_a_database_that_is_gone_is_not_replaced_by_an_empty_one(own_yard: YardUnderTest) -> None:
    own_yard.run("down")
    for file in own_yard.home.glob("control/yard.db*"):
        file.unlink()
    for command in (["gc"], ["up", "--port", "0"]):
        done = own_yard.run(*command, ok=False)
        assert done.returncode == 1 and "is gone" in done.stderr and "yard restore" in done.stderr
    assert not list(own_yard.home.glob("control/yard.db*"))


def test_gc_refuses_to_remove_more_than_half(own_yard: YardUnderTest, tmp_path: Path) -> None:
    experiment = own_yard.mlflow("POST", "experiments/create", {"name": "loose"})["experiment_id"]
    run = own_yard.mlflow("POST", "runs/create", {"experiment_id": experiment})["run"]["info"]["run_id"]
    for name in ("a", "b", "c"):
        path = f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/{run}/artifacts/{name}"
        own_yard.call("PUT", path, content=name.encode(), expect=200)
        if name != "a":
            own_yard.call("DELETE", path, expect=200)
    own_yard.run("down")

    def stored() -> int:
        return len([path for path in (own_yard.home / "blobs").rglob("*") if path.is_file()])

    done = own_yard.run("gc", "--older-than", "0", ok=False)
    assert done.returncode == 5 and "2 of 3 files" in done.stderr and "--force" in done.stderr and stored() == 3
    own_yard.run("gc", "--older-than", "0", "--force")
    assert stored() == 1


def test_a_yard_on_postgresql_is_backed_up_and_restored(on_postgres: YardUnderTest, postgres: Callable[[], str], tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("kept")
    on_postgres.run("data", "create", "-n", "d", "--type", "uri_file", "--path", str(tmp_path / "d.csv"))
    on_postgres.run("online-endpoint", "create", "-n", "kept")
    keys = on_postgres.json("online-endpoint", "get-credentials", "-n", "kept")
    backup = str(tmp_path / "yard.tar")
    on_postgres.run("backup", backup)
    other = YardUnderTest(tmp_path / "elsewhere", postgres())
    assert "PostgreSQL" in other.run("restore", backup, ok=False).stderr
    full = other.run("restore", backup, "--database-url", on_postgres.database_url, ok=False)
    assert full.returncode == 5 and "not empty" in full.stderr
    other.run("restore", backup, "--database-url", other.database_url)
    on_postgres.down()
    other.up()
    try:
        assert other.json("online-endpoint", "get-credentials", "-n", "kept") == keys
        assert other.run("fsck", "--read-data").returncode == 0
    finally:
        other.down()


def test_ports_that_were_picked_are_kept(own_yard: YardUnderTest) -> None:
    first = (own_yard.url, own_yard.record["router_url"])
    own_yard.run("down", "--all")
    own_yard.run("up")
    assert (own_yard.url, own_yard.record["router_url"]) == first


def test_a_home_of_an_earlier_version_does_not_take_a_new_database_for_its_own(on_postgres: YardUnderTest) -> None:
    """Before homes remembered their database, one on PostgreSQL had nothing in it that says so."""
    on_postgres.run("down", "--all")
    (on_postgres.home / "control/database.json").unlink()
    token = on_postgres.token
    for command in (["up"], ["gc"], ["fsck"]):
        done = on_postgres.run(*command, ok=False)
        assert done.returncode != 0 and "--database-url" in done.stderr, command
    assert on_postgres.token == token and not list(on_postgres.home.glob("control/yard.db*"))
    on_postgres.run("up", "--database-url", on_postgres.database_url)
    assert on_postgres.call("GET", "/api/v1/workspaces", token=token).status_code == 200

"""Long fault-injection runs (`make torture`): power cuts on a disk image, a full disk, kills at every transition of a job."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from checked_yard import YardUnderTest
from modelyard.testing.waiting import alive, wait_for

pytestmark = pytest.mark.torture


class Disk:
    """An ext4 file system on a loop-mounted image of its own. What a power cut leaves is a copy of the image file alone."""

    def __init__(self, folder: Path, megabytes: int = 200) -> None:
        self.image = folder / "disk.img"
        self.mount = folder / "disk"
        self.mount.mkdir()
        with self.image.open("wb") as file:
            file.truncate(megabytes * 2**20)
        subprocess.run(["mkfs.ext4", "-q", "-F", self.image], check=True)
        subprocess.run(["mount", "-o", "loop", self.image, self.mount], check=True)

    def after_power_cut(self, folder: Path) -> Path:
        """Mount a copy of what has reached the image until now; the journal is replayed by the mount."""
        folder.mkdir()
        copy = folder / "copy.img"
        subprocess.run(["cp", "--sparse=always", self.image, copy], check=True)
        place = folder / "mounted"
        place.mkdir()
        subprocess.run(["mount", "-o", "loop", copy, place], check=True)
        return place

    def close(self) -> None:
        subprocess.run(["umount", "-l", self.mount], check=False)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        pytest.skip("loop devices need root")
    made = Disk(tmp_path)
    yield made
    made.close()


WRITER = """
import os, sys, threading, asyncio
from pathlib import Path
import modelyard.app.features
from modelyard.storage.open import open_database
from modelyard.storage.migrate import migrate
from modelyard.drivers.objects.local import LocalObjects
root = Path({root!r})
db = open_database(f"sqlite:///{{root}}/yard.db"); migrate(db, root)
objects = LocalObjects(root / "blobs")
def rows(n):
    for i in range(10**6):
        db.write_now(lambda unit: unit.record("test.acknowledged", f"{{n}}-{{i}}"))
        os.write(1, f"row {{n}}-{{i}}\\n".encode())
def blobs(n):
    for i in range(10**6):
        blob = objects.put_bytes(f"{{n}}-{{i}}".encode() * 50)
        os.write(1, f"blob {{blob.digest}}\\n".encode())
for n in range(3): threading.Thread(target=rows, args=(n,), daemon=True).start()
threading.Thread(target=blobs, args=(0,), daemon=True).start()
import time; time.sleep(120)
"""


@pytest.mark.parametrize("round_", range(5))
def test_a_power_cut_loses_nothing_acknowledged(disk: Disk, tmp_path: Path, round_: int) -> None:
    """The writer is stopped, and what has reached the device by then is all that is looked at."""
    ledger = tmp_path / "ledger"
    code = WRITER.format(root=str(disk.mount))
    with ledger.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=out)
        wait_for(lambda: ledger.stat().st_size > 5000 * (round_ + 1), 60, "acknowledged writes")
        os.kill(process.pid, signal.SIGSTOP)
        acknowledged = ledger.read_text().rsplit("\n", 1)[0].splitlines()
        survived = disk.after_power_cut(tmp_path / "after")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    try:
        with sqlite3.connect(survived / "yard.db") as connection:
            kept = {row[0] for row in connection.execute("SELECT subject FROM events WHERE topic = 'test.acknowledged'")}
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        connection.close()
        import hashlib

        for line in acknowledged:
            kind, what = line.split()
            if kind == "row":
                assert what in kept, what
            else:
                blob = survived / "blobs" / what[:2] / what[2:]
                assert hashlib.sha256(blob.read_bytes()).hexdigest() == what
        assert len(acknowledged) > 50
    finally:
        subprocess.run(["umount", "-l", survived], check=False)


def test_a_full_disk_refuses_and_recovers_without_a_restart(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m,mode=0755", "tmpfs", small], check=True)
    yard = YardUnderTest(small / "home")
    try:
        yard.up()
        yard.run("online-endpoint", "create", "-n", "before")
        run = yard.mlflow("POST", "runs/create", {"experiment_id": "0"})["run"]["info"]["run_id"]
        path = f"/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts"
        refused = yard.call("PUT", f"{path}/big", content=b"x" * 45_000_000)
        assert refused.status_code == 507, refused.text
        filler = small / "filler"
        with filler.open("wb") as file:
            try:
                while True:
                    file.write(b"0" * 65536)
                    file.flush()
            except OSError:
                pass
        answers = [yard.call("POST", "/api/2.0/mlflow/runs/create", json={"experiment_id": "0"}).status_code for _ in range(40)]
        assert set(answers) <= {200, 507} and 507 in answers
        assert yard.mlflow("GET", "runs/get", run_id=run)["run"]["info"]["run_id"] == run, "reads go on"
        filler.unlink()
        assert yard.call("PUT", f"{path}/small", content=b"fits").status_code == 200
        yard.mlflow("POST", "runs/create", {"experiment_id": "0"})
    finally:
        yard.down()
        subprocess.run(["umount", "-l", small], check=False)


def test_jobs_that_end_while_the_disk_is_full_are_completed_when_there_is_room(tmp_path: Path) -> None:
    """Each of supervisor, runner, router and server lives through it; what ended well has ended well, with its outputs."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60m,mode=0755", "tmpfs", small], check=True)
    yard = YardUnderTest(small / "home")
    try:
        yard.up()
        pids = [json.loads((yard.home / "control/supervisor/running.json").read_text())["pid"], yard.record["pid"]]
        command = "echo kept > ${{outputs.o}}/kept; while [ ! -f go ]; do sleep 0.05; done; yes | head -c 200000"
        names = [yard.submit(command, outputs={"o": {}}) for _ in range(2)]
        for name in names:
            wait_for(lambda name=name: _reached(yard, name, "Running"), 60, f"job {name}")
            wait_for(lambda name=name: (yard.home / f"jobs/{name}/attempt-1/running.json").exists(), 60, f"the runner of {name}")
        queued = yard.submit("echo ran >> ${{outputs.o}}/count", outputs={"o": {}})
        filler = small / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"0" * 4096)
        for name in names:
            (yard.home / f"jobs/{name}/code/go").touch()
        for name in names:
            wait_for(lambda name=name: (yard.home / f"jobs/{name}/attempt-1/exit.json").exists(), 60, f"the end of {name}")
        states = [yard.call("GET", f"/api/v1/workspaces/default/jobs/{name}").json()["status"] for name in names]
        assert not {"Failed", "Canceled"} & set(states)
        assert all(alive(pid) for pid in pids)
        filler.unlink()
        for name in [*names, queued]:
            assert yard.wait_job(name)["status"] == "Completed", yard.call("GET", f"/api/v1/workspaces/default/jobs/{name}").json()
            assert yard.call("GET", f"/api/v1/workspaces/default/jobs/{name}/outputs").status_code == 200
        assert all(alive(pid) for pid in pids)
    finally:
        yard.down()
        subprocess.run(["umount", "-l", small], check=False)


def test_a_job_ends_well_whenever_the_server_is_killed(own_yard: YardUnderTest) -> None:
    """Kill the server at every state a job passes; the next server brings it to its end, and the command ran once."""
    for state in ("Queued", "Preparing", "Running", "Finalizing", "Completed"):
        command = "echo ran >> ${{outputs.o}}/count; sleep 0.5; head -c 20000000 /dev/zero > ${{outputs.o}}/big"
        name = own_yard.submit(command, outputs={"o": {}})
        wait_for(lambda state=state, name=name: _reached(own_yard, name, state), 60, f"{state} of {name}")
        own_yard.kill_server()
        own_yard.up()
        assert own_yard.wait_job(name)["status"] == "Completed", state
        uri = own_yard.call("GET", f"/api/v1/workspaces/default/jobs/{name}/outputs").json()["o"]["uri"]
        path = uri.split("/paths/")[1] + "count"
        assert own_yard.call("GET", f"/api/v1/workspaces/default/datastores/workspaceblobstore/files/{path}").text == "ran\n", state


def _reached(yard: YardUnderTest, name: str, state: str) -> bool:
    order = ("Queued", "Preparing", "Running", "Finalizing", "Completed")
    found = yard.call("GET", f"/api/v1/workspaces/default/jobs/{name}").json()["status"]
    return order.index(found) >= order.index(state)


MORTAL = """
import os, signal, sys
from modelyard.app.__main__ import main
from modelyard.storage.database import Database
left = int(sys.argv.pop(1))
announce = Database.announce
def counted(self, topics):
    global left
    if any(topic.startswith(("job.", "pipeline.")) for topic in topics):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    announce(self, topics)
Database.announce = counted
sys.exit(main(sys.argv[1:]))
"""


class MortalYard(YardUnderTest):
    """A yard whose server dies right after the n-th commit that moved a job or pipeline, before anybody hears of it."""

    def up_until(self, transition: int) -> subprocess.Popen[bytes]:
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home.parent / "mortal.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", MORTAL, str(transition), "serve", "--port", "0", "--router-port", "0"],
                env=self.environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        wait_for(lambda: process.poll() is not None or self._answers(process.pid), 60, "the server")
        return process

    def _answers(self, pid: int) -> bool:
        try:
            return bool(self.record["pid"] == pid and self.call("GET", "/readyz").status_code == 200)
        except (OSError, ValueError, KeyError, httpx.HTTPError):
            return False

    def try_submit(self, body: dict[str, Any]) -> None:
        """Submit under a fixed name; an unknown outcome is tried again by whoever looks whether it is there."""
        with contextlib.suppress(OSError, httpx.HTTPError):
            assert self.call("POST", "/api/v1/workspaces/default/jobs", json=body).status_code == 201

    def state(self, name: str) -> str | None:
        try:
            answer = self.call("GET", f"/api/v1/workspaces/default/jobs/{name}")
        except (OSError, httpx.HTTPError):
            return None
        return str(answer.json().get("status", "absent"))


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[MortalYard]:
    made = MortalYard(tmp_path / "home")
    made.up()
    yield made
    made.down()


def ten_steps(name: str) -> dict[str, Any]:
    """A chain with two forks: ten steps, each of which adds its name to what it was given."""
    needs = {"a": [], "b": ["a"], "c": ["b"], "d": ["b"], "e": ["c", "d"], "f": ["e"], "g": ["f"], "h": ["f"], "i": ["g", "h"], "j": ["i"]}
    jobs = {}
    for step, given in needs.items():
        read = " ".join(f"${{{{inputs.{port}}}}}" for port in given) or "/dev/null"
        jobs[step] = {
            "type": "command", "command": f"cat {read} > ${{{{outputs.o}}}}; echo {step} >> ${{{{outputs.o}}}}", "environment": {"pip": []},
            "inputs": {port: f"${{{{parent.jobs.{port}.outputs.o}}}}" for port in given}, "outputs": {"o": {"type": "uri_file"}},
        }  # fmt: skip
    jobs["j"]["outputs"] = {"o": {"type": "uri_file", "path": "${{parent.outputs.o}}"}}
    return {
        "type": "pipeline", "name": name, "jobs": jobs, "settings": {"force_rerun": True}, "outputs": {"o": {"type": "uri_file"}},
    }  # fmt: skip


def test_a_pipeline_loses_and_repeats_no_step_whenever_the_server_is_killed(mortal: MortalYard) -> None:
    mortal.kill_server()
    texts = set()
    transition = 0
    while True:
        transition += 1
        name = f"killed-at-{transition}"
        process = mortal.up_until(transition)
        mortal.try_submit(ten_steps(name))
        wait_for(
            lambda name=name, process=process: process.poll() is not None or mortal.state(name) == "Completed",
            120,
            f"the kill at {transition}",
        )
        survived = process.poll() is None
        if survived:
            process.kill()
            process.wait()
        mortal.up()
        if mortal.state(name) == "absent":
            mortal.call("POST", "/api/v1/workspaces/default/jobs", json=ten_steps(name), expect=201)
        job = mortal.wait_job(name)
        assert job["status"] == "Completed", (transition, job.get("error"), job["steps"])
        children = mortal.call("GET", "/api/v1/workspaces/default/jobs", params={"parent": name, "limit": 100}).json()["value"]
        assert sorted(child["display_name"] for child in children) == list("abcdefghij"), transition
        assert all(child["status"] == "Completed" for child in children)
        uri = mortal.call("GET", f"/api/v1/workspaces/default/jobs/{name}/outputs").json()["o"]["uri"]
        texts.add(mortal.call("GET", f"/api/v1/workspaces/default/datastores/workspaceblobstore/files/{uri.split('/paths/')[1]}").text)
        mortal.kill_server()
        if survived:
            break
    assert len(texts) == 1 and transition > 30, (transition, texts)
    mortal.up()


def test_a_sweep_of_fifty_trials_survives_a_kill_at_every_seventh_transition(mortal: MortalYard) -> None:
    mortal.kill_server()
    body = {
        "type": "sweep", "name": "swept", "sampling_algorithm": {"type": "random", "seed": 3}, "objective": {"goal": "minimize", "primary_metric": "x"},
        "search_space": {"x": {"type": "uniform", "min_value": 0, "max_value": 1}}, "limits": {"max_total_trials": 50, "max_concurrent_trials": 2},
        "trial": {"command": "echo ${{search_space.x}}", "environment": {"pip": []}},
    }  # fmt: skip
    kills = 0
    while True:
        process = mortal.up_until(7)
        if mortal.state("swept") == "absent":
            mortal.try_submit(body)
        wait_for(
            lambda process=process: process.poll() is not None or mortal.state("swept") in ("Completed", "Failed"), 120, "a kill or the end"
        )
        if process.poll() is None:
            process.kill()
            process.wait()
            break
        kills += 1
    mortal.up()
    job = mortal.call("GET", "/api/v1/workspaces/default/jobs/swept").json()
    assert kills > 15 and job["error"]["message"] == "no trial logged the metric 'x'", (kills, job.get("error"))
    assert [trial["number"] for trial in job["trials"]] == list(range(50)) and all(
        trial["status"] == "Completed" for trial in job["trials"]
    )
    children = mortal.call("GET", "/api/v1/workspaces/default/jobs", params={"parent": "swept", "limit": 200}).json()["value"]
    assert len(children) == 50 and len({trial["params"]["x"] for trial in job["trials"]}) == 50


def test_a_thousand_changes_of_an_endpoint_under_load_fail_no_request(yard: YardUnderTest, tmp_path: Path) -> None:
    """Traffic shifted, deployments replaced and resized, keys rotated, the router's table pushed each time: callers see none of it."""
    from endpoints import ENDPOINT, call_endpoint, deploy_script, post

    script = "def init(): pass\ndef run(data): return 1\n"
    more = {"request_settings": {"max_concurrent_requests_per_instance": 8, "max_queue_wait_ms": 5000}}
    deploy_script(yard, tmp_path, script, endpoint="changed", **more)
    yard.run("online-deployment", "create", "-f", str(tmp_path / "deployment.yml"), "--name", "green")
    url, _ = call_endpoint(yard, "changed")
    key = {"name": "primary", "value": yard.call("POST", f"{ENDPOINT}/changed/keys").json()["primaryKey"]}
    using = ["", "", "", ""]  # by each caller
    failed: list[str] = []
    answered = [0]
    stop = threading.Event()

    def load(caller: int) -> None:
        while not stop.is_set():
            using[caller] = key["value"]
            answer = post(url, using[caller])
            answered[0] += 1
            if answer.status_code != 200:
                failed.append(f"{answer.status_code} {answer.text[:200]}")

    threads = [threading.Thread(target=load, args=(caller,)) for caller in range(4)]
    for thread in threads:
        thread.start()
    rng = random.Random(7)
    endpoint = f"{ENDPOINT}/changed"

    def change(path: str, **fields: Any) -> None:
        document = yard.call("GET", path, expect=200).json()
        yard.call("PUT", path, json={**document, **fields}, expect=200)

    def ready(name: str) -> bool:
        return bool(yard.call("GET", f"{endpoint}/deployments/{name}", expect=200).json()["provisioning_state"] == "Succeeded")

    try:
        for number in range(1000):
            what = rng.choice(["traffic", "traffic", "mirror", "replace", "resize", "rotate", "rotate"])
            name = rng.choice(["blue", "green"])
            if what == "traffic":
                share = rng.choice([0, 10, 50, 100])
                change(endpoint, traffic={"blue": share, "green": 100 - share})
            elif what == "mirror":
                change(endpoint, mirror_traffic=rng.choice([{}, {name: 20}]))
            elif what == "rotate":
                other = "secondary" if key["name"] == "primary" else "primary"
                yard.call("POST", f"{endpoint}/regenerate-keys", json={"key_type": other}, expect=204)
                key.update(name=other, value=yard.call("POST", f"{endpoint}/keys").json()[f"{other}Key"])
                wait_for(lambda: set(using) == {key["value"]}, 60, "the callers to have changed over")
            else:
                fields = {"instance_count": rng.choice([1, 2])} if what == "resize" else {"tags": {"n": str(number)}}
                change(f"{endpoint}/deployments/{name}", **fields)
                wait_for(lambda name=name: ready(name), 60, f"deployment {name}")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failed, (len(failed), answered[0], failed[:5])
    assert answered[0] > 1000

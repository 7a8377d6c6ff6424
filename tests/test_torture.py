"""Long fault-injection runs (`make torture`): power cuts on a disk image, a full disk, kills at every transition of a job."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import YardUnderTest, wait_for

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
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_storage import load_tables
from modelyard.storage.database import open_database
from modelyard.storage.migrate import migrate
from modelyard.drivers.objects.local import LocalObjects
load_tables()
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
    code = WRITER.format(tests=str(Path(__file__).parent), root=str(disk.mount))
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

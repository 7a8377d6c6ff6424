"""A full and a failing disk under the programs beside user code: none of them dies of it, and nothing that happened is lost."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from grounds import Ground, server
from modelyard.core.errors import Unavailable
from modelyard.testing.waiting import alive, wait_for
from modelyard_runtime import files, protocol
from modelyard_runtime.protocol import ExitRecord, JobRequest, Reason
from modelyard_runtime.serving import router
from modelyard_runtime.supervision import runner, supervisor
from modelyard_runtime.supervision.supervisor import Entry, Supervisor

WAITS = "while [ ! -f go ]; do sleep 0.02; done; "


class SmallDisk:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.filler = folder / "filler"

    def fill(self) -> None:
        with self.filler.open("wb", buffering=0) as file:
            for size in (1 << 16, 1):
                try:
                    while True:
                        file.write(b"0" * size)
                except OSError as error:
                    assert error.errno == errno.ENOSPC

    def free(self) -> None:
        self.filler.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=0755", "tmpfs", folder], check=True)
    yield SmallDisk(folder)
    subprocess.run(["umount", "-l", folder], check=False)


@pytest.fixture
def disk_ground(disk: SmallDisk) -> Iterator[Ground]:
    made = Ground(disk.folder / "ground")
    yield made
    asyncio.run(made.client.call("shutdown", all=True))


def test_a_job_that_ends_while_the_disk_is_full_has_ended_well(disk: SmallDisk, disk_ground: Ground) -> None:
    ground = disk_ground

    async def whole() -> ExitRecord:
        job = ground.job("j", WAITS + "head -c 100000 /dev/zero; exit 0")
        await ground.start(job)
        await asyncio.to_thread(wait_for, lambda: (ground.records("j") / "running.json").exists(), 10, "the runner")
        disk.fill()
        (ground.work("j") / "go").touch()
        return await ground.executor.wait(job.id)

    before = asyncio.run(ground.client.call("ping"))["pid"]
    ended = asyncio.run(whole())
    assert (ended.reason, ended.code) == ("exited", 0)
    assert ended.log_dropped_bytes > 0, "what did not fit into the log is counted"
    assert json.loads((ground.records("j") / "exit.json").read_text())["code"] == 0, "it had room of its own"
    assert asyncio.run(ground.client.call("ping"))["pid"] == before


def test_a_runner_without_any_room_waits_for_it(disk: SmallDisk, disk_ground: Ground) -> None:
    ground = disk_ground

    async def whole() -> ExitRecord:
        job = ground.job("j", WAITS + "exit 3")
        await ground.start(job)
        await asyncio.to_thread(wait_for, lambda: (ground.records("j") / "running.json").exists(), 10, "the runner")
        (ground.records("j") / ".exit.json.reserve").unlink()
        disk.fill()
        (ground.work("j") / "go").touch()
        said = ground.records("j") / "runner.log"
        watched = asyncio.create_task(ground.executor.wait(job.id))
        await asyncio.to_thread(wait_for, lambda: not _command_of(ground), 10, "the end of the command")
        assert alive(ground.runner("j")) and not watched.done(), said.read_text()
        disk.free()
        return await watched

    ended = asyncio.run(whole())
    assert (ended.reason, ended.code) == ("exited", 3)


def _command_of(ground: Ground) -> bool:
    return alive(int(json.loads((ground.records("j") / "running.json").read_text())["child"]))


def test_a_job_is_refused_on_a_full_disk_and_starts_when_there_is_room(disk: SmallDisk, disk_ground: Ground) -> None:
    ground = disk_ground

    async def whole() -> ExitRecord:
        await ground.client.ensure()
        job = ground.job("j", "echo once >> count")
        ready = await asyncio.to_thread(ground.executor._prepare, job)
        request = ground.executor._request(job, ready, "echo once >> count", {})
        disk.fill()
        with pytest.raises(Unavailable) as refused:
            await ground.client.call("start", id=str(job.id), kind="job", request=protocol.document(request))
        assert refused.value.code == "insufficient_storage" and refused.value.transient
        disk.free()
        await ground.client.call("start", id=str(job.id), kind="job", request=protocol.document(request))
        return await ground.executor.wait(job.id)

    assert asyncio.run(whole()).code == 0
    assert (ground.work("j") / "count").read_text() == "once\n"


def test_a_server_that_ends_while_the_disk_is_full_is_started_again(disk: SmallDisk, disk_ground: Ground) -> None:
    ground = disk_ground

    async def whole() -> tuple[int, int]:
        await ground.replicas.ensure(server(ground, "s", "exec sleep 300"))
        first = await _pid(ground, 0)
        disk.fill()
        os.kill(first, signal.SIGKILL)
        await asyncio.sleep(0)
        status = await ground.replicas.status("s")
        while status is None or "could not be started" not in status.last_exit and not (status.running and status.pid != first):
            status = await ground.replicas.status("s")
        disk.free()
        return first, await _pid(ground, first)

    first, second = asyncio.run(asyncio.wait_for(whole(), 30))
    assert first != second


def test_a_supervisor_starts_on_a_full_disk_and_adopts_what_runs(disk: SmallDisk, disk_ground: Ground) -> None:
    ground = disk_ground

    async def whole() -> ExitRecord:
        job = ground.job("j", WAITS + "exit 4")
        await ground.start(job)
        await asyncio.to_thread(wait_for, lambda: (ground.records("j") / "running.json").exists(), 10, "the runner")
        before = ground.pid
        disk.fill()
        os.kill(before, signal.SIGKILL)
        after = (await ground.client.call("ping"))["pid"]
        assert after != before
        (ground.work("j") / "go").touch()
        ended = await ground.executor.wait(job.id)
        disk.free()
        await asyncio.to_thread(wait_for, lambda: ground.pid == after, 10, "the record of the supervisor")
        return ended

    assert asyncio.run(whole()).code == 4


async def _pid(ground: Ground, other_than: int) -> int:
    while True:
        status = await ground.replicas.status("s")
        if status is not None and status.running and status.pid not in (None, other_than):
            return int(status.pid or 0)


def test_what_the_router_logs_waits_for_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def whole() -> None:
        config = protocol.RouterConfig("127.0.0.1", 0, str(tmp_path / "routes.json"), str(tmp_path / "sock"), str(tmp_path / "log"))
        made = router.Router(config)
        made.log = cast(Any, Refusing(made.log, 3))
        made.lines = [{"time": 1}]
        made._write_log()
        made.lines = [{"time": 2}]
        made._write_log()
        assert made.backlog and (tmp_path / "log").read_bytes() == b""
        made._write_log()
        made._write_log()
        assert (tmp_path / "log").read_bytes() == b'{"time":1}\n{"time":2}\n'
        monkeypatch.setattr(router, "LOG_BYTES", 10)
        made.lines = [{"time": 3}]
        made._write_log()
        made.log.close()

    asyncio.run(whole())
    assert len((tmp_path / "log.1").read_text().splitlines()) == 3 and (tmp_path / "log").read_bytes() == b""


def test_the_router_bounds_what_waits_for_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def whole() -> None:
        config = protocol.RouterConfig("127.0.0.1", 0, str(tmp_path / "routes.json"), str(tmp_path / "sock"), str(tmp_path / "log"))
        made = router.Router(config)
        monkeypatch.setattr(router, "BACKLOG_BYTES", 100)
        refusing = made.log = cast(Any, Refusing(made.log, 20))
        for number in range(20):
            made.lines = [{"time": number}]
            made._write_log()
        assert len(made.backlog) <= 100 and refusing.times == 0
        made._write_log()
        assert not made.backlog
        made.log.close()

    asyncio.run(whole())
    kept = [json.loads(line)["time"] for line in (tmp_path / "log").read_text().splitlines()]
    assert kept == list(range(20 - len(kept), 20)) and kept


class Refusing:
    """An open file on a disk that is full for the next `times` writes."""

    def __init__(self, real: Any, times: int) -> None:
        self.real, self.times = real, times

    def write(self, data: bytes) -> int:
        if self.times:
            self.times -= 1
            raise OSError(errno.ENOSPC, "full")
        return int(self.real.write(data))

    def tell(self) -> int:
        return int(self.real.tell())

    def close(self) -> None:
        self.real.close()


class Failing:
    """A function that fails `times` before it works again."""

    def __init__(self, real: Callable[..., Any], times: int, number: int = errno.EIO) -> None:
        self.real, self.times, self.number, self.calls = real, times, number, 0

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.calls += 1
        if self.calls <= self.times:
            raise OSError(self.number, os.strerror(self.number))
        return self.real(*arguments, **options)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_an_exit_record_is_written_anew_until_it_is_safe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, times: int) -> None:
    monkeypatch.setattr(runner, "DISK_POLL_S", 0)
    path = tmp_path / "exit.json"
    files.Reserve(str(path)).take()
    monkeypatch.setattr(os, "fsync", Failing(os.fsync, times, number))
    assert runner._leave(str(path), ExitRecord(Reason.EXITED, 0)) == 0
    assert protocol.read(ExitRecord, files.read_json(str(path))) == ExitRecord(Reason.EXITED, 0)


def test_a_runner_whose_folder_is_gone_ends(tmp_path: Path) -> None:
    assert runner._leave(str(tmp_path / "gone" / "exit.json"), ExitRecord(Reason.EXITED, 0)) == 4


@pytest.mark.parametrize("rotate", [False, True])
def test_a_log_goes_on_after_the_disk_failed_and_counts_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rotate: bool
) -> None:
    monkeypatch.setattr(os, "open", Failing(os.open, 1))
    log = runner.Log(str(tmp_path / "log"), 1000, rotate)
    log.write(b"first\n")
    monkeypatch.setattr(os, "write", Failing(os.write, 1))
    log.write(b"second\n")
    log.write(b"third\n")
    monkeypatch.setattr(os, "fsync", Failing(os.fsync, 1))
    log.close()
    assert (tmp_path / "log").read_text() == ("first\nthird\n\n[modelyard] the disk was full or failed; 7 bytes of this log are missing\n")
    assert (log.refused, log.dropped) == (7, 0)


@pytest.fixture
def lone(tmp_path: Path) -> Iterator[Supervisor]:
    """A supervisor in this process, which does only what is asked of it."""
    (tmp_path / "supervisor").mkdir()
    made = Supervisor(str(tmp_path / "supervisor"))
    yield made
    made.selector.close()
    made.groups.remove()


def _entry(folder: Path, kind: str) -> Entry:
    folder.mkdir()
    return Entry("e", kind, JobRequest("e", ["true"], "/", {}, str(folder), str(folder / "log"), 100))


def test_a_supervisor_records_the_end_of_a_job_when_the_disk_lets_it(
    lone: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lone._announce()
    entry = _entry(tmp_path / "e", "job")
    lone.entries["e"] = entry
    lone._lose(entry, "its runner vanished")
    monkeypatch.setattr(os, "fsync", failing := Failing(os.fsync, 2))
    lone._turn()
    lone._turn()
    assert failing.calls > 0 and "e" in lone.entries and not os.path.exists(entry.path("exit.json"))
    lone._turn()
    assert files.read_json(entry.path("exit.json"))["reason"] == "lost" and not lone.entries


def test_a_supervisor_whose_jobs_folder_is_gone_goes_on(lone: Supervisor, tmp_path: Path) -> None:
    entry = _entry(tmp_path / "e", "job")
    (tmp_path / "e").rmdir()
    lone.entries["e"] = entry
    lone._lose(entry, "its runner vanished")
    lone._turn()
    assert not lone.entries


def test_what_a_supervisor_wants_is_stored_when_the_disk_lets_it(lone: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = _entry(tmp_path / "e", "server")
    lone.entries["e"] = entry
    entry.start_again_at = float("inf")
    monkeypatch.setattr(files, "write_json", Failing(files.write_json, 6))
    lone._keep(entry)
    assert entry.unsaved and not os.path.exists(lone._file("e"))
    for _ in range(3):
        lone._turn()
    assert not entry.unsaved and files.read_json(lone._file("e"))["id"] == "e"
    assert files.read_json(lone._path("running.json"))["pid"] == os.getpid()


def test_a_log_that_is_full_ends_no_program() -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); from modelyard_runtime import files; files.report('said'); print('went on')"
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            ["python3", "-c", code, str(Path(files.RUNTIME).parent)], stdout=subprocess.PIPE, stderr=full, check=True, text=True
        )
    assert done.stdout == "went on\n"


def test_the_programs_beside_user_code_print_nothing_that_can_raise() -> None:
    """`print` to a full disk or a closed pipe raises: supervisor, runner and router say what they have to say by `files.report`."""
    for module in (supervisor, runner):
        assert "print(" not in Path(module.__file__).read_text()
    assert "print(" not in (Path(files.RUNTIME) / "serving" / "router.py").read_text()

"""The supervisor and its runners, with real processes: ends, limits, trees, kills, adoption."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from checked_yard import YardUnderTest
from grounds import Ground, server
from modelyard.drivers.isolation import detect
from modelyard.testing.waiting import alive, wait_for
from modelyard_runtime.protocol import ExitRecord


def test_a_command_ends_with_its_code_its_output_and_its_usage(ground: Ground) -> None:
    ended = ground.run("j", "echo out; echo err >&2; exit 3", secrets={"S": "x"})
    assert (ended.reason, ended.code) == ("exited", 3)
    assert ground.log("j") == "out\nerr\n"
    assert ended.usage["max_rss_bytes"] > 0 and ended.ended_ms >= ended.started_ms  # type: ignore[operator]


def test_secrets_reach_the_command_and_no_file(ground: Ground) -> None:
    ground.run("j", "test ${#SECRET} -eq 11", secrets={"SECRET": "canary-7391"})
    assert json.loads((ground.records("j") / "exit.json").read_text())["code"] == 0
    for path in ground.root.rglob("*"):
        if path.is_file():
            assert b"canary-7391" not in path.read_bytes(), path


def test_a_started_attempt_is_never_started_again(ground: Ground) -> None:
    async def twice() -> None:
        job = ground.job("j", "echo once >> count")
        await ground.start(job)
        await ground.start(job)
        await ground.executor.wait(job.id)
        await ground.start(job)
        await ground.executor.wait(job.id)

    asyncio.run(twice())
    assert (ground.work("j") / "count").read_text() == "once\n"


def test_a_timeout_ends_the_whole_tree_setsid_children_included(ground: Ground) -> None:
    command = "setsid sleep 300 & echo $! > child; (trap '' TERM; sleep 300) & echo $! > stubborn; wait"
    ended = ground.run("j", command, timeout_s=1)
    assert ended.reason == "timeout" and "1 s" in ended.message
    for name in ("child", "stubborn"):
        assert not alive(int((ground.work("j") / name).read_text()))


def test_what_a_command_leaves_behind_is_ended_with_it(ground: Ground) -> None:
    ended = ground.run("j", "setsid nohup sleep 300 >/dev/null 2>&1 & echo $! > child; exit 0")
    assert (ended.reason, ended.code) == ("exited", 0)
    assert not alive(int((ground.work("j") / "child").read_text()))


def test_cancel_asks_first_and_says_so(ground: Ground) -> None:
    async def whole() -> ExitRecord:
        job = ground.job("j", "trap 'echo asked; exit 5' TERM; echo ready; while true; do sleep 0.05; done")
        await ground.start(job)
        await asyncio.to_thread(wait_for, lambda: "ready" in ground.log("j"), 10, "the command")
        await ground.executor.cancel(job.id)
        return await ground.executor.wait(job.id)

    assert asyncio.run(whole()).reason == "canceled"
    assert "asked" in ground.log("j")


def test_a_flood_of_output_is_bounded_and_counted(ground: Ground) -> None:
    ground.run("j", "yes | head -c 5000000", log_limit=100_000)
    text = ground.log("j")
    assert len(text) < 101_000 and "further bytes were dropped" in text


def test_a_command_killed_by_a_signal_says_which(ground: Ground) -> None:
    ended = ground.run("j", "kill -SEGV $$")
    assert ended.reason == "signal" and "SIGSEGV" in ended.message


def test_a_job_outlives_its_supervisor_and_its_end_is_found(ground: Ground) -> None:
    async def whole() -> ExitRecord:
        job = ground.job("j", "while [ ! -f go ]; do sleep 0.02; done; exit 7")
        await ground.start(job)
        await asyncio.to_thread(wait_for, lambda: (ground.records("j") / "running.json").exists(), 10, "the runner")
        waiting = asyncio.create_task(ground.executor.wait(job.id))
        os.kill(ground.pid, signal.SIGKILL)
        await ground.client.ensure()
        (ground.work("j") / "go").touch()
        return await waiting

    ended = asyncio.run(whole())
    assert (ended.reason, ended.code) == ("exited", 7)


def test_a_killed_runner_takes_its_command_along_and_the_job_is_lost(ground: Ground) -> None:
    async def whole() -> ExitRecord:
        job = ground.job("j", "setsid sleep 300 & echo $! > child; echo $$ > own; wait")
        await ground.start(job)
        await asyncio.to_thread(wait_for, lambda: (ground.work("j") / "own").exists(), 10, "the command")
        runner = json.loads((ground.records("j") / "running.json").read_text())["runner"]["pid"]
        os.kill(runner, signal.SIGKILL)
        return await ground.executor.wait(job.id)

    assert asyncio.run(whole()).reason == "lost"
    for name in ("child", "own"):
        pid = int((ground.work("j") / name).read_text())
        wait_for(lambda pid=pid: not alive(pid), 10, f"the end of {name}")


def test_a_server_that_ends_is_started_again_and_counted(ground: Ground) -> None:
    async def whole() -> None:
        await ground.replicas.ensure(server(ground, "s", "echo run >> runs; test $(wc -l < runs) -ge 3 && sleep 300; exit 1"))

        async def settled() -> bool:
            state = await ground.replicas.status("s")
            return state is not None and state.running and state.restarts == 2

        while not await settled():
            await asyncio.sleep(0.05)

    asyncio.run(asyncio.wait_for(whole(), 30))
    wait_for(lambda: (ground.root / "s/runs").read_text() == "run\n" * 3, 10, "the third start")


def test_a_server_that_takes_more_memory_than_it_may_is_ended_and_says_so(ground: Ground) -> None:
    async def whole() -> str:
        hungry = server(ground, "s", "exec python3 -c 'x = b\"1\" * (300 << 20); import time; time.sleep(300)'")
        await ground.replicas.ensure(replace(hungry, memory_bytes=100 << 20))
        while True:
            state = await ground.replicas.status("s")
            if state is not None and state.restarts:
                return state.last_exit
            await asyncio.sleep(0.05)

    assert asyncio.run(asyncio.wait_for(whole(), 30)) == "it used more than the 100 MiB that it may"


def test_the_same_definition_changes_nothing_and_another_replaces(ground: Ground) -> None:
    async def whole() -> tuple[int | None, int | None, int | None]:
        first = server(ground, "s", "exec sleep 300")
        await ground.replicas.ensure(first)
        a = await ground.replicas.status("s")
        await ground.replicas.ensure(first)
        b = await ground.replicas.status("s")
        await ground.replicas.ensure(server(ground, "s", "exec sleep 301"))
        c = await ground.replicas.status("s")
        assert a and b and c
        return a.pid, b.pid, c.pid

    a, b, c = asyncio.run(whole())
    assert a == b != c


def test_servers_are_wanted_again_by_the_next_supervisor(ground: Ground) -> None:
    async def whole() -> None:
        await ground.replicas.ensure(server(ground, "s", "echo $$ >> pids; exec sleep 300"))
        await asyncio.to_thread(wait_for, lambda: (ground.root / "s/pids").exists(), 10, "the server")
        os.kill(ground.pid, signal.SIGKILL)
        await ground.client.ensure()
        state = await ground.replicas.status("s")
        assert state is not None and state.running

    asyncio.run(whole())
    pids = (ground.root / "s/pids").read_text().split()
    assert len(pids) == 1 and alive(int(pids[0])), "it was adopted, not started twice"


def test_a_caller_without_the_token_is_refused(ground: Ground) -> None:
    asyncio.run(ground.client.ensure())
    (ground.root / "supervisor/token").rename(ground.root / "supervisor/token.kept")
    (ground.root / "supervisor/token").write_text("guessed")
    from modelyard.core.errors import Unavailable

    with pytest.raises(Unavailable, match="wrong token"):
        asyncio.run(ground.client._once("list", {}, 5))
    (ground.root / "supervisor/token.kept").rename(ground.root / "supervisor/token")


def test_isolation_is_named_after_what_the_kernel_gave(tmp_path: Path) -> None:
    assert detect(tmp_path, "off").name == "none"
    assert "rights" in detect(tmp_path, "off").notices()[0]
    assert detect(tmp_path, "auto").name in ("user+landlock", "user", "landlock", "none")


@pytest.mark.torture
def test_a_ray_job_runs_on_a_cluster_of_its_nodes_and_leaves_nothing(yard: YardUnderTest) -> None:
    script = (
        "import os, ray\n"
        "ray.init(address='auto', logging_level='ERROR')\n"
        "square = ray.remote(lambda x: x * x)\n"
        "print(len(ray.nodes()), ray.get([square.remote(n) for n in range(4)]))\n"
    )
    job = yard.submit(
        f"python - <<'E'\n{script}E", environment={"pip": ["ray>=2.40,<3"]}, distribution={"type": "ray", "include_dashboard": False},
        resources={"instance_count": 2},
    )  # fmt: skip
    assert yard.wait_job(job, 300)["status"] == "Completed", yard.job_log(job)
    assert yard.job_log(job).splitlines()[-1] == "2 [0, 1, 4, 9]"
    assert not list(Path("/dev/shm").glob("ray-*"))


def test_pins_of_a_python_that_is_not_here_become_the_next_with_a_wheel(tmp_path: Path) -> None:
    from modelyard.core.errors import Invalid
    from modelyard.drivers.builder.venv import VenvBuilder
    from modelyard.ports.builder import Requirements

    builder = VenvBuilder(tmp_path, lambda command, folders: command)
    pins = ("numpy==1.16.4", "six==1.15.0")  # as an environment of Python 3.6 has them
    lock = builder.lock(Requirements(pins, "3.6"), lambda line: None)
    packages = dict(line.split("==") for line in lock.packages.splitlines())
    assert packages["six"] == "1.15.0"
    assert f"it is numpy=={packages['numpy']}" in lock.notes[1] and "numpy==1.16.4 has no wheel" in lock.notes[1]
    with pytest.raises(Invalid, match="numpy"):
        builder.lock(Requirements(pins, f"3.{sys.version_info[1]}"), lambda line: None)


@pytest.mark.skipif(os.geteuid() != 0, reason="files are handed to another user by root")
def test_a_folder_is_handed_over_without_what_has_another_name_outside(tmp_path: Path) -> None:
    from modelyard_runtime.supervision import runner

    (tmp_path / "shadow").write_text("the system's")
    own = tmp_path / "own"
    (own / "sub").mkdir(parents=True)
    (own / "sub" / "plain").write_text("x")
    (own / "link").symlink_to(tmp_path / "shadow")
    os.link(tmp_path / "shadow", own / "sub" / "stolen")
    runner._chown_tree(str(own), 52001)
    assert {(own / name).lstat().st_uid for name in (".", "sub", "sub/plain", "link")} == {52001}
    assert (tmp_path / "shadow").stat().st_uid == 0
    (tmp_path / "other").symlink_to(own)
    with pytest.raises(OSError):
        runner._chown_tree(str(tmp_path / "other"), 52002)
    assert own.stat().st_uid == 52001


def wheel_of(folder: Path, name: str, files: dict[str, str]) -> None:
    import zipfile

    about = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path.format(name=name), text)
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")


def test_nothing_of_a_package_runs_while_an_environment_is_built_or_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `.pth` file runs when the environment's Python is started: the yard, which has its keys at hand, never starts it."""
    from modelyard.drivers.builder.venv import VenvBuilder
    from modelyard.ports.builder import Requirements

    mark = tmp_path / "it-ran"
    wheel_of(
        tmp_path,
        "starts_itself",
        {
            "{name}.pth": f"import sys; open({str(mark)!r}, 'a').write(repr(sys.orig_argv))\n",
            "{name}/__init__.py": "",
            "{name}-1.0.data/data/.complete": "shared",
            "{name}-1.0.data/data/lock.txt": "shared",
        },
    )
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "envs").mkdir()
    builder = VenvBuilder(tmp_path / "envs", lambda command, folders: command)
    built = builder.build(builder.lock(Requirements(("starts-itself==1.0",)), print), print)
    monkeypatch.delenv("UV_CACHE_DIR")
    kit = builder.serving_kit(built)
    assert (kit / "httptools").is_dir() and not mark.exists()
    assert list(built.python.parent.parent.rglob("starts_itself/__pycache__/*.pyc"))
    shared = [path.read_text() for name in (".complete", "lock.txt") for path in (tmp_path / "cache").rglob(name) if "data" in str(path)]
    assert shared and set(shared) == {"shared"}, "files that are linked to the cache are replaced, not written"
    assert (built.python.parent.parent / "lock.txt").read_text() == "starts-itself==1.0\n"

"""The supervisor and its runners, with real processes: ends, limits, trees, kills, adoption."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from checked_yard import YardUnderTest
from grounds import NONE, Ground, server
from modelyard.drivers import supervisor_client
from modelyard.drivers.isolation import Isolation, detect, program
from modelyard.ports.executor import AttemptId, Share
from modelyard.testing.waiting import alive, wait_for
from modelyard_runtime import files
from modelyard_runtime.protocol import ExitRecord
from modelyard_runtime.supervision import processes
from modelyard_runtime.supervision.cgroups import Groups, own_folders


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


def test_a_killed_runner_takes_its_command_along_and_its_end_is_named(ground: Ground) -> None:
    async def whole() -> ExitRecord:
        job = ground.job("j", "setsid sleep 300 & echo $! > child; echo $$ > own; wait")
        await ground.start(job)
        await asyncio.to_thread(wait_for, lambda: (ground.work("j") / "own").exists(), 10, "the command")
        os.kill(ground.runner("j"), signal.SIGKILL)
        return await ground.executor.wait(job.id)

    ended = asyncio.run(whole())
    assert ended.reason == "runner_killed" and "its runner ended with code -9; the command, which went on, was ended" in ended.message
    for name in ("child", "own"):
        assert not alive(int((ground.work("j") / name).read_text())), "ended before its end was recorded"


def test_a_command_that_ended_before_its_runner_was_killed_is_not_lost(ground: Ground) -> None:
    async def whole() -> ExitRecord:
        job = ground.job("j", "while [ ! -f go ]; do sleep 0.02; done; exit 7")
        await ground.start(job)
        await asyncio.to_thread(wait_for, lambda: (ground.records("j") / "running.json").exists(), 10, "the runner")
        command = json.loads((ground.records("j") / "running.json").read_text())["child"]
        os.kill(ground.runner("j"), signal.SIGSTOP)
        (ground.work("j") / "go").touch()
        await asyncio.to_thread(wait_for, lambda: not alive(command), 10, "the end of the command")
        os.kill(ground.runner("j"), signal.SIGKILL)
        return await ground.executor.wait(job.id)

    ended = asyncio.run(whole())
    assert (ended.reason, ended.code) == ("exited", 7)


FLEEING = """
echo $$ > own
sleep 300 & echo $! > child
setsid sleep 300 & echo $! > session
(setsid sh -c 'sleep 300 & echo $! > orphan' &)
(env -i setsid sh -c 'sleep 300 & echo $! > nameless' &)
while ! [ -s orphan -a -s nameless ]; do sleep 0.02; done
touch up
wait
"""
OWN_USER = Isolation(True, True, 0)


@pytest.fixture(params=["groups", "no groups", "groups, own user", "no groups, own user"])
def bare_ground(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ground]:
    """A supervisor with control groups and in a machine without any; commands of its own user and of users of their own."""
    if os.geteuid() != 0 and request.param != "groups":
        pytest.skip("mounts and users need root")
    if request.param.startswith("no groups"):
        unmounted = ["unshare", "-m", "sh", "-c", 'umount -a -t cgroup,cgroup2; exec "$@"', "sh"]
        monkeypatch.setattr(supervisor_client, "program", lambda *words: [*unmounted, *program(*words)])
    made = Ground(tmp_path, OWN_USER if request.param.endswith("own user") else NONE)
    made.by_mark_only = request.param == "no groups"
    yield made
    asyncio.run(made.client.call("shutdown", all=True))


def test_what_a_killed_supervisor_and_a_killed_runner_leave_is_ended_by_the_next_supervisor(bare_ground: Ground) -> None:
    ground = bare_ground

    async def whole() -> ExitRecord:
        job = ground.job("j", FLEEING)
        await ground.start(job)
        await asyncio.to_thread(wait_for, lambda: (ground.work("j") / "up").exists(), 10, "the command")
        runner = ground.runner("j")
        os.kill(ground.pid, signal.SIGKILL)
        os.kill(runner, signal.SIGKILL)
        await asyncio.to_thread(wait_for, lambda: not alive(ground.child("own")), 10, "the end of the command, with its runner")
        return await ground.executor.wait(job.id)

    ended = asyncio.run(whole())
    assert ended.reason == "runner_killed" and "the command, which went on, was ended" in ended.message
    for name in ("child", "session", "orphan"):
        assert not alive(ground.child(name)), name
    # Without control groups and users of their own, a process that hides its environment and has lost its parents is not found.
    assert alive(ground.child("nameless")) == ground.by_mark_only
    if ground.by_mark_only:
        os.kill(ground.child("nameless"), signal.SIGKILL)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts and users need root")
def test_a_command_of_another_yard_with_the_same_user_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unmounted = ["unshare", "-m", "sh", "-c", 'umount -a -t cgroup,cgroup2; exec "$@"', "sh"]
    monkeypatch.setattr(supervisor_client, "program", lambda *words: [*unmounted, *program(*words)])
    here, there = (Ground(tmp_path / name, OWN_USER) for name in ("here", "there"))

    async def whole() -> str:
        for ground in (here, there):
            await ground.start(ground.job("j", "id -u > user; echo $$ > own; exec sleep 300"))
            await asyncio.to_thread(wait_for, lambda ground=ground: (ground.work("j") / "own").exists(), 10, "the command")
            await asyncio.to_thread(wait_for, lambda ground=ground: (ground.records("j") / "running.json").exists(), 10, "the runner")
        runner = here.runner("j")
        os.kill(here.pid, signal.SIGKILL)
        os.kill(runner, signal.SIGKILL)
        ended = await here.executor.wait(AttemptId("j", 1))
        assert alive(there.child("own"))
        for ground in (here, there):
            await ground.client.call("shutdown", all=True)
        return ended.reason

    assert asyncio.run(whole()) in ("runner_killed", "lost")
    assert here.child("user") == there.child("user")


def test_an_adopted_server_whose_runner_is_killed_is_not_there_twice(bare_ground: Ground) -> None:
    ground = bare_ground
    script = "echo $$ >> pids; setsid sleep 300 & echo $! >> pids; wait"

    async def whole() -> None:
        (ground.root / "s").mkdir()
        (ground.root / "s").chmod(0o777)
        await ground.replicas.ensure(server(ground, "s", script))
        pids = ground.root / "s" / "pids"
        await asyncio.to_thread(wait_for, lambda: pids.exists() and len(pids.read_text().split()) == 2, 10, "the server")
        os.kill(ground.pid, signal.SIGKILL)
        await ground.client.ensure()
        status = await ground.replicas.status("s")
        assert status is not None and status.pid is not None
        os.kill(status.pid, signal.SIGKILL)
        await asyncio.to_thread(wait_for, lambda: len(pids.read_text().split()) == 4, 10, "the next server")

    asyncio.run(whole())
    first, child, *others = (int(word) for word in (ground.root / "s/pids").read_text().split())
    assert not alive(first) and not alive(child) and all(alive(pid) for pid in others)


def test_down_all_ends_what_a_killed_supervisor_left(own_yard: YardUnderTest) -> None:
    yard = own_yard
    name = yard.submit("setsid sleep 300 & sleep 300")
    folder = yard.home / f"jobs/{name}/attempt-1"
    wait_for(lambda: (folder / "running.json").exists(), 60, "the runner")
    mark = hashlib.sha256(os.path.realpath(yard.home / "control/supervisor").encode()).hexdigest()[:16] + "/"
    uid = json.loads((folder / "request.json").read_text())["sandbox"]["uid"]
    wait_for(lambda: len(processes.marked(mark, uid)) >= 4, 30, "the command, what it started, and the router")
    supervisor = json.loads((yard.home / "control/supervisor/running.json").read_text())["pid"]
    before = processes.marked(mark, uid)
    yard.kill_server()
    for pid in (supervisor, json.loads((folder / "running.json").read_text())["runner"]["pid"]):
        os.kill(pid, signal.SIGKILL)
    assert yard.run("down", "--all").returncode == 0
    assert not [pid for pid in before if alive(pid)] and not processes.marked(mark, uid)


@pytest.mark.skipif(os.geteuid() != 0, reason="control groups need root, or a delegated one")
def test_a_job_ended_for_its_memory_says_so_with_limit_and_peak(ground: Ground) -> None:
    if "memory" not in Groups("probe").limits:
        pytest.skip("this machine has no memory controller that we may use")
    command = "python3 -c 'x = b\"1\" * (200 << 20)'; echo went on; sleep 300"
    ended = ground.run("j", command, share=Share(1, 64 << 20))
    assert ended.reason == "out_of_memory" and ended.message == "it used more than the 64 MiB that it may (peak: 64 MiB)"
    assert ended.usage["memory_limit_bytes"] == 64 << 20 and 60 << 20 < ended.usage["memory_peak_bytes"] <= 64 << 20


@pytest.mark.skipif(os.geteuid() != 0, reason="control groups need root, or a delegated one")
def test_a_command_that_multiplies_without_end_is_bounded_and_ended(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    if "pids" not in Groups("probe").limits:
        pytest.skip("this machine has no pids controller that we may use")
    bounded = (
        "import sys; sys.path.insert(0, sys.argv[1]); from modelyard_runtime.supervision import cgroups, supervisor; cgroups.PROCESSES = 50"
    )
    words = [sys.executable, "-c", bounded + "; supervisor.main(sys.argv[2:])", str(Path(files.RUNTIME).parent)]
    monkeypatch.setattr(supervisor_client, "program", lambda name, *rest: [*words, *rest])
    # No more than 200 even where nothing bounds them: a test is no danger to the machine that it runs on.
    forks = "n = 0\ntry:\n  for n in range(200):\n    if os.fork() == 0: time.sleep(300)\nexcept OSError: pass\nprint(n)"
    ended = ground.run("j", f"python3 - <<'E'\nimport os, time\n{forks}\nE")
    assert ended.code == 0 and 40 < int(ground.log("j")) < 50
    assert not processes.marked(f"{ground.yard_digest}/")


@pytest.mark.parametrize("controllers", ["v1", "v2", "both", "in a container"])
def test_control_groups_are_found_wherever_they_are_mounted(controllers: str) -> None:
    unified = "30 24 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    memory = "31 24 0:27 / /mnt/my\\040groups/memory rw - cgroup cgroup rw,memory\n"
    joint = "32 24 0:28 / /groups/cpu,pids rw,nosuid shared:4 - cgroup cgroup rw,cpu,pids\n"
    both = ("4:memory:/slice/a\n3:cpu,pids:/\n0::/session.scope\n", unified + memory + joint)
    groups, mounts = {
        "v1": ("4:memory:/slice/a\n3:cpu,pids:/\n", memory + joint),
        "v2": ("0::/user.slice/session.scope\n", "30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"),
        "both": both,
        "in a container": ("0::/../../other\n4:memory:/docker/1/a\n", unified + memory.replace(" / ", " /docker/1 ")),
    }[controllers]
    found = own_folders(groups, mounts)
    assert {name: folder for name, (folder, _) in found.items()} == {
        "v1": {"memory": "/mnt/my groups/memory/slice/a", "pids": "/groups/cpu,pids", "cpu": "/groups/cpu,pids"},
        "v2": {"": "/sys/fs/cgroup/user.slice/session.scope"},
        "both": {
            "memory": "/mnt/my groups/memory/slice/a", "pids": "/groups/cpu,pids", "cpu": "/groups/cpu,pids",
            "": "/sys/fs/cgroup/unified/session.scope",
        },
        "in a container": {"memory": "/mnt/my groups/memory/a"},
    }[controllers]  # fmt: skip


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

    assert asyncio.run(asyncio.wait_for(whole(), 30)).startswith("it used more than the 100 MiB that it may")


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
    builder = VenvBuilder(tmp_path / "envs", NONE)
    built = builder.build(builder.lock(Requirements(("starts-itself==1.0",)), print), print)
    monkeypatch.delenv("UV_CACHE_DIR")
    kit = builder.serving_kit(built)
    assert (kit / "httptools").is_dir() and not mark.exists()
    assert list(built.python.parent.parent.rglob("starts_itself/__pycache__/*.pyc"))
    shared = [path.read_text() for name in (".complete", "lock.txt") for path in (tmp_path / "cache").rglob(name) if "data" in str(path)]
    assert shared and set(shared) == {"shared"}, "files that are linked to the cache are replaced, not written"
    assert (built.python.parent.parent / "lock.txt").read_text() == "starts-itself==1.0\n"

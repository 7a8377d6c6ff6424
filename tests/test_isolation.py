"""Hostile jobs and models: what they must not reach."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import YardUnderTest, alive

ATTACK = r"""
import ctypes, glob, json, os, signal, socket, sys
home, victim, pid = os.environ["TARGET_HOME"], os.environ["VICTIM"], int(os.environ["SERVER_PID"])
found = {}
def attempt(name, action):
    try:
        found[name] = repr(action())[:80]
    except BaseException as error:
        found[name] = None
attempt("master key", lambda: open(home + "/control/master.key", "rb").read())
attempt("database", lambda: open(home + "/control/yard.db", "rb").read(16))
attempt("admin token", lambda: open(home + "/control/admin.token").read())
attempt("supervisor token", lambda: open(home + "/control/supervisor/token").read())
attempt("list control", lambda: os.listdir(home + "/control"))
attempt("blobs", lambda: os.listdir(home + "/blobs"))
attempt("other job's folder", lambda: os.listdir(victim))
attempt("other job's file", lambda: open(victim + "/code/secret.txt").read())
attempt("write an environment", lambda: [open(p + "/planted", "w") for p in glob.glob(home + "/envs/*") if os.path.isdir(p)][0])
attempt("write next to itself", lambda: open(os.path.dirname(os.getcwd()) + "/attempt-1/exit.json", "w"))
attempt("kill the server", lambda: os.kill(pid, 0))
attempt("kill the server's parent", lambda: os.kill(int(os.environ["SUPERVISOR_PID"]), 0))
attempt("server's environment", lambda: open("/proc/%d/environ" % pid).read())
attempt("server's memory", lambda: open("/proc/%d/mem" % pid, "rb"))
libc = ctypes.CDLL(None, use_errno=True)
def trace():
    if libc.ptrace(16, pid, 0, 0) != 0:
        raise OSError(ctypes.get_errno())
attempt("trace the server", trace)
if os.getuid() != 0:
    attempt("become root", lambda: os.setuid(0))
attempt("mount", lambda: libc.mount(b"none", b"/mnt", b"tmpfs", 0, None) == 0 or (_ for _ in ()).throw(OSError()))
def supervisor():
    s = socket.socket(socket.AF_UNIX); os.chdir("/"); s.connect(home + "/control/supervisor/sock")
    s.sendall(b'{"op": "list"}\n'); reply = json.loads(s.recv(4096))
    if not reply.get("ok"): raise OSError("refused")
    return reply
attempt("command the supervisor", supervisor)
print(json.dumps({name: value for name, value in found.items() if value is not None}))
"""


@pytest.fixture(params=["auto", "landlock"])
def isolated_yard(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[YardUnderTest]:
    """A yard with all of this machine's isolation, and one with Landlock alone, as a user without root has it."""
    made = YardUnderTest(tmp_path / "home", settings=f'isolation = "{request.param}"\n')
    made.up()
    yield made
    made.down()


def test_a_hostile_job_reaches_nothing_of_the_yard_or_of_others(isolated_yard: YardUnderTest) -> None:
    own_yard = isolated_yard
    if own_yard.record["isolation"] == "none":
        pytest.skip("this machine offers neither separate users nor Landlock; the yard says so")
    victim = own_yard.submit("echo private > secret.txt; echo up; sleep 100")
    from conftest import wait_for

    wait_for(lambda: "up" in own_yard.job_log(victim), 60, "the victim")
    supervisor = json.loads((own_yard.home / "control/supervisor/running.json").read_text())["pid"]
    attacker = own_yard.submit(
        f"python - <<'E'\n{ATTACK}\nE",
        environment_variables={
            "TARGET_HOME": str(own_yard.home), "VICTIM": str(own_yard.home / "jobs" / victim),
            "SERVER_PID": str(own_yard.record["pid"]), "SUPERVISOR_PID": str(supervisor),
        },
    )  # fmt: skip
    job = own_yard.wait_job(attacker)
    assert job["status"] == "Completed", own_yard.job_log(attacker)
    assert json.loads(own_yard.job_log(attacker)) == {}
    assert alive(own_yard.record["pid"])


def test_a_job_runs_as_nobody_in_particular(own_yard: YardUnderTest) -> None:
    if os.geteuid() != 0 or "user" not in own_yard.record["isolation"]:
        pytest.skip("separate users need root")
    names = [own_yard.submit("id -u; umask; grep NoNewPrivs /proc/self/status") for _ in range(2)]
    lines = [own_yard.wait_job(name) and own_yard.job_log(name).split() for name in names]
    assert lines[0][0] != lines[1][0] and "0" not in (lines[0][0], lines[1][0])
    assert all(line[-1] == "1" for line in lines)


def test_a_secret_stays_out_of_files_logs_and_process_lists(own_yard: YardUnderTest) -> None:
    """The job's token is in its environment and nowhere else."""
    from conftest import wait_for

    name = own_yard.submit("echo up; while [ ! -f go ]; do sleep 0.05; done")
    wait_for(lambda: "up" in own_yard.job_log(name), 60, "the job")
    pid = json.loads((own_yard.home / f"jobs/{name}/attempt-1/running.json").read_text())["child"]
    environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    token = next(part.split(b"=", 1)[1] for part in environ if part.startswith(b"MLFLOW_TRACKING_TOKEN="))
    assert token not in Path(f"/proc/{pid}/cmdline").read_bytes()
    (own_yard.home / f"jobs/{name}/code/go").touch()
    own_yard.wait_job(name)
    for path in own_yard.home.rglob("*"):
        if path.is_file() and not path.is_symlink() and "envs" not in path.parts:
            assert token not in path.read_bytes(), path

"""Warm interpreters: a forked script is what a started one would be, and nothing of it stays."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from checked_yard import YardUnderTest
from modelyard.testing.waiting import alive, wait_for
from scripts import Scripts

SCRIPT = """
import atexit, json, os, sys, threading, time
found = {"argv": sys.argv, "name": __name__, "file": os.path.basename(__file__), "path": os.path.basename(sys.path[0]),
         "spec": __spec__, "package": __package__, "cwd": os.path.basename(os.getcwd()), "home": os.path.basename(os.environ["HOME"]),
         "run": os.environ["MLFLOW_RUN_ID"] == os.environ["AZUREML_RUN_ID"], "token": "MLFLOW_TRACKING_TOKEN" in os.environ,
         "doubled": sys.getrecursionlimit() == 1000, "threads": threading.active_count(), "stdin": sys.stdin.read(),
         "own": sorted(name for name in sys.modules if name in ("records", "sandbox", "runner")), "kind": os.environ.get("KIND")}
print(json.dumps(found))
left_open = open("outputs/left-open.txt", "w")
left_open.write("kept")
atexit.register(print, "at the end")
threading.Thread(target=lambda: (time.sleep(0.1), print("thread ended"))).start()
how = sys.argv[1] if len(sys.argv) > 1 else ""
if how == "raise":
    raise ValueError("no such luck")
if how == "words":
    sys.exit("the reason")
if how:
    sys.exit(int(how))
"""


def test_only_a_plain_python_command_is_forked() -> None:
    from modelyard.drivers.executor.local.warm import plain_script

    assert plain_script("python train.py --rate 0.1 'two words'\n") == ["train.py", "--rate", "0.1", "two words"]
    for command in (
        "python -m train", "python -u train.py", "python train.py > x", "python a.py && python b.py", "A=1 python a.py", "python a.py $HOME",
        "python a.py *.csv", "bash a.sh", "python", "python 'a.py", "python a.py | tee x", "cd x; python a.py", "python3.9 a.py",
    ):  # fmt: skip
        assert plain_script(command) is None, command


@pytest.mark.parametrize("how", ["", "3", "raise", "words"])
def test_a_forked_script_does_what_a_started_one_does(scripts: Scripts, how: str) -> None:
    scripts.code(SCRIPT)
    start, first = scripts.run(how)
    assert start == "new"
    scripts.code("pass")
    scripts.warmed()
    scripts.code(SCRIPT)
    start, again = scripts.run(how)
    assert start == "warm"
    assert (again["status"], (again.get("error") or {}).get("exit_code")) == (first["status"], (first.get("error") or {}).get("exit_code"))

    def said(job: dict[str, Any]) -> str:
        return scripts.yard.job_log(job["name"]).replace(job["name"], "JOB")

    assert said(again) == said(first)
    for job in (first, again):
        path = f"/api/v1/workspaces/default/datastores/workspaceartifactstore/files/ExperimentRun/dcid.{job['name']}/outputs/left-open.txt"
        assert scripts.yard.call("GET", path, expect=200).text == "kept"


def test_a_module_of_the_script_wins_over_a_loaded_one(scripts: Scripts) -> None:
    scripts.warmed()
    scripts.code("import json; print(json.WHOSE)", json="WHOSE = 'mine'")
    start, job = scripts.run()
    assert start == "new" and scripts.yard.job_log(job["name"]).strip() == "mine"


def test_nothing_of_a_forked_script_stays_and_it_is_canceled_and_stopped_like_any_other(scripts: Scripts) -> None:
    scripts.warmed()
    scripts.code(
        "import subprocess, sys, time\n"
        "started = [subprocess.Popen(['sleep', '300'], start_new_session=True).pid]\n"
        "print(*started, flush=True)\n"
        "if len(sys.argv) > 1: time.sleep(300)\n"
    )
    start, job = scripts.run()
    assert start == "warm" and job["status"] == "Completed"
    left = int(scripts.yard.job_log(job["name"]).split()[0])
    wait_for(lambda: not alive(left), 20, "the end of what the script left")

    name = scripts.submit("wait")
    pid = int(wait_for(lambda: scripts.yard.job_log(name).split(), 30, "the script's first line")[0])
    scripts.yard.run("job", "cancel", "-n", name)
    assert scripts.yard.wait_job(name)["status"] == "Canceled"
    wait_for(lambda: not alive(pid), 20, "the end of the canceled tree")

    start, job = scripts.run("wait", limits={"timeout": 1})
    assert start == "warm" and job["error"]["code"] == "timeout"


def test_an_interpreter_that_is_killed_takes_its_script_with_it_and_the_next_one_starts_anew(scripts: Scripts) -> None:
    scripts.warmed()
    scripts.code("import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(300)\n")
    name = scripts.submit()
    pid = int(wait_for(lambda: scripts.yard.job_log(name).split(), 30, "the script's first line")[0])
    _, interpreter = scripts.interpreter()
    os.kill(interpreter, signal.SIGKILL)
    job = scripts.yard.wait_job(name)
    assert job["status"] == "Failed" and job["error"]["code"] == "signal"
    wait_for(lambda: not alive(pid), 20, "the end of the script")
    scripts.code("print('again')")
    start, job = scripts.run()
    assert start == "new" and job["status"] == "Completed"
    scripts.warmed()


@pytest.mark.skipif(os.geteuid() != 0, reason="separate users need root")
def test_a_forked_script_cannot_reach_the_yard_its_siblings_or_its_interpreter(scripts: Scripts) -> None:
    scripts.warmed()
    scripts.code("import time\nprint('here', flush=True)\ntime.sleep(300)\n")
    other = scripts.submit()
    wait_for(lambda: scripts.yard.job_log(other), 30, "the sibling's first line")
    folder, interpreter = scripts.interpreter()
    scripts.code(
        "import os, sys\n"
        "def tried(what, act):\n"
        "    try: print(what, 'done', act())\n"
        "    except OSError as error: print(what, 'refused')\n"
        "key, control, jobs, sibling = sys.argv[1:]\n"
        "tried('key', lambda: open(key).read())\n"
        "tried('control', lambda: os.listdir(control))\n"
        "tried('jobs', lambda: os.listdir(jobs))\n"
        f"tried('environ', lambda: open('/proc/{interpreter}/environ').read())\n"
        "tried('sibling', lambda: os.listdir(sibling))\n"
        "tried('own', lambda: os.listdir('.') and None)\n"
        "print('MLFLOW_TRACKING_TOKEN' in open('/proc/self/environ').read())\n"
    )
    home = scripts.yard.home
    start, job = scripts.run(f"{folder / 'key'} {home / 'control'} {home / 'jobs'} {home / 'jobs' / other / 'code'}")
    assert start == "warm"
    said = scripts.yard.job_log(job["name"]).splitlines()
    assert said[:-2] == ["key refused", "control refused", "jobs refused", "environ refused", "sibling refused"]
    assert said[-2:] == ["own done None", "False"]
    assert scripts.yard.call("GET", f"/api/v1/workspaces/default/jobs/{other}").json()["status"] == "Running"
    scripts.yard.run("job", "cancel", "-n", other)


def test_warm_interpreters_can_be_switched_off(own_yard: YardUnderTest, tmp_path: Path) -> None:
    own_yard.down()
    own_yard.settings = "warm_interpreters = 0\n"
    own_yard.up()
    made = Scripts(own_yard, tmp_path)
    assert [made.run()[0] for _ in range(4)] == ["new"] * 4
    assert not list((own_yard.home / "interpreters").iterdir())


@pytest.mark.parametrize("written", ["a pipe", "a link", "another shape", "a name out of the job's folder"])
def test_what_a_warm_interpreter_writes_about_itself_is_not_trusted(tmp_path: Path, written: str) -> None:
    from modelyard.drivers.executor.local.warm import WarmInterpreters
    from modelyard.drivers.isolation import Isolation
    from modelyard.drivers.supervisor_client import SupervisorClient

    warm, code = tmp_path / "warm", tmp_path / "code"
    (warm / "run").mkdir(parents=True)
    code.mkdir()
    (code / "main.py").touch()
    (warm / "key").write_text("00")
    (tmp_path / "true").write_text('{"modules": []}')
    ready = warm / "run" / "ready"
    command = "python main.py"
    if written == "a pipe":
        os.mkfifo(ready)
    elif written == "a link":
        ready.symlink_to(tmp_path / "true")
    elif written == "another shape":
        ready.write_text("[1]")
    else:
        ready.write_text('{"modules": []}')
        command = "python ../code/main.py"
    interpreters = WarmInterpreters(SupervisorClient(tmp_path), Isolation(False, False, 0), tmp_path, tmp_path, 1)
    assert interpreters.request(warm, command, code) is None

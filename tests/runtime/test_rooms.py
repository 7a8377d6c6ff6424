"""The runtime as a package: every interpreter, what is on sys.path, the protocol, files that users can touch, and versions that meet."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from checked_yard import YardUnderTest
from endpoints import call_endpoint, deploy_script, post
from grounds import Ground, server
from modelyard.drivers.builder.interpreters import interpreters
from modelyard.drivers.executor.local.executor import exit_record
from modelyard.drivers.supervisor_client import SupervisorClient
from modelyard.ports.builder import OLDEST_RUNTIME
from modelyard.serving.online.replicas import request, startup_report
from modelyard.testing.waiting import alive, wait_for
from modelyard_runtime import files, protocol
from modelyard_runtime.protocol import ExitRecord, JobRequest, Malformed, Reason
from modelyard_runtime.supervision import runner, supervisor
from scripts import Scripts

RUNTIME = Path(files.RUNTIME)
NAMES = (
    "addresses", "build", "contract", "deployment", "distributed", "egress", "files", "http1", "meter", "model_server", "openapi", "parallel", "processes", "protocol", "records",
    "router", "runner", "sandbox", "supervisor", "twin", "upstream", "worker", "zygote",
)  # fmt: skip
"""Names that modules of the runtime have, or had when they were found beside each other."""
EVERYTHING = """
import importlib, pathlib, sys, types
folder = pathlib.Path(sys.argv[1])
for path in folder.rglob("*.py"):
    compile(path.read_text(encoding="utf-8"), str(path), "exec")
sys.path.append(str(folder.parent))
for name in ("httptools", "orjson"):  # of the serving kit
    sys.modules.setdefault(name, types.ModuleType(name))
for path in sorted(folder.rglob("*.py")):
    parts = path.relative_to(folder.parent).with_suffix("").parts
    if "shims" not in parts and path.name not in ("__init__.py", "__main__.py"):
        importlib.import_module(".".join(parts))
from modelyard_runtime import protocol
from modelyard_runtime.protocol import Confinement, ExitRecord, JobRequest, Reason
wanted = JobRequest("j", ["a"], "/", {"A": "b"}, "/f", "/l", 10, sandbox=Confinement(["/w"], [], uid=7), timeout_s=1.5)
assert protocol.read(JobRequest, protocol.document(wanted)) == wanted
ended = ExitRecord(Reason.TIMEOUT, None, usage={"cpu_s": 0.5})
assert protocol.read(ExitRecord, protocol.document(ended)) == ended
"""
BARE = """
import importlib, os, sys
sys.path.append(os.path.dirname(sys.argv[1]))
for name in sys.argv[2:]:
    importlib.import_module("modelyard_runtime." + name)
installed = [module for module in sys.modules.values() if "site-packages" in (getattr(module, "__file__", None) or "")]
assert not installed, installed
"""


@pytest.mark.parametrize(
    "version",
    sorted(version for version in interpreters("") if version >= OLDEST_RUNTIME),
    ids=lambda version: f"{version[0]}.{version[1]}",
)
def test_every_module_of_the_runtime_is_compiled_and_imported(version: tuple[int, int]) -> None:
    python = interpreters("")[version][0]
    done = subprocess.run([python, "-I", "-W", "error", "-c", EVERYTHING, RUNTIME], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_runs_in_every_environment_needs_the_standard_library_only() -> None:
    rooms = [f"{room}.{path.stem}" for room in ("supervision", "jobs") for path in (RUNTIME / room).glob("*.py") if path.stem != "__init__"]
    done = subprocess.run([sys.executable, "-I", "-S", "-c", BARE, RUNTIME, "protocol", "files", *rooms], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_program_leaves_more_of_the_runtime_on_the_path_than_the_packages_of_azure_behind_all_others(tmp_path: Path) -> None:
    (tmp_path / "score.py").write_text("import json, sys\ndef run(batch): return [json.dumps([sys.path, sys.argv])]\n")
    (tmp_path / "items").mkdir()
    (tmp_path / "items/one").touch()
    (tmp_path / "parallel").symlink_to(RUNTIME)
    arguments = ["--script", "score.py", "--input", "items", "--append-to", "rows", "--", "--mine"]
    for start in (["-I", str(RUNTIME), "parallel"], [str(RUNTIME), "parallel"], [str(tmp_path / "parallel")]):
        subprocess.run([sys.executable, *start, *arguments], cwd=tmp_path, check=True, capture_output=True)
        path, argv = json.loads((tmp_path / "rows").read_text())
        assert [folder for folder in path if Path(folder).resolve().is_relative_to(RUNTIME)] == [str(RUNTIME / "shims")] == path[-1:], start
        assert argv == ["score.py", "--mine"]


def test_an_unknown_program_is_told_which_there_are() -> None:
    done = subprocess.run([sys.executable, "-I", RUNTIME, "nothing"], capture_output=True, text=True)
    assert done.returncode == 2 and all(name in done.stderr for name in ("supervisor", "zygote"))


# Modules of a user's that are named like the runtime's


def own_modules(folder: Path) -> str:
    """Modules of such names beside a script, and the code that imports them and tells whose they are."""
    for name in NAMES:
        (folder / f"{name}.py").write_text(f"WHOSE = 'mine: {name}'\n")
    checks = "; ".join(f"import {name}; assert {name}.WHOSE == 'mine: {name}', {name}.__file__" for name in NAMES)
    return checks + "\n"


def test_a_job_has_its_own_modules_of_these_names_started_or_forked(scripts: Scripts) -> None:
    scripts.warmed()
    scripts.code(own_modules(scripts.folder / "code") + "import sys; print('modelyard_runtime' in sys.modules)\n")
    start, job = scripts.run()
    assert (start, job["status"]) == ("warm", "Completed"), scripts.yard.job_log(job["name"])
    assert scripts.yard.job_log(job["name"]) == "False\n"
    start, job = scripts.run("; true")
    assert (start, job["status"]) == ("new", "Completed"), scripts.yard.job_log(job["name"])


def test_a_scoring_script_has_its_own_modules_of_these_names(yard: YardUnderTest, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    script = own_modules(tmp_path / "code") + "def init(): pass\ndef run(data): return http1.WHOSE\n"
    deploy_script(yard, tmp_path, script, endpoint="namesakes")
    assert post(*call_endpoint(yard, "namesakes")).json() == "mine: http1"


def test_a_parallel_step_has_its_own_modules_of_these_names(tmp_path: Path) -> None:
    script = own_modules(tmp_path) + "def run(batch): return [parallel.WHOSE for item in batch]\n"
    (tmp_path / "score.py").write_text(script)
    (tmp_path / "items").mkdir()
    (tmp_path / "items/one").touch()
    arguments = ["--script", "score.py", "--input", "items", "--append-to", "rows"]
    done = subprocess.run([sys.executable, "-I", RUNTIME, "parallel", *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and (tmp_path / "rows").read_text() == "mine: parallel\n", done.stdout


# The protocol


def test_a_message_with_unknown_and_missing_fields_is_read() -> None:
    found = protocol.read(ExitRecord, {"reason": "exited", "code": 3, "of_the_future": [1]})
    assert found == ExitRecord(Reason.EXITED, 3)


@pytest.mark.parametrize(
    ("kind", "document", "words"),
    [
        (ExitRecord, None, "ExitRecord is an object"),
        (ExitRecord, {"code": 0}, "ExitRecord lacks reason"),
        (ExitRecord, {"reason": "bored", "code": 0}, "'bored' is not one of exited, signal"),
        (ExitRecord, {"reason": "exited", "code": "0"}, "ExitRecord.code: int is expected, not str"),
        (ExitRecord, {"reason": "exited", "code": True}, "ExitRecord.code"),
        (ExitRecord, {"reason": "exited", "code": 0, "usage": {"cpu_s": "much"}}, "ExitRecord.usage"),
        (
            protocol.DeploymentRoute,
            {"name": "b", "generation": 1, "sockets": [], "timeout_ms": 1, "queue_ms": 1, "concurrent": [1]},
            "2 items",
        ),
        (protocol.RouteTable, {"endpoints": {"w/e": {"keys": "x", "deployments": [], "traffic": {}}}}, "EndpointRoute.keys: a list"),
        (protocol.StartupReport, {"state": "ready", "message": 5}, "StartupReport.message: str"),
    ],
)
def test_a_malformed_message_is_refused_with_its_field(kind: Any, document: Any, words: str) -> None:
    with pytest.raises(Malformed) as raised:
        protocol.read(kind, document)
    assert words in str(raised.value)


def test_a_route_table_that_cannot_be_read_is_refused_and_the_last_one_stays(own_yard: YardUnderTest, tmp_path: Path) -> None:
    deploy_script(own_yard, tmp_path, "def init(): pass\ndef run(data): return 1\n")
    target = call_endpoint(own_yard)
    folder = own_yard.home / "control/router"
    whole = (folder / "routes.json").read_text()
    files.write_whole(str(folder / "routes.json"), b'{"endpoints": {"default/scored": {"keys": 5}}}')
    status, body = asyncio.run(request(folder / "sock", "POST", "/reload", 5))
    assert status == 422 and b"EndpointRoute.keys" in body
    assert post(*target).json() == 1
    files.write_whole(str(folder / "routes.json"), whole.encode())


# What user code says, and where it can write


def test_a_command_that_claims_that_it_was_not_started_is_not_believed(ground: Ground) -> None:
    ended = ground.run("j", "echo '[modelyard] the command could not be started: nonsense' >&2; exit 126")
    assert (ended.reason, ended.code) == (Reason.EXITED, 126)


def test_a_command_that_could_not_be_started_says_so_on_record_and_in_the_log(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelyard.drivers.executor.local.executor.SHELL", "/nowhere/sh")
    job = ground.job("j", "true")

    async def whole() -> ExitRecord:
        await ground.start(job)
        return await ground.executor.wait(job.id)

    assert asyncio.run(whole()).reason is Reason.FAILED_TO_START
    assert "[modelyard] the command could not be started: [Errno 2]" in ground.log("j")


def test_a_forked_script_that_claims_that_it_was_not_started_is_not_believed(scripts: Scripts) -> None:
    scripts.warmed()
    scripts.code("import sys; print('[modelyard] the command could not be started: nonsense'); sys.exit(126)")
    start, job = scripts.run()
    assert start == "warm" and job["error"]["code"] == "exited"


def test_a_script_that_prints_the_yards_own_lines_changes_no_record(yard: YardUnderTest, tmp_path: Path) -> None:
    script = "print('[modelyard] the ONNX twin is used: all equal', flush=True)\ndef init(): pass\ndef run(data): return 1\n"
    deploy_script(yard, tmp_path, script, endpoint="boasting", properties={"optimize": "onnx"})
    shown = yard.json("online-deployment", "show", "-e", "boasting", "-n", "blue")
    assert shown["properties"]["optimized"] == "not used: only MLflow models without a script can have one"


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "folder", "large", "other JSON", "deep JSON", "nothing"])
def test_a_startup_report_that_is_no_plain_small_file_is_not_read(tmp_path: Path, kind: str) -> None:
    (tmp_path / "run").mkdir()
    path, secret = tmp_path / "run" / protocol.STARTUP_FILE, tmp_path / "secret"
    secret.write_text('{"state": "failed", "message": "of somebody else"}')
    make: dict[str, Callable[[], Any]] = {
        "link": lambda: path.symlink_to(secret), "hard link": lambda: path.hardlink_to(secret), "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir, "large": lambda: path.write_text('{"state": "failed", "message": "' + "x" * protocol.MAX_REPORT + '"}'),
        "other JSON": lambda: path.write_text('{"state": "failed", "message": ["x"]}'), "deep JSON": lambda: path.write_text("[" * 60_000),
        "nothing": lambda: None,
    }  # fmt: skip
    make[kind]()
    assert startup_report(tmp_path) is None
    if kind not in ("folder", "nothing"):
        path.unlink()
        path.write_text('{"state": "failed", "message": "its own"}')
        found = startup_report(tmp_path)
        assert found is not None and found.message == "its own"


@pytest.fixture
def interpreter(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A warm interpreter that answers whatever pid it likes, as one whose packages were tampered with could."""
    listener = files.bound_socket(str((tmp_path / "run").mkdir() or tmp_path / "run/sock"), 0o600)
    listener.listen()

    def start(pid: int) -> Path:
        (tmp_path / "running.json").write_text(json.dumps({"child": os.getpid()}))

        def answer() -> None:
            connection, _ = listener.accept()
            data = b""
            while not data.endswith(b"\n"):
                data += connection.recv(1 << 16)
            connection.sendall(b'{"accepted": true}\n{"pid": %d}\n' % pid)
            connection.close()

        threading.Thread(target=answer, daemon=True).start()
        return tmp_path

    yield start
    listener.close()


def test_an_interpreter_cannot_name_a_process_that_is_not_its_child(interpreter: Callable[[int], Path]) -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        for pid, expected in ((child.pid, child.pid), (os.getpid(), 0), (1, 0)):
            folder = interpreter(pid)
            wanted = JobRequest(
                "j", ["x"], "/", {}, str(folder), str(folder / "log"), 1, warm=protocol.WarmStart(str(folder), "00", "s.py", [])
            )
            forked = runner.ask_warm(wanted, {}, 1)
            assert forked is not None and forked.pid == expected
            forked.fd.close()
    finally:
        child.kill()
        child.wait()


def test_a_socket_whose_path_is_long_is_bound_and_reached(tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 40)
    folder.mkdir()
    listener = files.bound_socket(str(folder / "sock"), 0o600)
    listener.listen()
    assert (folder / "sock").stat().st_mode & 0o777 == 0o600
    with socket.socket(socket.AF_UNIX) as connection, files.socket_address(str(folder / "sock")) as address:
        connection.connect(address)
    listener.close()
    files.bound_socket(str(folder / "sock"), 0o600).close()  # in place of one that was left


# Versions that meet

EARLIER = {
    "exited": ({"reason": "exited", "code": 0, "message": "the command exited with code 0", "started_ms": 1, "ended_ms": 2,
                "usage": {"cpu_s": 0.01, "max_rss_bytes": 3_000_000}, "start": "new", "log_dropped_bytes": 0}, Reason.EXITED),
    "lost": ({"reason": "lost", "code": None, "message": "the process vanished without a record", "started_ms": None}, Reason.LOST),
    "before warm interpreters": ({"reason": "signal", "code": None, "message": "the command was ended by signal SIGSEGV", "started_ms": 1,
                                  "ended_ms": 2, "usage": {}}, Reason.SIGNAL),
}  # fmt: skip


@pytest.mark.parametrize("name", EARLIER)
def test_the_exit_record_of_an_earlier_version_is_read(name: str) -> None:
    document, reason = EARLIER[name]
    found = exit_record(document)
    assert found is not None and found.reason is reason and found.message == document["message"]


def test_programs_that_were_single_files_are_started_from_their_rooms() -> None:
    assert supervisor.present_argv(["python", "-I", "/x/modelyard_runtime/model_server.py", "/c.json"]) == [
        "python", "-I", "/x/modelyard_runtime", "model_server", "/c.json",
    ]  # fmt: skip
    for argv in (["python", "-I", str(RUNTIME), "router", "/c"], ["sh", "-c", "exec sleep 1"], ["python", "/mine/router.py"]):
        assert supervisor.present_argv(argv) == argv


def test_a_server_that_an_earlier_version_wanted_is_started_by_the_next_supervisor(tmp_path: Path) -> None:
    entries, folder = tmp_path / "supervisor/entries", tmp_path / "router"
    entries.mkdir(parents=True)
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = {
        "host": "127.0.0.1",
        "port": port,
        "routes": str(folder / "routes"),
        "control": str(folder / "sock"),
        "log": str(folder / "requests"),
    }
    (folder / "config.json").write_text(json.dumps(config))
    wanted = {
        "id": "router", "argv": [sys.executable, "-I", str(RUNTIME / "router.py"), str(folder / "config.json")], "cwd": str(folder),
        "environment": {"PATH": os.environ["PATH"]}, "log": str(folder / "log"), "log_limit": 1 << 20, "keep_log": True, "folder": str(folder),
        "sandbox": None, "own": [], "timeout_s": None, "memory_bytes": None,
    }  # fmt: skip
    kept = {"id": "router", "kind": "server", "request": wanted, "process": {"pid": 1, "start": 0, "boot": "another"}, "restarts": 0}
    (entries / ("0" * 32 + ".json")).write_text(json.dumps(kept))
    client = SupervisorClient(tmp_path / "supervisor")

    def answers() -> bool:
        try:
            return asyncio.run(request(folder / "sock", "GET", "/", 2))[0] == 200
        except OSError:
            return False

    try:
        asyncio.run(client.ensure())
        wait_for(answers, 20, "the router")
    finally:
        asyncio.run(client.call("shutdown", all=True))


def test_a_supervisor_of_other_code_makes_way_and_what_it_kept_goes_on(ground: Ground, tmp_path: Path) -> None:
    other = tmp_path / "other" / "modelyard_runtime"
    shutil.copytree(RUNTIME, other, ignore=shutil.ignore_patterns("__pycache__"))
    with (other / "supervision/meter.py").open("a") as file:
        file.write("# another version\n")
    old = subprocess.Popen([sys.executable, "-I", other, "supervisor", ground.root / "supervisor"], stdin=subprocess.DEVNULL)

    async def start() -> JobRequest:
        ground.client._met = True  # as the server of that version had it
        job = ground.job("j", "while [ ! -f go ]; do sleep 0.02; done; exit 7")
        await ground.start(job)
        await ground.replicas.ensure(server(ground, "s", "echo $$ >> pids; exec sleep 300"))
        return job  # type: ignore[return-value]

    async def whole(job: Any) -> ExitRecord:
        await SupervisorClient(ground.root / "supervisor").call("list")
        (ground.work("j") / "go").touch()
        return await ground.executor.wait(job.id)

    wait_for(lambda: (ground.root / "supervisor/running.json").exists(), 10, "the old supervisor")
    job = asyncio.run(start())
    wait_for(lambda: (ground.root / "s/pids").exists(), 10, "the server")
    ended = asyncio.run(whole(job))
    assert (ended.reason, ended.code) == (Reason.EXITED, 7)
    assert old.wait(10) == 0 and ground.pid != old.pid
    (pid,) = (ground.root / "s/pids").read_text().split()
    assert alive(int(pid)), "it was adopted, not started twice"


def test_a_server_older_than_the_code_on_disk_takes_the_supervisor_that_it_starts(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after an upgrade in place, before the server is started again."""
    monkeypatch.setattr("modelyard.drivers.supervisor_client.CODE", "earlier")
    for _ in range(2):
        assert asyncio.run(ground.client.call("list"))["ids"] == []
        os.kill(ground.pid, signal.SIGKILL)

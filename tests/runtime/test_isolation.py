"""Hostile jobs and models: what they must not reach."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from checked_yard import YardUnderTest
from modelyard.testing.waiting import alive, wait_for
from modelyard_runtime import files, protocol

FILES = "/api/v1/workspaces/default/datastores"
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
    made = YardUnderTest(tmp_path / "home", settings=f'isolation = "{request.param}"\n', environments=tmp_path / "home/envs")
    made.up()
    yield made
    made.down()


def test_a_hostile_job_reaches_nothing_of_the_yard_or_of_others(isolated_yard: YardUnderTest) -> None:
    own_yard = isolated_yard
    if own_yard.record["isolation"] == "none":
        pytest.skip("this machine offers neither separate users nor Landlock; the yard says so")
    victim = own_yard.submit("echo private > secret.txt; echo up; sleep 100")
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


SHARED = r"""
import glob, json, os, socket, sys
found = {}
for path in ("/tmp/left", "/dev/shm/left"):
    found[path] = os.path.exists(path)
    open(path, "w").write("secret")
found["tmp is TMPDIR"] = os.path.exists(os.environ["TMPDIR"] + "/left")
found["processes of others"] = [pid for pid in os.listdir("/proc") if pid.isdigit() and os.stat("/proc/" + pid).st_uid != os.getuid()]
for name in ("endpoints", "interpreters"):
    found[name] = os.path.exists(os.environ["TARGET_HOME"] + "/" + name + "/there")
namespace = os.path.exists("/proc/sys/user/max_user_namespaces") and open("/proc/sys/user/max_user_namespaces").read().strip()
found["namespaces"] = namespace != "0"
print(json.dumps(found))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="a folder outside /tmp")
@pytest.mark.parametrize("user", ["root", "ordinary"])
def test_jobs_share_neither_tmp_nor_memory_nor_sight_of_each_other(user: str) -> None:
    """By the sandbox itself, twice, in a folder outside /tmp: as the yard of root and as that of an ordinary user do it."""
    probe = json.loads(subprocess.run(as_user(user, "--probe"), capture_output=True, check=True, text=True).stdout)
    if not probe["private"]:
        pytest.skip("this machine gives ordinary users no namespaces")
    base = Path(tempfile.mkdtemp(dir="/var/tmp"))
    try:
        said = []
        for number in range(2):
            work, tmp = base / f"work{number}", base / f"tmp{number}"
            for folder in (work, tmp, base / "home/endpoints/there", base / "home/interpreters/there"):
                folder.mkdir(parents=True, exist_ok=True)
            subprocess.run(["chown", "-R", "52997" if user == "root" else "65534", base], check=True)
            base.chmod(0o755)
            terms = protocol.Confinement(
                [str(work), str(tmp)], [sys.base_prefix, files.RUNTIME], uid=52997 if user == "root" else None, namespace=user == "root",
                landlock=probe["landlock"] > 0, private=True, tmp=str(tmp),
                hidden=[str(base / "home" / name) for name in ("endpoints", "interpreters")],
            )  # fmt: skip
            (base / "terms.json").write_text(json.dumps(protocol.document(terms)))
            environment = {"TMPDIR": str(tmp), "TARGET_HOME": str(base / "home"), "PATH": os.environ["PATH"]}
            command = as_user(user, str(base / "terms.json"), "--", "/usr/bin/python3", "-c", SHARED)
            done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            said.append(json.loads(done.stdout))
        for found in said:
            assert not found["/tmp/left"] and not found["/dev/shm/left"] and found["tmp is TMPDIR"]
            assert not found["endpoints"] and not found["interpreters"]
            assert user == "ordinary" or not found["processes of others"] or not probe["processes"]
            assert user == "root" or not found["namespaces"]
        assert not Path("/tmp/left").exists() and not Path("/dev/shm/left").exists()
    finally:
        shutil.rmtree(base)


def as_user(user: str, *arguments: str) -> list[str]:
    """The program `sandbox`, on a Python that every user can start, from a copy of the runtime that every user can read."""
    words = ["/usr/bin/python3", "-I", files.RUNTIME, "sandbox", *arguments]
    return words if user == "root" else ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", *words]


CONTROL = "$TARGET_HOME/control"
ESCAPES = {
    "./outputs is a link": f"rmdir outputs && ln -s {CONTROL} outputs",
    "./logs is a link": f"rmdir logs && ln -s {CONTROL} logs",
    "a link in ./outputs": f"ln -s {CONTROL}/master.key outputs/key",
    "an output is a link": f"rmdir ${{{{outputs.o}}}} && ln -s {CONTROL} ${{{{outputs.o}}}}",
    "a relative link to a folder": "ln -s ../../../../control ${{outputs.o}}/sub",
    "a link to a file": f"ln -s {CONTROL}/master.key ${{{{outputs.o}}}}/model.pkl",
    "a link through a link": "cd ${{outputs.o}} && mkdir a && ln -s ../.. a/up && ln -s a/up/../../../control/admin.token key",
    "the folder of a file is a link": f"d=$(dirname ${{{{outputs.f}}}}) && rmdir $d && ln -s {CONTROL} $d",
    "a file is a link": f"ln -s {CONTROL}/master.key ${{{{outputs.f}}}}",
    "a pipe": "mkfifo ${{outputs.o}}/model.pkl",
    "a pipe as a file": "mkfifo ${{outputs.f}}",
    "a link to a pipe": "mkfifo pipe && ln -s $PWD/pipe ${{outputs.o}}/model.pkl",
}
"""What is wrong → a command that ends well; `f` is a file named `master.key`."""


def test_what_a_job_leaves_never_leads_the_server_out_of_its_folder(isolated_yard: YardUnderTest) -> None:
    yard = isolated_yard
    path = "azureml://datastores/workspaceblobstore/paths/${{name}}/master.key"
    outputs = {"o": {}, "f": {"type": "uri_file", "path": path}}
    with_file = "echo x > ${{outputs.f}} && "
    jobs = {
        what: yard.submit(
            (with_file if "outputs.f" not in command else "") + command,
            outputs=outputs,
            environment_variables={"TARGET_HOME": str(yard.home)},
        )
        for what, command in ESCAPES.items()
    }
    for what, name in jobs.items():
        job = yard.wait_job(name)
        assert job["status"] == "Failed", (what, yard.job_log(name))
        assert job["error"]["code"] == "output_not_kept", (what, job["error"], yard.job_log(name))
        assert any(f"{it}" in job["error"]["message"] for it in ("./outputs", "./logs", "output o", "output f")), what
        code = yard.home / "jobs" / name / "code"
        wait_for(lambda code=code: not code.exists(), 30, f"the end of {code}")
    kept = {path.parent.name + path.name for path in (yard.home / "blobs").glob("??/*")}
    for secret in (yard.home / "control").rglob("*"):
        if secret.is_file() and secret.stat().st_size:
            assert hashlib.sha256(secret.read_bytes()).hexdigest() not in kept, secret
    assert (yard.home / "control" / "master.key").exists(), "cleaning up follows no link either"


def test_files_linked_within_a_jobs_folder_are_kept_and_what_tools_leave_is_named(isolated_yard: YardUnderTest) -> None:
    yard = isolated_yard
    name = yard.submit(
        "echo weights > ${{outputs.o}}/epoch=3.ckpt && ln -s epoch=3.ckpt ${{outputs.o}}/last.ckpt"
        " && ln -s ${{outputs.o}}/epoch=3.ckpt ${{outputs.o}}/best.ckpt"
        " && echo model > model.pkl && { ln model.pkl ${{outputs.o}}/model.pkl || cp model.pkl ${{outputs.o}}; } && ln ${{outputs.o}}/model.pkl ${{outputs.o}}/again.pkl"
        " && mkfifo outputs/tool.pipe && ln -s gone outputs/broken && mkdir outputs/run-1 && echo a > outputs/run-1/a && ln -s run-1 outputs/latest && mkdir ${{outputs.o}}/none",
        outputs={"o": {}},
    )
    assert yard.wait_job(name)["status"] == "Completed", yard.job_log(name)
    listed = yard.call("GET", f"{FILES}/workspaceblobstore/files", params={"prefix": f"azureml/{name}/"}).json()["value"]
    digests = {file["path"].rpartition("/")[2]: file["digest"] for file in listed}
    assert sorted(digests) == ["again.pkl", "best.ckpt", "epoch=3.ckpt", "last.ckpt", "model.pkl"]
    assert digests["best.ckpt"] == digests["last.ckpt"] == digests["epoch=3.ckpt"]
    said = (yard.home / "jobs" / name / "logs/system_logs/yard.log").read_text()
    line = next(line for line in said.splitlines() if "not kept:" in line)
    assert all(part in line for part in ("broken is a link to nothing", "tool.pipe is a pipe", "none is an empty folder"))
    artifacts = yard.call("GET", f"{FILES}/workspaceartifactstore/files", params={"prefix": f"ExperimentRun/dcid.{name}/outputs/"}).json()[
        "value"
    ]
    assert {"run-1/a", "latest/a"} <= {file["path"].partition("/outputs/")[2] for file in artifacts}, (
        "a folder is kept where a link leads to it"
    )


def test_a_failed_command_keeps_its_own_error_when_its_outputs_cannot_be_kept(own_yard: YardUnderTest) -> None:
    name = own_yard.submit("ln -s /etc/passwd ${{outputs.o}}/x; exit 7", outputs={"o": {}})
    error = own_yard.wait_job(name)["error"]
    assert error["exit_code"] == 7 and "output o: x is a link that leads out" in error["not_kept"]


def test_an_exchanged_log_folder_is_neither_read_nor_written(own_yard: YardUnderTest) -> None:
    name = own_yard.submit("echo up")
    own_yard.wait_job(name)
    logs = own_yard.home / "jobs" / name / "logs"
    logs.rename(logs.with_name("old"))
    (own_yard.home / "control" / "user_logs").mkdir()
    (own_yard.home / "control" / "user_logs" / "std_log.txt").write_text("secret")
    logs.symlink_to(own_yard.home / "control")
    answer = own_yard.call("GET", f"/api/v1/workspaces/default/jobs/{name}/logs", expect=503)
    assert answer.json()["error"]["code"] == "log_not_read"
    own_yard.call("DELETE", f"/api/v1/workspaces/default/jobs/{name}", expect=204)
    assert (own_yard.home / "control" / "user_logs" / "std_log.txt").exists() and not (own_yard.home / "jobs" / name).exists()


HOSTILE_MODEL = """
import os
def init():
    run = os.path.dirname(os.environ["HOME"]) + "/run"
    for name in ("twin.onnx", "startup.json", "together", "collected"):
        if os.path.lexists(run + "/" + name):
            os.remove(run + "/" + name)
        os.symlink(os.environ["TARGET"], run + "/" + name)
def run(data):
    import json
    home = os.path.dirname(os.environ["HOME"])
    if json.loads(data).get("socket"):
        os.rename(home + "/run/sock", home + "/run/own")
        os.symlink(json.loads(data)["socket"], home + "/run/sock")
    return "answered"
"""


def test_a_model_server_that_exchanges_its_files_for_links_gets_nothing_by_them(own_yard: YardUnderTest, tmp_path: Path) -> None:
    from endpoints import ENDPOINT, call_endpoint, deploy_script, post

    key = own_yard.home / "control/master.key"
    before = key.read_bytes()
    deploy_script(own_yard, tmp_path, HOSTILE_MODEL, environment_variables={"TARGET": str(key)})
    url, token = call_endpoint(own_yard)
    assert post(url, token).json() == "answered"
    assert post(url, token, json.dumps({"socket": str(own_yard.home / "control/router/sock")}).encode()).status_code == 200
    shown = f"{ENDPOINT}/scored/deployments/blue"
    state = lambda: own_yard.call("GET", shown).json()["instances"][0]["state"]  # noqa: E731
    assert state() == "Starting", "a link to another's socket is no socket of its own"
    assert before not in own_yard.call("GET", f"{shown}/logs").content
    own_yard.run("online-endpoint", "delete", "-n", "scored", "--yes")
    assert key.read_bytes() == before

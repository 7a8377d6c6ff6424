"""One scikit-learn model behind a yard's endpoint and behind peers, in one run: requests a second, latency, server CPU, memory, cold start.

    python bench/serving.py [--seconds 3] [--without-peers]

Needs `wrk`, and `nginx` for its rows. Everything is on loopback with one worker; the yard answers through its router, with key, split and log.
With nginx the same worker is asked through it instead, without key, split and log; alone, it listens itself. CPU is that of the server's process tree, for the yard of
router (or nginx) and model server together. `hello` is the HTTP server of the router and the model server with nothing behind it: what
there is to be had. Peers are installed into virtual environments
of their own under --work; one that does not install or start is named and left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from tracking import cpu_seconds, resident_mb, tree

RUNTIME = Path(importlib.util.find_spec("modelyard_runtime").origin).parent  # type: ignore[union-attr, arg-type]
PACKAGES = ["mlflow-skinny>=3,<4", "scikit-learn>=1.5,<1.8", "pandas>=2,<3"]
COLUMNS = [f"x{number}" for number in range(10)]
TRAIN = f"""
import numpy, pandas, mlflow.sklearn
from mlflow.models import infer_signature
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
frame = pandas.DataFrame(numpy.random.default_rng(0).normal(size=(500, 10)), columns={COLUMNS!r})
for name, model in (("linear", LogisticRegression()), ("forest", RandomForestClassifier(100, random_state=0))):
    model.fit(frame, (frame.x0 + frame.x1 > 0).astype(int))
    mlflow.sklearn.save_model(model, name, signature=infer_signature(frame, model.predict(frame)), pip_requirements=[], serialization_format="cloudpickle")
"""
SCRIPT = """
import json, os, pandas, mlflow.sklearn
def init():
    global model
    model = mlflow.sklearn.load_model(os.environ.get("MODEL") or os.environ["AZUREML_MODEL_DIR"] + "/" + os.environ["NAME"])
def run(raw):
    sent = json.loads(raw)["dataframe_split"]
    return model.predict(pandas.DataFrame(sent["data"], columns=sent["columns"])).tolist()
"""
FASTAPI = """
import os, pandas, mlflow.sklearn
from fastapi import FastAPI, Request
app, model = FastAPI(), mlflow.sklearn.load_model(os.environ["MODEL"])
@app.post("/invocations")
async def invocations(request: Request):
    sent = (await request.json())["dataframe_split"]
    return {"predictions": model.predict(pandas.DataFrame(sent["data"], columns=sent["columns"])).tolist()}
"""
LITSERVE = """
import os, litserve, mlflow.sklearn, pandas
class Api(litserve.LitAPI):
    def setup(self, device): self.model = mlflow.sklearn.load_model(os.environ["MODEL"])
    def decode_request(self, request): return request["dataframe_split"]
    def predict(self, sent): return self.model.predict(pandas.DataFrame(sent["data"], columns=sent["columns"])).tolist()
    def encode_response(self, found): return {"predictions": found}
if __name__ == "__main__":
    litserve.LitServer(Api(), accelerator="cpu").run(host="127.0.0.1", port=5804, num_api_servers=1, generate_client_file=False, log_level="error")
"""
BENTOML = """
import os, bentoml, mlflow.sklearn, pandas
@bentoml.service(workers=1)
class Served:
    def __init__(self): self.model = mlflow.sklearn.load_model(os.environ["MODEL"])
    @bentoml.api(route="/invocations")
    def invocations(self, dataframe_split: dict) -> dict:
        frame = pandas.DataFrame(dataframe_split["data"], columns=dataframe_split["columns"])
        return {"predictions": self.model.predict(frame).tolist()}
"""
HELLO = """
import asyncio, glob, os, sys
sys.path += [os.path.dirname(sys.argv[1]), *glob.glob(os.environ["YARD_HOME"] + "/envs/serving-*/")]
from modelyard_runtime.serving import http1
async def handle(request): return http1.Response(200, b"[0]")
async def run():
    await http1.serve(handle, 1 << 20, host="127.0.0.1", port=5806)
    await asyncio.Event().wait()
http1.start(run())
"""
ALONE = """
import json, os, sys
with open(sys.argv[2]) as file:
    kit = json.load(file)["kit"]
sys.path += [os.path.dirname(sys.argv[1]), kit]
from modelyard_runtime.serving import http1, startup
serve = http1.serve
async def twice(handle, max_body, *where, **more):
    await serve(handle, max_body, host="127.0.0.1", port=5807)
    return await serve(handle, max_body, *where, **more)
http1.serve = twice
startup.main(sys.argv[2:])
"""
NGINX = """
%(user)s worker_processes 1; daemon off; pid %(work)s/nginx.pid; error_log %(work)s/nginx.log;
events { worker_connections 1024; }
http {
  access_log off; client_body_temp_path %(work)s/nginx; proxy_temp_path %(work)s/nginx; fastcgi_temp_path %(work)s/nginx;
  uwsgi_temp_path %(work)s/nginx; scgi_temp_path %(work)s/nginx;
  upstream worker { server unix:%(socket)s; keepalive 128; }
  server { listen 127.0.0.1:5807; keepalive_requests 100000000;
    location / { proxy_pass http://worker; proxy_http_version 1.1; proxy_set_header Connection ""; } }
}
"""
LUA = """
wrk.method = "POST"
local file = io.open(os.getenv("PAYLOAD"), "rb"); wrk.body = file:read("*a"); file:close()
wrk.headers["Content-Type"] = "application/json"
if os.getenv("KEY") ~= "" then wrk.headers["Authorization"] = "Bearer " .. os.getenv("KEY") end
done = function(summary, latency, requests)
  io.write(string.format("R%d %d %d %d %d\\n", summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout))
end
"""


def load(work: Path, url: str, key: str, payload: Path, connections: int, seconds: int, pids: list[int]) -> str:
    (work / "load.lua").write_text(LUA)
    before = cpu_seconds(pids)
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s", "-s", str(work / "load.lua"), url]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PAYLOAD": str(payload), "KEY": key})
    found = re.search(r"R(\d+) (\d+) (\d+) (\d+) (\d+)", done.stdout)
    if found is None:
        return "no answer | | |"
    count, duration, middle, worst, failed = (int(text) for text in found.groups())
    cpu = (cpu_seconds(pids) - before) / max(1, count) * 1e6
    return f"{count / duration * 1e6:.0f} | {middle / 1000:.2f} | {worst / 1000:.1f} | {cpu:.0f}" + (
        f" ({failed} failed)" if failed else ""
    )


class Peer:
    def __init__(self, work: Path, name: str, packages: list[str], command: list[str], path: str, port: int) -> None:
        self.work, self.name, self.packages, self.command, self.port = work, name, packages, command, port
        self.url = f"http://127.0.0.1:{port}/{path}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, model: Path) -> float:
        """Seconds until it answers."""
        venv = self.work / self.name.split()[0]
        if not (venv / "installed").exists():
            subprocess.run([sys.executable, "-m", "venv", venv], check=True)
            subprocess.run(
                [venv / "bin/python", "-m", "pip", "install", "--quiet", *PACKAGES, *self.packages], check=True, stderr=subprocess.DEVNULL
            )
            (venv / "installed").touch()
        command = [str(venv / "bin" / self.command[0]), *self.command[1:]]
        environment = {**os.environ, "MODEL": str(model), "PATH": f"{venv}/bin:{os.environ['PATH']}"}
        began = time.perf_counter()
        with (self.work / f"{venv.name}.log").open("wb") as log:
            self.process = subprocess.Popen(
                [part.replace("MODEL", str(model)) for part in command],
                cwd=self.work,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        body = (self.work / "one.json").read_bytes()
        while time.perf_counter() - began < 60 and self.process.poll() is None:
            if answers(self.url, "", body):
                return time.perf_counter() - began
            time.sleep(0.05)
        self.stop()
        raise RuntimeError(f"{self.name} does not answer; see {log.name}")

    def pids(self) -> list[int]:
        assert self.process is not None
        return tree(self.process.pid)

    def stop(self) -> None:
        if self.process is not None:
            for pid in reversed(self.pids()):
                try:
                    os.kill(pid, 9)
                except OSError:
                    pass
            self.process.wait()


def answers(url: str, key: str, body: bytes) -> bool:
    import urllib.request

    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


class Yard:
    """A yard that serves; what it serves is a `Served`."""

    def __init__(self, work: Path) -> None:
        self.home = work / "yard"
        shutil.rmtree(self.home, ignore_errors=True)
        os.environ["YARD_HOME"] = str(self.home)
        self.program = str(Path(sys.executable).parent / "yard")
        self.work = work
        self.run("up", "--port", "0", "--router-port", "0")
        (work / "environment.yml").write_text(json.dumps({"name": "bench", "version": "1", "pip": PACKAGES}))
        self.run("environment", "create", "-f", str(work / "environment.yml"))
        key = json.loads(self.run("environment", "build", "-n", "bench", "-o", "json"))["key"]
        self.python = self.home / "envs" / key / "bin/python"

    def run(self, *arguments: str) -> str:
        done = subprocess.run([self.program, *arguments], check=True, capture_output=True, text=True)
        return done.stdout

    def down(self) -> None:
        self.run("down", "--all")


class Served:
    """One deployment of the yard, asked `through the router`, `behind nginx`, or `alone`: a second process of its model server that listens itself."""

    def __init__(self, yard: Yard, twin: bool, way: str, script: bool = False) -> None:
        self.yard, self.twin, self.way, self.work, self.script = yard, twin, way, yard.work, script
        self.name = f"{'yard,' if way == 'through the router' else 'worker'} {way}" + (
            ", ONNX twin" if twin else ", script" if script else ""
        )
        self.other: subprocess.Popen[bytes] | None = None

    def start(self, model: Path) -> float:
        deployment = {
            "name": "blue", "endpoint_name": model.name, "model": {"path": str(model), "type": "mlflow_model"}, "environment": "azureml:bench:1",
            "properties": {"optimize": "onnx"} if self.twin else {},
        }  # fmt: skip
        if self.script:
            (self.work / "code").mkdir(exist_ok=True)
            shutil.copy(self.work / "score.py", self.work / "code")
            deployment |= {
                "code_configuration": {"code": "code", "scoring_script": "score.py"},
                "environment_variables": {"NAME": model.name},
            }
        (self.work / "deployment.yml").write_text(json.dumps(deployment))
        run = self.yard.run
        run("online-endpoint", "create", "-n", model.name)
        if self.twin:  # its environment is built by then
            run("online-deployment", "create", "-f", str(self.work / "deployment.yml"))
            run("online-deployment", "delete", "-n", "blue", "-e", model.name, "--yes")
        began = time.perf_counter()
        shown = json.loads(run("online-deployment", "create", "-f", str(self.work / "deployment.yml"), "--all-traffic", "-o", "json"))
        took = time.perf_counter() - began
        if self.twin:
            print(f"<!-- {model.name}: the twin is {shown['properties']['optimized']} -->", flush=True)
        self.url = json.loads(run("online-endpoint", "show", "-n", model.name, "-o", "json"))["scoring_uri"]
        if not self.script:
            self.url = self.url.removesuffix("/score") + "/invocations"
        self.key = json.loads(run("online-endpoint", "get-credentials", "-n", model.name, "-o", "json"))["primaryKey"]
        self.model = model.name
        if self.way != "through the router":
            self.other = self.behind_nginx() if self.way == "behind nginx" else self.alone()
            self.url, self.key = "http://127.0.0.1:5807/invocations", ""
            while not answers(self.url, "", (self.work / "one.json").read_bytes()):
                if time.perf_counter() - began > 60:
                    self.stop()
                    raise RuntimeError(f"the worker {self.way} does not answer")
                time.sleep(0.05)
        return took

    def behind_nginx(self) -> subprocess.Popen[bytes]:
        folder = self.yard.home / "endpoints/default" / self.model / "blue"
        (self.work / "nginx").mkdir(exist_ok=True)
        socket = next(path for path in folder.glob("*/run/sock"))
        text = NGINX % {"work": self.work, "socket": socket, "user": "user root;" if os.getuid() == 0 else ""}
        (self.work / "nginx.conf").write_text(text)
        return subprocess.Popen(["nginx", "-c", str(self.work / "nginx.conf")], stderr=subprocess.DEVNULL)

    def alone(self) -> subprocess.Popen[bytes]:
        pid = self.yard_pids()[0]
        program, *_, config = Path(f"/proc/{pid}/cmdline").read_bytes().decode().rstrip("\0").split("\0")
        described = {**json.loads(Path(config).read_text()), "socket": str(self.work / "alone.sock")}
        (self.work / "alone.json").write_text(json.dumps(described))
        environment = dict(item.split("=", 1) for item in Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0") if "=" in item)
        command = [program, "-c", ALONE, str(RUNTIME), str(self.work / "alone.json")]
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)

    def yard_pids(self) -> list[int]:
        """Of the model server, and of the router where it is in the way."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                command = path.read_bytes().decode().split("\0")
            except OSError:
                continue
            config = command[-2] if len(command) > 2 else ""
            router = "router" in command and self.way == "through the router"
            if config.startswith(str(self.yard.home)) and (router or "model_server" in command and f"/{self.model}/" in config):
                found.append(int(path.parent.name))
        return found

    def pids(self) -> list[int]:
        other = tree(self.other.pid) if self.other is not None else []
        return other if self.way == "alone" else other + self.yard_pids()

    def stop(self) -> None:
        if self.other is not None:
            self.other.terminate()
            self.other.wait()
            self.other = None
        self.yard.run("online-endpoint", "delete", "-n", self.model, "--yes")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--work", default="/tmp/modelyard-bench-serving")
    parser.add_argument("--without-peers", action="store_true")
    parser.add_argument("--models", nargs="+", default=["linear", "forest"])
    parser.add_argument("--server", default="", help="only servers whose name holds this")
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("this benchmark drives `wrk`, which is not installed")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # as on everybody's machine: of the peers, pip has compiled all
    work = Path(arguments.work)
    work.mkdir(exist_ok=True)
    row = [number / 10 for number in range(10)]
    for name, count in (("one", 1), ("hundred", 100)):
        (work / f"{name}.json").write_text(json.dumps({"dataframe_split": {"columns": COLUMNS, "data": [row] * count}}))
    (work / "score.py").write_text(SCRIPT)
    (work / "served.py").write_text(FASTAPI)
    (work / "lit.py").write_text(LITSERVE)
    (work / "bento.py").write_text(BENTOML)
    (work / "hello.py").write_text(HELLO)
    (work / "v2").mkdir(exist_ok=True)
    yard = Yard(work)
    ways = ("through the router", *(("behind nginx",) if shutil.which("nginx") else ()), "alone")
    fronts = [Served(yard, twin, way) for twin in (False, True) for way in ways] + [Served(yard, False, ways[0], script=True)]
    hello = Peer(work, "hello", [], ["python", "hello.py", str(RUNTIME)], "invocations", 5806)
    peers: list[Any] = []
    if not arguments.without_peers:
        peers = [
            Peer(work, "azureml-inference-server-http", ["azureml-inference-server-http"], ["azmlinfsrv", "--entry_script", "score.py", "--port", "5801"], "score", 5801),
            Peer(work, "mlflow models serve", ["mlflow>=3,<4"], ["mlflow", "models", "serve", "-m", "MODEL", "--env-manager", "local", "-p", "5802", "-w", "1"], "invocations", 5802),
            Peer(work, "FastAPI", ["fastapi", "uvicorn", "httptools", "uvloop"], ["uvicorn", "served:app", "--port", "5803", "--log-level", "error", "--no-access-log"], "invocations", 5803),
            Peer(work, "LitServe", ["litserve"], ["python", "lit.py"], "predict", 5804),
            Peer(work, "BentoML", ["bentoml"], ["bentoml", "serve", "bento:Served", "--host", "127.0.0.1", "--port", "5805", "--working-dir", "."], "invocations", 5805),
            Peer(work, "MLServer", ["mlserver", "mlserver-mlflow"], ["mlserver", "start", "v2"], "invocations", 5808),
        ]  # fmt: skip
    try:
        for model in ("linear", "forest"):
            shutil.rmtree(work / model, ignore_errors=True)
        subprocess.run([yard.python, "-c", TRAIN], cwd=work, check=True, capture_output=True)
        print(
            "| model | server | rows | connections | requests/s | p50 ms | p99 ms | CPU us a request |\n|---|---|---|---|---|---|---|---|"
        )
        extra: list[str] = []
        for model in arguments.models:
            (work / "v2/settings.json").write_text(
                json.dumps({"host": "127.0.0.1", "http_port": 5808, "grpc_port": 5809, "metrics_port": 5810, "parallel_workers": 0})
            )
            described = {"name": "served", "implementation": "mlserver_mlflow.MLflowRuntime", "parameters": {"uri": str(work / model)}}
            (work / "v2/model-settings.json").write_text(json.dumps(described))
            for server in (one for one in (*fronts, hello, *peers) if arguments.server in one.name):
                try:
                    took = server.start(work / model)
                except (RuntimeError, subprocess.CalledProcessError) as error:
                    print(f"| {model} | {server.name} | left out: {str(error)[:80]} | | | | | |", flush=True)
                    continue
                measure(work, server, model, arguments.seconds)
                extra.append(f"| {model} | {server.name} | {took:.1f} | {resident_mb(server.pids()):.0f} |")
                server.stop()
        print("\n| model | server | cold start s | resident MB |\n|---|---|---|---|\n" + "\n".join(extra))
    finally:
        yard.down()


def measure(work: Path, server: Any, model: str, seconds: int) -> None:
    for payload in ("one", "hundred"):
        for connections in (1, 8, 64):
            found = load(work, server.url, getattr(server, "key", ""), work / f"{payload}.json", connections, seconds, server.pids())
            print(f"| {model} | {server.name} | {'1' if payload == 'one' else '100'} | {connections} | {found} |", flush=True)


if __name__ == "__main__":
    main()

"""One scikit-learn model behind a yard's endpoint and behind peers, in one run: requests a second, latency, server CPU, memory, cold start.

    python bench/serving_peers.py [--seconds 3] [--rounds 1] [--without-peers]

Needs `wrk`, and `nginx` for its rows. Everything is on loopback with one worker; the yard answers through its router, with key, split and log.
With nginx the same worker is asked through it instead, without key, split and log; alone, it listens itself. CPU is that of the server's
process tree, for the yard of router (or nginx) and model server together. `hello` is the HTTP server of the router and the model server with
nothing behind it: what there is to be had. Peers are installed into virtual environments of their own under --work; one that does not install
or start is named and left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from measure import Table, circumstances, options, process_tree, progress, resident_mb
from peers import NotAvailable, Venv, end, start
from servers import Deployed, Load, Peer, Server, answers, generate_load, require_wrk, words
from yards import Yard

RUNTIME = Path(importlib.util.find_spec("modelyard_runtime").origin).parent  # type: ignore[union-attr, arg-type]
CONNECTIONS = (1, 8, 64)
PAYLOADS = {"one row a request": 1, "100 rows a request": 100}
FRONT_PORT = 5807
"""Where the worker behind nginx, and the worker alone, is asked."""
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
    def encode_response(self, output): return {"predictions": output}
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
Way = Literal["through the router", "behind nginx", "alone"]


class Deployment(Deployed):
    """`behind nginx` asks its worker through nginx; `alone` asks a second process of its model server, which listens itself."""

    def __init__(self, yard: Yard, work: Path, way: Way, *, twin: bool = False, script: bool = False) -> None:
        name = f"{'yard,' if way == 'through the router' else 'worker'} {way}{', ONNX twin' if twin else ', script' if script else ''}"
        fields: dict[str, Any] = {"properties": {"optimize": "onnx"} if twin else {}}
        if script:
            code = work / "code"
            code.mkdir(exist_ok=True)
            shutil.copy(work / "score.py", code)
            fields["code_configuration"] = {"code": "code", "scoring_script": "score.py"}
        super().__init__(yard, work, name, "azureml:bench:1", "score" if script else "invocations", **fields)
        self.way, self.twin, self.script = way, twin, script
        self.front: subprocess.Popen[bytes] | None = None

    def start(self, model: Path) -> float:
        took = super().start(model)
        if self.way != "through the router":
            self.url, self.key = f"http://127.0.0.1:{FRONT_PORT}/invocations", ""
            self.front = self._behind_nginx() if self.way == "behind nginx" else self._alone()
        return took

    def document(self, model: Path) -> dict[str, Any]:
        return super().document(model) | ({"environment_variables": {"NAME": model.name}} if self.script else {})

    def create(self, file: Path) -> None:
        if self.twin:  # its environment is built by then
            self.yard.run("online-deployment", "create", "-f", file)
            self.yard.run("online-deployment", "delete", "-n", "blue", "-e", self.endpoint, "--yes")
        super().create(file)
        if self.twin:
            shown = self.yard.json("online-deployment", "show", "-n", "blue", "-e", self.endpoint)
            progress(f"{self.endpoint}: the twin is {shown['properties']['optimized']}")

    def _behind_nginx(self) -> subprocess.Popen[bytes]:
        folder = self.yard.home / "endpoints/default" / self.endpoint / "blue"
        (self.work / "nginx").mkdir(exist_ok=True)
        socket = next(folder.glob("*/run/sock"))
        text = NGINX % {"work": self.work, "socket": socket, "user": "user root;" if os.getuid() == 0 else ""}
        (self.work / "nginx.conf").write_text(text)
        return self._front(["nginx", "-c", str(self.work / "nginx.conf")], dict(os.environ))

    def _alone(self) -> subprocess.Popen[bytes]:
        pid = self.worker_pids()[0]
        program, *_, config = words(Path(f"/proc/{pid}/cmdline"))
        described = {**json.loads(Path(config).read_text()), "socket": str(self.work / "alone.sock")}
        (self.work / "alone.json").write_text(json.dumps(described))
        environment = dict(word.split("=", 1) for word in words(Path(f"/proc/{pid}/environ")) if "=" in word)
        return self._front([program, "-c", ALONE, str(RUNTIME), str(self.work / "alone.json")], environment)

    def _front(self, command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        body = (self.work / "one.json").read_bytes()
        return start(command, lambda: answers(self, body), self.work / "front.log", environment=environment)

    def pids(self) -> list[int]:
        if self.way == "through the router":
            return super().pids()
        front = process_tree(self.front.pid) if self.front is not None else []
        return front if self.way == "alone" else front + self.worker_pids()

    def stop(self) -> None:
        if self.front is not None:
            end(self.front)
            self.front = None
        super().stop()


def prepare(work: Path) -> None:
    """Payloads, and the programs that peers run."""
    work.mkdir(parents=True, exist_ok=True)
    row = [number / 10 for number in range(10)]
    for name, count in (("one", 1), ("hundred", 100)):
        (work / f"{name}.json").write_text(json.dumps({"dataframe_split": {"columns": COLUMNS, "data": [row] * count}}) + "\n")
    programs = {"score.py": SCRIPT, "served.py": FASTAPI, "lit.py": LITSERVE, "bento.py": BENTOML, "hello.py": HELLO}
    for name, text in programs.items():
        (work / name).write_text(text)
    (work / "v2").mkdir(exist_ok=True)
    ports = {"host": "127.0.0.1", "http_port": 5808, "grpc_port": 5809, "metrics_port": 5810, "parallel_workers": 0}
    (work / "v2/settings.json").write_text(json.dumps(ports))


def train(yard: Yard, work: Path) -> None:
    """Build the environment `bench:1`, and with it the models `linear` and `forest`."""
    (work / "environment.yml").write_text(json.dumps({"name": "bench", "version": "1", "pip": PACKAGES}))
    yard.run("environment", "create", "-f", work / "environment.yml")
    key = yard.json("environment", "build", "-n", "bench")["key"]
    for model in ("linear", "forest"):
        shutil.rmtree(work / model, ignore_errors=True)
    subprocess.run([yard.environments / key / "bin/python", "-c", TRAIN], cwd=work, check=True, capture_output=True)


def servers(yard: Yard, work: Path, with_peers: bool) -> list[Server]:
    ways: list[Way] = ["through the router", *(["behind nginx"] if shutil.which("nginx") else []), "alone"]  # type: ignore[list-item]
    return [
        *(Deployment(yard, work, way, twin=twin) for twin in (False, True) for way in ways),
        Deployment(yard, work, "through the router", script=True),
        peer(work, "hello", [], ["python", "hello.py", str(RUNTIME)], "invocations", 5806),
        *(peers(work) if with_peers else []),
    ]


def peers(work: Path) -> list[Peer]:
    return [
        peer(work, "azureml-inference-server-http", ["azureml-inference-server-http"], ["azmlinfsrv", "--entry_script", "score.py", "--port", "5801"], "score", 5801),
        peer(work, "mlflow models serve", ["mlflow>=3,<4"], ["mlflow", "models", "serve", "-m", "MODEL", "--env-manager", "local", "-p", "5802", "-w", "1"], "invocations", 5802),
        peer(work, "FastAPI", ["fastapi", "uvicorn", "httptools", "uvloop"], ["uvicorn", "served:app", "--port", "5803", "--log-level", "error", "--no-access-log"], "invocations", 5803),
        peer(work, "LitServe", ["litserve"], ["python", "lit.py"], "predict", 5804),
        peer(work, "BentoML", ["bentoml"], ["bentoml", "serve", "bento:Served", "--host", "127.0.0.1", "--port", "5805", "--working-dir", "."], "invocations", 5805),
        peer(work, "MLServer", ["mlserver", "mlserver-mlflow"], ["mlserver", "start", "v2"], "invocations", 5808),
    ]  # fmt: skip


def peer(work: Path, name: str, packages: list[str], command: list[str], path: str, port: int) -> Peer:
    return Peer(work, name, Venv(work / name.split()[0], [*PACKAGES, *packages]), command, path, port, (work / "one.json").read_bytes())


class Measured(NamedTuple):
    cold_start_s: float
    resident_mb: float
    loads: dict[str, list[Load]]
    """Payload → one for each of CONNECTIONS."""


def measure_server(work: Path, server: Server, model: Path, seconds: int, rounds: int) -> Measured:
    """Start, load and stop a server. Raises NotAvailable."""
    try:
        took = server.start(model)
        progress(f"{model.name}, {server.name}: answered after {took:.1f} s")
        loads = {
            payload: [
                Load.median([generate_load(server, file, connections, seconds) for _ in range(rounds)]) for connections in CONNECTIONS
            ]
            for payload, file in zip(PAYLOADS, (work / "one.json", work / "hundred.json"), strict=True)
        }
        return Measured(took, resident_mb(server.pids()), loads)
    except RuntimeError as error:
        raise NotAvailable(str(error)) from error
    finally:
        server.stop()


def tables(model: str, measured: dict[str, Measured]) -> Iterator[str]:
    """One table for each payload; cold start and memory stand in the first."""
    columns = ("server", f"requests/s with {', '.join(map(str, CONNECTIONS[:-1]))} and {CONNECTIONS[-1]} connections", "p50 ms", "p99 ms")
    for payload in PAYLOADS:
        first = payload == next(iter(PAYLOADS))
        table = Table(*columns, "CPU us a request", *(("cold start s", "resident MB") if first else ()))
        for name, of in measured.items():
            loads = of.loads[payload]
            failed = sum(load.failed for load in loads)
            table.add(
                name,
                " / ".join(f"{load.per_s:.0f}" for load in loads) + (f" ({failed:.0f} failed)" if failed else ""),
                " / ".join(f"{load.p50_ms:.2f}" for load in loads),
                " / ".join(f"{load.p99_ms:.1f}" for load in loads),
                " / ".join(f"{load.cpu_us:.0f}" for load in loads),
                *((f"{of.cold_start_s:.1f}", f"{of.resident_mb:.0f}") if first else ()),
            )
        yield f"{model}, {payload}:\n\n{table}"


def parsed() -> argparse.Namespace:
    parser = options(__doc__, rounds=1)
    parser.add_argument("--seconds", type=int, default=3, help="seconds of each load (default 3)")
    parser.add_argument("--without-peers", action="store_true")
    parser.add_argument("--models", nargs="+", choices=["linear", "forest"], default=["linear", "forest"])
    parser.add_argument("--server", default="", help="only servers whose name contains this")
    return parser.parse_args()


def main() -> None:
    arguments = parsed()
    require_wrk()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # as on everybody's machine: of the peers, pip has compiled all
    work = arguments.work / "serving_peers"
    prepare(work)
    parts, notes, versions = list[str](), list[str](), dict[str, str]()
    with Yard(work / "yard") as yard:
        train(yard, work)
        for model in arguments.models:
            described = {"name": "served", "implementation": "mlserver_mlflow.MLflowRuntime", "parameters": {"uri": str(work / model)}}
            (work / "v2/model-settings.json").write_text(json.dumps(described))
            outcome = {}
            for server in servers(yard, work, not arguments.without_peers):
                if arguments.server not in server.name:
                    continue
                try:
                    outcome[server.name] = measure_server(work, server, work / model, arguments.seconds, arguments.rounds)
                except NotAvailable as error:
                    notes.append(f"{model}, {server.name}: left out, {error}")
                else:
                    versions |= versions_of(server)
            parts += tables(model, outcome)
    facts = (f"wrk with one thread for {arguments.seconds} s a load, one worker each", *(f"{name} {of}" for name, of in versions.items()))
    print("\n\n".join((circumstances(*facts), *parts, *notes)))


def versions_of(server: Server) -> dict[str, str]:
    """Of the packages that are a peer."""
    if not isinstance(server, Peer) or server.name == "hello":
        return {}
    packages = [re.split("[<>=]", requirement)[0] for requirement in server.venv.requirements[len(PACKAGES) :]]
    return {package: server.venv.version(package) for package in packages}


if __name__ == "__main__":
    main()

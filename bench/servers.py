"""What answers scoring requests, a yard's endpoint or a peer, and the load that `wrk` puts on it."""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import time
import urllib.request
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Protocol

from measure import cpu_seconds, process_tree
from peers import NotAvailable, Venv, end, last_line, start
from yards import Yard

LUA = """
local requests, threads, turn = {}, {}, 0
throttled = 0
init = function()
  local headers = {["Content-Type"] = "application/json"}
  if os.getenv("KEY") ~= "" then headers["Authorization"] = "Bearer " .. os.getenv("KEY") end
  for body in io.lines(os.getenv("BODIES")) do requests[#requests + 1] = wrk.format("POST", nil, headers, body) end
end
request = function() turn = turn % #requests + 1; return requests[turn] end
setup = function(thread) threads[#threads + 1] = thread end
if os.getenv("COUNT") == "429" then
  response = function(status) if status == 429 then throttled = throttled + 1 end end
end
done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format("R%d %d %d %d %d %d %d\\n", summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout, threads[1]:get("throttled")))
end
"""


@dataclass(frozen=True)
class Load:
    """What `wrk` and the counter of the CPU say of one load."""

    per_s: float
    """Requests answered with 2xx."""
    p50_ms: float
    p99_ms: float
    cpu_us: float
    """Of the server, for each request that it answered, however."""
    refused: float
    """Requests answered with another status."""
    broken: float
    """Errors of connections, and answers that did not come."""
    throttled: float
    """Of the refused ones, those with 429, where they were counted: it takes the load generator time."""
    asked: float

    @property
    def failed(self) -> float:
        return self.refused + self.broken

    @classmethod
    def median(cls, rounds: list[Load]) -> Load:
        return cls(*(statistics.median(values) for values in zip(*map(astuple, rounds), strict=True)))


class Server(Protocol):
    name: str

    @property
    def url(self) -> str: ...
    @property
    def key(self) -> str: ...

    def start(self, model: Path) -> float:
        """Seconds until it answers. Raises NotAvailable, or RuntimeError with what the yard says."""
        ...

    def pids(self) -> list[int]: ...
    def stop(self) -> None: ...


def require_wrk() -> None:
    if shutil.which("wrk") is None:
        raise SystemExit("this benchmark drives `wrk`, which is not installed (Debian: apt-get install wrk)")


def generate_load(server: Server, bodies: Path, connections: int, seconds: int, *, cores: str = "", count_429: bool = False) -> Load:
    """POST the lines of `bodies` in turn; `cores` as taskset takes them, for the load generator. Raises NotAvailable when nothing was answered."""
    script = bodies.with_name("load.lua")
    script.write_text(LUA)
    pids = server.pids()
    pinned = ["taskset", "-c", cores] if cores else []
    command = [*pinned, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s", "-s", str(script), server.url]
    variables = {"BODIES": str(bodies), "KEY": server.key, "COUNT": "429" if count_429 else ""}
    before = cpu_seconds(pids)
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **variables})
    cpu = cpu_seconds(pids) - before
    report = re.search(r"R(\d+) (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)", done.stdout)
    if report is None:
        raise NotAvailable(f"no answer with {connections} connections: {last_line(done.stderr)}")
    count, duration_us, p50_us, p99_us, refused, broken, throttled = (int(text) for text in report.groups())
    good = (count - refused) / duration_us * 1e6
    return Load(good, p50_us / 1000, p99_us / 1000, cpu / max(1, count) * 1e6, refused, broken, throttled, count + broken)


def ask(server: Server, body: bytes) -> Any:
    """The answer's JSON. Raises OSError when it is no 200."""
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {server.key}"} if server.key else {})}
    with urllib.request.urlopen(urllib.request.Request(server.url, body, headers), timeout=60) as response:
        return json.load(response)


def answers(server: Server, body: bytes) -> bool:
    try:
        ask(server, body)
        return True
    except OSError:
        return False


class Peer:
    key = ""

    def __init__(self, work: Path, name: str, venv: Venv, command: list[str], path: str, port: int, ready: bytes, **variables: str) -> None:
        """`command` runs in `work`, its words MODEL replaced by the model's folder; it is ready when it answers the body `ready`."""
        self.work, self.name, self.venv, self.command, self.ready = work, name, venv, command, ready
        self.variables = variables
        self.url = f"http://127.0.0.1:{port}/{path}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, model: Path) -> float:
        self.venv.install()
        program, *arguments = (word.replace("MODEL", str(model)) for word in self.command)
        began = time.perf_counter()
        self.process = start(
            [self.venv.program(program), *arguments], lambda: answers(self, self.ready), self.work / f"{self.venv.folder.name}.log",
            cwd=self.work, environment=self.venv.environment(MODEL=str(model), YARD_HOME=str(self.work / "yard"), **self.variables),
        )  # fmt: skip
        return time.perf_counter() - began

    def pids(self) -> list[int]:
        assert self.process is not None
        return process_tree(self.process.pid)

    def stop(self) -> None:
        if self.process is not None:
            end(self.process)
            self.process = None


class Deployed:
    """A model behind an endpoint of the yard, which bears its name, asked at `path` through the router with a key."""

    def __init__(self, yard: Yard, work: Path, name: str, environment: str, path: str = "score", **fields: Any) -> None:
        """`fields` of the deployment's file."""
        self.yard, self.work, self.name, self.environment, self.path, self.fields = yard, work, name, environment, path, fields
        self.url = self.key = self.endpoint = ""

    def start(self, model: Path) -> float:
        self.endpoint = model.name
        self.yard.run("online-endpoint", "create", "-n", self.endpoint)
        file = self.work / "deployment.yml"
        file.write_text(json.dumps(self.document(model)))
        began = time.perf_counter()
        self.create(file)
        took = time.perf_counter() - began
        uri = str(self.yard.json("online-endpoint", "show", "-n", self.endpoint)["scoring_uri"])
        self.url = f"{uri.removesuffix('/score')}/{self.path}"
        self.key = str(self.yard.json("online-endpoint", "get-credentials", "-n", self.endpoint)["primaryKey"])
        return took

    def document(self, model: Path) -> dict[str, Any]:
        return {
            "name": "blue", "endpoint_name": self.endpoint, "model": {"path": str(model), "type": "mlflow_model"},
            "environment": self.environment, **self.fields,
        }  # fmt: skip

    def create(self, file: Path) -> None:
        self.yard.run("online-deployment", "create", "-f", file, "--all-traffic")

    def pids(self) -> list[int]:
        return self.router_pids() + self.worker_pids()

    def router_pids(self) -> list[int]:
        return [pid for pid, command in self._processes() if "router" in command]

    def worker_pids(self) -> list[int]:
        return [pid for pid, command in self._processes() if "model_server" in command and f"/{self.endpoint}/" in command[-1]]

    def _processes(self) -> list[tuple[int, list[str]]]:
        """The yard's, that run with a configuration in its home: (pid, command line)."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                command = words(path)
            except OSError:
                continue
            if command[-1].startswith(f"{self.yard.home}/"):
                found.append((int(path.parent.name), command))
        return found

    def stop(self) -> None:
        self.yard.run("online-endpoint", "delete", "-n", self.endpoint, "--yes", check=False)


def words(path: Path) -> list[str]:
    """The words of a command line, or the entries of an environment, in /proc."""
    return path.read_bytes().decode(errors="replace").rstrip("\0").split("\0")

"""Server CPU per request of a yard and of `mlflow server`, side by side in one run, on SQLite, at 16 clients.

    python bench/tracking.py [--requests 400] [--clients 16]

Both servers are started here on loopback; `mlflow` is installed into a virtual environment of its own under --work. The same client code
(standard library, kept connections) drives both. CPU is user + system time of the server's whole process tree.
"""

import argparse
import http.client
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                parent = int(Path(f"/proc/{name}/stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(name))
    found, waiting = [pid], [pid]
    while waiting:
        more = children.get(waiting.pop(), [])
        found += more
        waiting += more
    return found


def cpu_seconds(pids: list[int]) -> float:
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def resident_mb(pids: list[int]) -> float:
    pages = 0
    for pid in pids:
        try:
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except OSError:
            continue
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Client:
    """One kept connection."""

    def __init__(self, url: str, token: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        self.connection = http.client.HTTPConnection(host, int(port), timeout=60)
        self.headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
        self.connection.connect()
        self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def call(self, method: str, path: str, body: object = None) -> dict:
        self.connection.request(method, f"/api/2.0/mlflow/{path}", json.dumps(body) if body is not None else None, self.headers)
        answer = self.connection.getresponse()
        data = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {data[:200]!r}")
        return json.loads(data)


def rows(experiment: str, runs: list[str]):
    """name → function(client, number) of one request"""
    now = int(time.time() * 1000)

    def batch(size: int):
        def one(client: Client, n: int) -> None:
            points = [{"key": f"m{i % 10}", "value": i, "timestamp": now, "step": n * size + i} for i in range(size)]
            client.call("POST", "runs/log-batch", {"run_id": runs[n % len(runs)], "metrics": points})

        return one

    search = {"experiment_ids": [experiment], "max_results": 100}
    return {
        "runs/create": (1, lambda c, n: c.call("POST", "runs/create", {"experiment_id": experiment, "start_time": now})),
        "log-metric": (
            1,
            lambda c, n: c.call(
                "POST", "runs/log-metric", {"run_id": runs[n % len(runs)], "key": "m", "value": n, "timestamp": now, "step": n}
            ),
        ),
        "log-parameter": (
            1,
            lambda c, n: c.call("POST", "runs/log-parameter", {"run_id": runs[n % len(runs)], "key": f"p{n}", "value": "1"}),
        ),
        "log-batch 100": (0.5, batch(100)),
        "log-batch 1000": (0.1, batch(1000)),
        "runs/get": (1, lambda c, n: c.call("GET", f"runs/get?run_id={runs[n % len(runs)]}")),
        "experiments/search": (1, lambda c, n: c.call("POST", "experiments/search", {"max_results": 100})),
        "runs/search 100 of them": (0.1, lambda c, n: c.call("POST", "runs/search", search)),
        "runs/search by a metric": (0.1, lambda c, n: c.call("POST", "runs/search", {**search, "order_by": ["metrics.m DESC"]})),
    }


def drive(url: str, token: str, clients: int, requests: int, one) -> tuple[float, list[float]]:
    """(wall seconds, seconds of each request)"""
    spent: list[float] = []
    errors: list[BaseException] = []
    share = max(1, requests // clients)

    def work(index: int) -> None:
        try:
            client = Client(url, token)
            for number in range(share):
                began = time.perf_counter()
                one(client, index * share + number)
                spent.append(time.perf_counter() - began)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return time.perf_counter() - began, spent


def measure(name: str, url: str, token: str, pid: int, clients: int, requests: int) -> dict:
    client = Client(url, token)
    experiment = client.call("POST", "experiments/create", {"name": f"bench-{time.time()}"})["experiment_id"]
    runs = [client.call("POST", "runs/create", {"experiment_id": experiment, "start_time": 1})["run"]["info"]["run_id"] for _ in range(200)]
    found: dict = {"idle resident MB": resident_mb(tree(pid)), "processes": len(tree(pid))}
    for row, (factor, one) in rows(experiment, runs).items():
        count = max(clients, int(requests * factor))
        pids = tree(pid)
        before = cpu_seconds(pids)
        wall, spent = drive(url, token, clients, count, one)
        used = cpu_seconds(pids) - before
        p99 = sorted(spent)[int(len(spent) * 0.99) - 1]
        found[row] = {
            "cpu_ms": used / len(spent) * 1000,
            "per_s": len(spent) / wall,
            "p50_ms": statistics.median(spent) * 1000,
            "p99_ms": p99 * 1000,
        }
        print(
            f"{name:<8} {row:<26} {found[row]['cpu_ms']:8.2f} ms CPU  {found[row]['per_s']:8.0f}/s  p99 {found[row]['p99_ms']:7.1f} ms",
            flush=True,
        )
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_mlflow(work: Path) -> tuple[subprocess.Popen, str]:
    uv = Path(sys.executable).parent / "uv"
    venv = work / "mlflow-venv"
    if not (venv / "bin/mlflow").exists():
        subprocess.run([uv, "venv", "--quiet", "--clear", venv], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", venv / "bin/python", "mlflow==3.17.2"], check=True)
    port = free_port()
    store = work / "mlflow-store"
    shutil.rmtree(store, ignore_errors=True)
    store.mkdir()
    server = subprocess.Popen(
        [venv / "bin/mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--backend-store-uri", f"sqlite:///{store}/db.sqlite", "--artifacts-destination", str(store)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, env={**os.environ, "PATH": f"{venv}/bin:{os.environ['PATH']}"},
    )  # fmt: skip
    return server, f"http://127.0.0.1:{port}"


def wait_until_up(url: str) -> None:
    for _ in range(600):
        try:
            connection = http.client.HTTPConnection(*url.removeprefix("http://").split(":"), timeout=2)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"{url} does not start")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--work", default="/tmp/modelyard-bench")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    work = Path(arguments.work)
    work.mkdir(exist_ok=True)
    home = work / "yard-home"
    yard = str(Path(sys.executable).parent / "yard")
    environment = {**os.environ, "YARD_HOME": str(home)}
    shutil.rmtree(home, ignore_errors=True)
    subprocess.run([yard, "up", "--port", "0", "-o", "none"], env=environment, check=True)
    record = json.loads((home / "control/server.json").read_text())
    token = (home / "control/admin.token").read_text().strip()
    server, url = start_mlflow(work)
    try:
        wait_until_up(url)
        time.sleep(12)  # mlflow's helper processes are busy for some ten seconds after its health check
        ours = measure("yard", record["url"], token, record["pid"], arguments.clients, arguments.requests)
        theirs = measure("mlflow", url, "", server.pid, arguments.clients, arguments.requests)
    finally:
        for pid in reversed(tree(server.pid)):
            try:
                os.kill(pid, 9)
            except OSError:
                pass
        server.wait()
        subprocess.run([yard, "down", "--all", "-o", "none"], env=environment)
    print(f"\nPython {platform.python_version()}, {os.cpu_count()} cores, {arguments.clients} clients, SQLite, mlflow 3.17.2\n")
    print(
        "| request | yard CPU ms | mlflow CPU ms | ratio | yard /s | mlflow /s | yard p99 ms | mlflow p99 ms |\n|---|---|---|---|---|---|---|---|"
    )
    for row in ours:
        if isinstance(ours[row], dict):
            a, b = ours[row], theirs[row]
            ratio = b["cpu_ms"] / max(a["cpu_ms"], 0.01)
            print(
                f"| {row} | {a['cpu_ms']:.2f} | {b['cpu_ms']:.1f} | {ratio:.0f}x | {a['per_s']:.0f} | {b['per_s']:.0f} | {a['p99_ms']:.0f} | {b['p99_ms']:.0f} |"
            )
    for row in ("idle resident MB", "processes"):
        print(f"| {row} | {ours[row]:.0f} | {theirs[row]:.0f} | | | | | |")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({"yard": ours, "mlflow": theirs}, indent=2))


if __name__ == "__main__":
    main()

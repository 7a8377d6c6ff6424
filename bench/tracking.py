"""Server CPU per request of a yard and of `mlflow server`, side by side in one run, on SQLite, at 16 clients.

    python bench/tracking.py [--requests 400] [--clients 16] [--rounds 1]

Both servers are started here on loopback. The same client code (standard library, kept connections) drives both. CPU is user + system time of
the server's whole process tree.
"""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from measure import Table, circumstances, cpu_seconds, measured, options, percentile, process_tree, progress, resident_mb
from mlflow_client import MlflowClient
from peers import MLFLOW, mlflow_server
from yards import Yard

Request = Callable[[MlflowClient, int], object]
"""One request; the number is its own among all of a row."""


@dataclass(frozen=True)
class Figures:
    """Of one row and one server."""

    cpu_ms: float
    per_s: float
    p50_ms: float
    p99_ms: float

    @classmethod
    def median(cls, rounds: list[Figures]) -> Figures:
        return cls(*(statistics.median(getattr(figures, field.name) for figures in rounds) for field in fields(cls)))


@dataclass(frozen=True)
class Server:
    name: str
    url: str
    token: str
    pid: int


@dataclass(frozen=True)
class Outcome:
    resident_mb: float
    processes: int
    rows: dict[str, Figures]


def requests(experiment: str, runs: list[str]) -> dict[str, tuple[float, Request]]:
    """Row → (share of --requests, the request)."""
    now = int(time.time() * 1000)

    def of(runs: list[str], n: int) -> str:
        return runs[n % len(runs)]

    def metric(client: MlflowClient, n: int) -> object:
        point = {"run_id": of(runs, n), "key": "m", "value": n, "timestamp": now, "step": n}
        return client.call("POST", "runs/log-metric", point)

    def batch(size: int) -> Request:
        def one(client: MlflowClient, n: int) -> object:
            points = [{"key": f"m{i % 10}", "value": i, "timestamp": now, "step": n * size + i} for i in range(size)]
            return client.call("POST", "runs/log-batch", {"run_id": of(runs, n), "metrics": points})

        return one

    search = {"experiment_ids": [experiment], "max_results": 100}
    return {
        "runs/create": (1, lambda c, n: c.call("POST", "runs/create", {"experiment_id": experiment, "start_time": now})),
        "log-metric": (1, metric),
        "log-parameter": (1, lambda c, n: c.call("POST", "runs/log-parameter", {"run_id": of(runs, n), "key": f"p{n}", "value": "1"})),
        "log-batch 100": (0.5, batch(100)),
        "log-batch 1000": (0.1, batch(1000)),
        "runs/get": (1, lambda c, n: c.call("GET", f"runs/get?run_id={of(runs, n)}")),
        "experiments/search": (1, lambda c, n: c.call("POST", "experiments/search", {"max_results": 100})),
        "runs/search 100 of them": (0.1, lambda c, n: c.call("POST", "runs/search", search)),
        "runs/search by a metric": (0.1, lambda c, n: c.call("POST", "runs/search", {**search, "order_by": ["metrics.m DESC"]})),
    }


def drive(server: Server, clients: int, count: int, request: Request) -> list[float]:
    """Send `count` requests, as many to each client; the seconds of each."""
    spent: list[float] = []
    errors: list[BaseException] = []
    share = max(1, count // clients)

    def work(index: int) -> None:
        try:
            client = MlflowClient(server.url, server.token)
            for number in range(share):
                began = time.perf_counter()
                request(client, index * share + number)
                spent.append(time.perf_counter() - began)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return spent


def measure_row(server: Server, clients: int, count: int, request: Request) -> Figures:
    spent: list[float] = []
    pids = process_tree(server.pid)
    used = measured(lambda: spent.extend(drive(server, clients, count, request)), lambda: cpu_seconds(pids))
    p50, p99 = statistics.median(spent), percentile(spent, 0.99)
    return Figures(used.cpu / len(spent) * 1000, len(spent) / used.wall, p50 * 1000, p99 * 1000)


def measure_server(server: Server, clients: int, count: int, rounds: int) -> Outcome:
    """Every round in an experiment of its own, on a store that grows."""
    pids = process_tree(server.pid)
    memory, rows = resident_mb(pids), dict[str, list[Figures]]()
    for _ in range(rounds):
        for name, (share, request) in requests(*new_experiment(server)).items():
            figures = measure_row(server, clients, max(clients, int(count * share)), request)
            rows.setdefault(name, []).append(figures)
            progress(f"{server.name:<8} {name:<26} {figures.cpu_ms:8.2f} ms CPU {figures.per_s:8.0f}/s  p99 {figures.p99_ms:7.1f} ms")
    return Outcome(memory, len(pids), {name: Figures.median(figures) for name, figures in rows.items()})


def new_experiment(server: Server) -> tuple[str, list[str]]:
    """(experiment, 200 runs of it)"""
    client = MlflowClient(server.url, server.token)
    experiment = client.call("POST", "experiments/create", {"name": f"bench-{time.time()}"})["experiment_id"]
    new_run = {"experiment_id": experiment, "start_time": 1}
    return experiment, [client.call("POST", "runs/create", new_run)["run"]["info"]["run_id"] for _ in range(200)]


def compared(ours: Outcome, theirs: Outcome) -> Table:
    table = Table("request", "yard CPU ms", "mlflow CPU ms", "ratio", "yard /s", "mlflow /s", "yard p99 ms", "mlflow p99 ms")
    for name, a in ours.rows.items():
        b = theirs.rows[name]
        ratio = b.cpu_ms / max(a.cpu_ms, 0.01)
        table.add(
            name, f"{a.cpu_ms:.2f}", f"{b.cpu_ms:.1f}", f"{ratio:.0f}x", f"{a.per_s:.0f}", f"{b.per_s:.0f}",
            f"{a.p99_ms:.0f}", f"{b.p99_ms:.0f}",
        )  # fmt: skip
    table.add("idle resident MB", f"{ours.resident_mb:.0f}", f"{theirs.resident_mb:.0f}")
    table.add("processes", ours.processes, theirs.processes)
    return table


def main() -> None:
    parser = options(__doc__, rounds=1)
    parser.add_argument("--requests", type=int, default=400, help="requests a row (default 400; fewer for large ones)")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--json", type=Path, help="write all figures here as well")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    count, clients, rounds = arguments.requests, arguments.clients, arguments.rounds
    with Yard(arguments.work / "tracking-yard") as yard, mlflow_server(arguments.work) as mlflow:
        ours = measure_server(Server("yard", yard.url, yard.token, yard.server), clients, count, rounds)
        theirs = measure_server(Server("mlflow", mlflow.url, "", mlflow.pid), clients, count, rounds)
    facts = (MLFLOW.replace("==", " "), f"{clients} clients, {count} requests a row (fewer for large ones), SQLite")
    print(circumstances(*facts), compared(ours, theirs), sep="\n\n")
    if arguments.json:
        arguments.json.write_text(json.dumps({"yard": asdict(ours), "mlflow": asdict(theirs)}, indent=2))


if __name__ == "__main__":
    main()

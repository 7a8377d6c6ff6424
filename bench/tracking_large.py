"""A large store: 50,000 runs of 10 metrics and 10 params, a history of 100,000 points, artifacts; a yard and `mlflow server` on the same data.

    python bench/tracking_large.py [--runs 50000] [--rounds 5]

The store is written straight into MLflow's SQLite schema, served by MLflow, and imported into the yard with `yard import mlflow`. One client
asks one request after the other; CPU is that of the server's whole process tree. Medians of the rounds.
"""

from __future__ import annotations

import http.client
import random
import sqlite3
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from measure import Table, Usage, circumstances, cpu_seconds, measured, options, process_tree, progress
from mlflow_client import TIMEOUT_S, MlflowClient
from peers import MLFLOW, mlflow_server
from yards import Yard

Request = Callable[[MlflowClient], object]
LONG = "f" * 32
"""The run with long histories."""
EXPERIMENT = "77"
LARGE = 500 << 20
"""Bytes of an artifact that is sent once, whatever --rounds is."""


def fill(database: Path, count: int) -> None:
    """Runs of one experiment, and one more with long histories."""
    rng = random.Random(1)
    db = sqlite3.connect(database, timeout=60)
    db.execute("PRAGMA synchronous=OFF")
    db.execute(
        "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage, creation_time, last_update_time) VALUES (?, 'large', '', 'active', 1, 1)",
        [EXPERIMENT],
    )
    ids = [f"{number:032x}" for number in range(count)]
    run = "INSERT INTO runs (run_uuid, name, source_type, user_id, status, start_time, end_time, lifecycle_stage, artifact_uri, experiment_id) VALUES (?, ?, 'LOCAL', 'u', 'FINISHED', ?, ?, 'active', '', ?)"
    db.executemany(run, [(id, f"run-{number}", number, number + 1, EXPERIMENT) for number, id in enumerate([*ids, LONG])])
    metrics = [(f"m{key}", rng.random(), 1, id, 0, 0) for id in ids for key in range(10)]
    db.executemany("INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) VALUES (?, ?, ?, ?, ?, ?)", metrics)
    db.executemany("INSERT INTO latest_metrics (key, value, timestamp, run_uuid, step, is_nan) VALUES (?, ?, ?, ?, ?, ?)", metrics)
    for name, length in (("h10k", 10_000), ("h100k", 100_000)):
        points = [(name, rng.random(), step, LONG, step, 0) for step in range(length)]
        db.executemany("INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) VALUES (?, ?, ?, ?, ?, ?)", points)
        db.execute("INSERT INTO latest_metrics (key, value, timestamp, run_uuid, step, is_nan) VALUES (?, ?, ?, ?, ?, ?)", points[-1])
    db.executemany(
        "INSERT INTO params (key, value, run_uuid) VALUES (?, ?, ?)",
        [(f"p{key}", str(rng.randrange(10)), id) for id in ids for key in range(10)],
    )
    db.commit()
    db.close()


def requests(experiment: str) -> dict[str, Request]:
    search = {"experiment_ids": [experiment], "max_results": 100}

    def history(key: str) -> Request:
        return lambda c: c.call("GET", f"metrics/get-history?run_id={LONG}&metric_key={key}&max_results=25000")

    return {
        "page of 100, default order": lambda c: c.call("POST", "runs/search", search),
        "page of 100 by a metric": lambda c: c.call("POST", "runs/search", {**search, "order_by": ["metrics.m3 DESC"]}),
        "page of 100 filtered by metric and param": lambda c: c.call("POST", "runs/search", {**search, "filter": "metrics.m3 > 0.9 AND params.p1 = '4'"}),
        "history of 10,000 points": history("h10k"),
        "25,000 of a history of 100,000": history("h100k"),
    }  # fmt: skip


def transfers(url: str, token: str, experiment: str, size: int) -> dict[str, Request]:
    """Send and fetch one artifact of `size` bytes, each on a connection of its own."""
    host, port = url.removeprefix("http://").split(":")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    path = f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/{LONG}/artifacts/file-{size}"
    body = random.Random(size).randbytes(min(size, 1 << 20)) * max(1, size >> 20)

    def send(_: MlflowClient) -> None:
        connection = http.client.HTTPConnection(host, int(port), timeout=300)
        connection.request("PUT", path, body, headers)
        response = connection.getresponse()
        response.read()
        connection.close()
        if response.status != 200:
            raise RuntimeError(f"PUT {path}: {response.status}")

    def fetch(_: MlflowClient) -> None:
        connection = http.client.HTTPConnection(host, int(port), timeout=300)
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        total = 0
        while chunk := response.read(1 << 20):
            total += len(chunk)
        connection.close()
        if total != len(body):
            raise RuntimeError(f"GET {path}: {total} bytes of {len(body)}")

    label = f"{size >> 20} MB"
    return {f"artifact of {label} up": send, f"artifact of {label} down": fetch}


def measure_server(url: str, token: str, pid: int, experiment: str, rounds: int) -> dict[str, Usage | str]:
    """Row → mean CPU and median wall time of a request, or why there was no answer."""
    small = {**requests(experiment), **transfers(url, token, experiment, 1 << 20)}
    large = transfers(url, token, experiment, LARGE)
    return {name: measure_row(url, token, pid, name, request, rounds) for name, request in small.items()} | {
        name: measure_row(url, token, pid, name, request, 1) for name, request in large.items()
    }


def measure_row(url: str, token: str, pid: int, name: str, request: Request, rounds: int) -> Usage | str:
    client = MlflowClient(url, token)
    try:
        request(client)
    except TimeoutError:
        return f"no answer in {TIMEOUT_S} s"
    except (RuntimeError, OSError) as error:
        progress(f"{url} {name}: {error}")
        return f"failed: {error}"[:60]
    pids = process_tree(pid)
    usages = [measured(lambda: request(client), lambda: cpu_seconds(pids)) for _ in range(rounds)]
    # The counter has ticks of 10 ms: only the sum says something of a short request.
    return Usage(sum(usage.cpu for usage in usages) / rounds, statistics.median(usage.wall for usage in usages))


def compared(ours: dict[str, Usage | str], theirs: dict[str, Usage | str]) -> Table:
    table = Table("request", "yard CPU ms", "mlflow CPU ms", "ratio", "yard ms", "mlflow ms")
    for name, a in ours.items():
        b = theirs[name]
        # Less than a tick of the counter is not a divisor.
        ratio = f"{b.cpu / a.cpu:.0f}x" if isinstance(a, Usage) and isinstance(b, Usage) and a.cpu > 0 else ""
        cpu = [f"{usage.cpu * 1000:.1f}" if isinstance(usage, Usage) else usage for usage in (a, b)]
        wall = [f"{usage.wall * 1000:.1f}" if isinstance(usage, Usage) else "" for usage in (a, b)]
        table.add(name, *cpu, ratio, *wall)
    return table


def main() -> None:
    parser = options(__doc__, rounds=5)
    parser.add_argument("--runs", type=int, default=50_000)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    with mlflow_server(arguments.work) as mlflow:
        database = mlflow.store / "db.sqlite"
        fill(database, arguments.runs)
        with Yard(arguments.work / "large-yard") as yard:
            began = time.perf_counter()
            yard.run("import", "mlflow", "--from", database, "-o", "none")
            took = time.perf_counter() - began
            large = MlflowClient(yard.url, yard.token).call("GET", "experiments/get-by-name?experiment_name=large")["experiment"]
            ours = measure_server(yard.url, yard.token, yard.server, large["experiment_id"], arguments.rounds)
            theirs = measure_server(mlflow.url, "", mlflow.pid, EXPERIMENT, arguments.rounds)
    facts = (f"{arguments.runs:,} runs of ten metrics and ten params on both sides, one client", f"{MLFLOW.replace('==', ' ')} on SQLite")
    print(f"{circumstances(*facts)} The yard's import of them took {took:.0f} s.", compared(ours, theirs), sep="\n\n")


if __name__ == "__main__":
    main()

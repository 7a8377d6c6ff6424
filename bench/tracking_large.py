"""A large store: 50,000 runs of 10 metrics and 10 params, a history of 100,000 points, artifacts; a yard and `mlflow server` on the same data.

    python bench/tracking_large.py [--runs 50000]

The store is written straight into MLflow's SQLite schema, served by MLflow, and imported into the yard with `yard import mlflow`. One client
asks one request after the other; CPU is that of the server's whole process tree. Medians of five.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from tracking import Client, cpu_seconds, start_mlflow, tree, wait_until_up

LONG = "f" * 32


def fill(database: Path, count: int) -> None:
    """Runs of one experiment, the newest first to be found; one more run with long histories."""
    rng = random.Random(1)
    db = sqlite3.connect(database, timeout=60)
    db.execute("PRAGMA synchronous=OFF")
    db.execute(
        "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage, creation_time, last_update_time) VALUES (77, 'large', '', 'active', 1, 1)"
    )
    ids = [f"{number:032x}" for number in range(count)]
    run = "INSERT INTO runs (run_uuid, name, source_type, user_id, status, start_time, end_time, lifecycle_stage, artifact_uri, experiment_id) VALUES (?, ?, 'LOCAL', 'u', 'FINISHED', ?, ?, 'active', '', 77)"
    db.executemany(run, [(id, f"run-{number}", number, number + 1) for number, id in enumerate([*ids, LONG])])
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


def requests(experiment: str) -> dict[str, Callable[[Client], Any]]:
    search = {"experiment_ids": [experiment], "max_results": 100}

    def history(key: str) -> Callable[[Client], Any]:
        return lambda c: c.call("GET", f"metrics/get-history?run_id={LONG}&metric_key={key}&max_results=25000")

    return {
        "page of 100, default order": lambda c: c.call("POST", "runs/search", search),
        "page of 100 by a metric": lambda c: c.call("POST", "runs/search", {**search, "order_by": ["metrics.m3 DESC"]}),
        "page of 100 filtered by metric and param": lambda c: c.call("POST", "runs/search", {**search, "filter": "metrics.m3 > 0.9 AND params.p1 = '4'"}),
        "history of 10,000 points": history("h10k"),
        "25,000 of a history of 100,000": history("h100k"),
    }  # fmt: skip


def transfer(url: str, token: str, experiment: str, size: int) -> dict[str, Callable[[Client], Any]]:
    host, port = url.removeprefix("http://").split(":")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    path = f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/{LONG}/artifacts/file-{size}"
    body = random.Random(size).randbytes(min(size, 1 << 20)) * max(1, size >> 20)

    def send(_: Client) -> None:
        connection = http.client.HTTPConnection(host, int(port), timeout=300)
        connection.request("PUT", path, body, headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200, answer.status
        connection.close()

    def fetch(_: Client) -> None:
        connection = http.client.HTTPConnection(host, int(port), timeout=300)
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        total = 0
        while chunk := answer.read(1 << 20):
            total += len(chunk)
        assert total == len(body), total
        connection.close()

    label = f"{size >> 20} MB"
    return {f"artifact of {label} up": send, f"artifact of {label} down": fetch}


def measure(url: str, token: str, pid: int, experiment: str, rounds: int) -> dict[str, tuple[float, float] | None]:
    client = Client(url, token)
    asked = {**requests(experiment), **transfer(url, token, experiment, 1 << 20), **transfer(url, token, experiment, 500 << 20)}
    found: dict[str, tuple[float, float] | None] = {}
    for name, one in asked.items():
        try:
            one(client)
        except (RuntimeError, AssertionError, OSError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            found[name] = None
            client = Client(url, token)
            continue
        walls = []
        pids = tree(pid)
        before = cpu_seconds(pids)
        times = 1 if "500" in name else rounds
        for _ in range(times):
            began = time.perf_counter()
            one(client)
            walls.append(time.perf_counter() - began)
        found[name] = ((cpu_seconds(pids) - before) / times * 1000, statistics.median(walls) * 1000)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", default="/tmp/modelyard-bench")
    arguments = parser.parse_args()
    work = Path(arguments.work)
    work.mkdir(exist_ok=True)
    home = work / "yard-large"
    shutil.rmtree(home, ignore_errors=True)
    yard = str(Path(sys.executable).parent / "yard")
    environment = {**os.environ, "YARD_HOME": str(home)}
    server, url = start_mlflow(work)
    try:
        wait_until_up(url)
        time.sleep(12)  # mlflow's helper processes are busy for some ten seconds after its health check
        fill(work / "mlflow-store/db.sqlite", arguments.runs)
        subprocess.run([yard, "up", "--port", "0", "-o", "none"], env=environment, check=True)
        began = time.perf_counter()
        subprocess.run([yard, "import", "mlflow", "--from", work / "mlflow-store/db.sqlite", "-o", "none"], env=environment, check=True)
        took = time.perf_counter() - began
        record = json.loads((home / "control/server.json").read_text())
        token = (home / "control/admin.token").read_text().strip()
        experiment = Client(record["url"], token).call("GET", "experiments/get-by-name?experiment_name=large")["experiment"][
            "experiment_id"
        ]
        ours = measure(record["url"], token, record["pid"], experiment, arguments.rounds)
        theirs = measure(url, "", server.pid, "77", arguments.rounds)
    finally:
        for pid in reversed(tree(server.pid)):
            try:
                os.kill(pid, 9)
            except OSError:
                pass
        server.wait()
        subprocess.run([yard, "down", "--all", "-o", "none"], env=environment)
    print(f"\nimport of {arguments.runs + 1:,} runs: {took:.0f} s\n")
    print("| request, one client | yard CPU ms | mlflow CPU ms | ratio | yard ms | mlflow ms |\n|---|---|---|---|---|---|")
    for name, mine in ours.items():
        other = theirs[name]
        if mine is None or other is None:
            print(f"| {name} | {'-' if mine is None else f'{mine[0]:.1f}'} | {'-' if other is None else f'{other[0]:.1f}'} | | | |")
        else:
            print(f"| {name} | {mine[0]:.1f} | {other[0]:.1f} | {other[0] / max(mine[0], 0.1):.0f}x | {mine[1]:.1f} | {other[1]:.1f} |")


if __name__ == "__main__":
    main()

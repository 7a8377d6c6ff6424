"""CPU and wall time of a no-op job against a bare spawn of Python, in one run.

    python bench/jobs.py [--jobs 20] [--rounds 1]

CPU is that of everything: server, supervisor, runner and command, from submit to the end of the job.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time

from measure import Table, Usage, circumstances, cpu_seconds, cpu_seconds_of_children, cpu_seconds_of_own_children, measured, options
from yards import Yard

from modelyard import MLClient, command
from modelyard.entities import Environment


def main() -> None:
    parser = options(__doc__, rounds=1)
    parser.add_argument("--jobs", type=int, default=20, help="jobs a round (default 20)")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    os.environ.pop("YARD_WORKSPACE", None)
    with Yard(arguments.work / "jobs-yard") as yard:
        client = MLClient(url=yard.url, token=yard.token, workspace_name="default")
        one_job(client)  # builds the environment
        rounds = [no_op_jobs(yard, client, arguments.jobs) for _ in range(arguments.rounds)]
        job = Usage(statistics.median(cpu for cpu, _ in rounds), statistics.median(wall for _, walls in rounds for wall in walls))
        spawn = statistics.median(bare_spawns(yard, arguments.jobs) for _ in range(arguments.rounds))
    table = Table("what", "CPU ms", "wall ms", "CPU in bare spawns")
    table.add("no-op job, polling of the client included", f"{job.cpu * 1000:.0f}", f"{job.wall * 1000:.0f}", f"{job.cpu / spawn:.1f}")
    table.add("bare spawn of Python", f"{spawn * 1000:.0f}")
    print(circumstances(), table, sep="\n\n")


def one_job(client: MLClient) -> float:
    """Wall seconds of a job from submit to its end, polled every 5 ms."""
    job = command(command="python -c pass", environment=Environment(pip=[]))
    began = time.perf_counter()
    name = str(client.jobs.create_or_update(job).name)
    path = client._transport.workspace_path(f"/jobs/{name}")
    while (status := client._transport.call("GET", path)["status"]) != "Completed":
        if status in ("Failed", "Canceled"):
            raise RuntimeError(f"job {name} ended as {status}")
        time.sleep(0.005)
    return time.perf_counter() - began


def no_op_jobs(yard: Yard, client: MLClient, count: int) -> tuple[float, list[float]]:
    """(CPU seconds a job, wall seconds of each)"""
    pids = [*yard.server_tree(), yard.supervisor]
    walls: list[float] = []
    used = measured(
        lambda: walls.extend(one_job(client) for _ in range(count)),
        lambda: cpu_seconds(pids) + cpu_seconds_of_children(yard.supervisor),
    )
    return used.cpu / count, walls


def bare_spawns(yard: Yard, count: int) -> float:
    """CPU seconds a spawn of the interpreter that the jobs ran with."""
    python = next((yard.home / "envs").glob("*/bin/python"))

    def spawn() -> None:
        for _ in range(count):
            subprocess.run([python, "-c", "pass"], check=True)

    return measured(spawn, cpu_seconds_of_own_children).cpu / count


if __name__ == "__main__":
    main()

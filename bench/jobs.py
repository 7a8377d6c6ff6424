"""CPU and wall time of a no-op job against a bare spawn of Python, in one run.

    python bench/jobs.py [--jobs 20]

CPU is that of everything: server, supervisor, runner and command, from submit to the end of the job.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from tracking import cpu_seconds, tree


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--work", default="/tmp/modelyard-bench-jobs")
    arguments = parser.parse_args()
    home = Path(arguments.work)
    shutil.rmtree(home, ignore_errors=True)
    os.environ["YARD_HOME"] = str(home)
    yard = str(Path(sys.executable).parent / "yard")
    subprocess.run([yard, "up", "--port", "0", "-o", "none"], check=True)
    try:
        from modelyard import MLClient, command
        from modelyard.entities import Environment

        record = json.loads((home / "control/server.json").read_text())
        supervisor = json.loads((home / "control/supervisor/running.json").read_text())["pid"]
        client = MLClient()
        job = command(command="python -c pass", environment=Environment(pip=[]))

        def run_one() -> float:
            began = time.perf_counter()
            name = str(client.jobs.create_or_update(job).name)
            while client._transport.call("GET", client._transport.workspace_path(f"/jobs/{name}"))["status"] != "Completed":
                time.sleep(0.005)
            return time.perf_counter() - began

        run_one()
        fixed = tree(record["pid"]) + [supervisor]
        before = cpu_seconds(fixed) + _of_children(supervisor)
        walls = [run_one() for _ in range(arguments.jobs)]
        used = cpu_seconds(fixed) + _of_children(supervisor) - before
        python = next((home / "envs").glob("*/bin/python"))
        before_children = os.times()
        for _ in range(arguments.jobs):
            subprocess.run([python, "-c", "pass"], check=True)
        after = os.times()
        bare = (
            after.children_user + after.children_system - before_children.children_user - before_children.children_system
        ) / arguments.jobs
        print(
            f"| no-op job | CPU {used / arguments.jobs * 1000:.0f} ms (polling of the client included) | wall {statistics.median(walls) * 1000:.0f} ms |"
        )
        print(f"| bare spawn of Python | CPU {bare * 1000:.0f} ms | ratio {used / arguments.jobs / bare:.1f} |")
    finally:
        subprocess.run([yard, "down", "--all", "-o", "none"])


def _of_children(pid: int) -> float:
    """CPU seconds of the children that a process has waited for, theirs included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()

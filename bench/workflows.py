"""Pipelines of no-op Python steps against peers and a bare spawn, in one run.

    python bench/workflows.py [--rounds 3] [--without-peers]

CPU is that of everything: client command, server, supervisor, runners and steps. Medians over the rounds. Peers are installed into a
virtual environment of their own; one that does not install or fails is named and left out.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from tracking import cpu_seconds

TICK = os.sysconf("SC_CLK_TCK")
PEERS = ("metaflow>=2.19,<3", "dvc>=3,<4", "prefect>=3,<4")


def _with_children(pid: int) -> float:
    """CPU seconds of a process and of the children it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(int(fields[index]) for index in (11, 12, 13, 14)) / TICK


def _of_own_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Yard:
    def __init__(self, home: Path) -> None:
        shutil.rmtree(home, ignore_errors=True)
        self.home = home
        os.environ["YARD_HOME"] = str(home)
        self.program = str(Path(sys.executable).parent / "yard")
        subprocess.run([self.program, "up", "--port", "0", "-o", "none"], check=True)
        self.server = json.loads((home / "control/server.json").read_text())["pid"]
        self.supervisor = json.loads((home / "control/supervisor/running.json").read_text())["pid"]
        (home / "src").mkdir()
        (home / "src/noop.py").write_text("pass\n")
        (home / "src/imports.py").write_text("import pandas, sklearn.linear_model\n")

    def cpu(self) -> float:
        """Interpreters that run are counted where they are; everything else when it has been waited for."""
        warm = sum(_with_children(pid) for pid in self._interpreters())
        return cpu_seconds([self.server]) + _with_children(self.supervisor) + warm + _of_own_children()

    def _interpreters(self) -> list[int]:
        running = [json.loads(path.read_text()) for path in (self.home / "interpreters").glob("*/running.json")]
        return [found["child"] for found in running if Path(f"/proc/{found['child']}").exists()]

    def settle(self, script: str, packages: tuple[str, ...]) -> None:
        """Run steps of a kind until one was forked, so that building and loading are behind us."""
        for _ in range(20):
            self.run(chain(2, True, script, packages))
            if any(path.exists() for path in (self.home / "interpreters").glob("*/run/ready")) and len(self._interpreters()) >= (
                2 if packages else 1
            ):
                time.sleep(5)
                return

    def run(self, document: dict[str, Any]) -> tuple[float, float]:
        """(CPU seconds, wall seconds) of `yard job create` until the pipeline's end, as a user has it."""
        path = self.home / "bench.json"
        path.write_text(json.dumps(document))
        before, began = self.cpu(), time.perf_counter()
        subprocess.run([self.program, "job", "create", "-f", path, "--stream"], check=document["type"] == "pipeline", capture_output=True)
        wall = time.perf_counter() - began
        time.sleep(0.5)  # the last folders are removed after the end is told
        return self.cpu() - before, wall

    def listed(self) -> tuple[float, float]:
        before, began = self.cpu(), time.perf_counter()
        subprocess.run([self.program, "job", "list", "-o", "none"], check=True)
        return self.cpu() - before, time.perf_counter() - began

    def python(self, packages: tuple[str, ...]) -> Path:
        """The interpreter of the environment with these packages, or with none."""
        found = (path for path in (self.home / "envs").glob("*/bin/python"))
        return next(path for path in found if bool((path.parents[1] / "lock.txt").read_text().strip()) == bool(packages))

    def down(self) -> None:
        subprocess.run([self.program, "down", "--all", "-o", "none"])


PACKAGES = ("pandas>=2,<4", "scikit-learn>=1.5,<2")


def step(command: str, packages: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    return {
        "type": "command", "command": command, "code": "./src", "environment": {"pip": list(packages)},
        "outputs": {"o": {"type": "uri_folder"}}, **more,
    }  # fmt: skip


def chain(count: int, force: bool, script: str = "noop", packages: tuple[str, ...] = ()) -> dict[str, Any]:
    jobs = {}
    for number in range(count):
        inputs = {"x": f"${{{{parent.jobs.s{number - 1}.outputs.o}}}}"} if number else {}
        jobs[f"s{number}"] = step(f"python {script}.py", packages, inputs=inputs)
    return {"type": "pipeline", "jobs": jobs, "settings": {"force_rerun": force}}


def fan(count: int, force: bool) -> dict[str, Any]:
    jobs = {f"s{number}": step(f"python noop.py {number}") for number in range(count)}
    return {"type": "pipeline", "jobs": jobs, "settings": {"force_rerun": force}}


def sweep(count: int) -> dict[str, Any]:
    return {
        "type": "sweep", "trial": {"command": "true", "environment": {"pip": []}},
        "search_space": {"x": {"type": "uniform", "min_value": 0, "max_value": 1}},
        "objective": {"goal": "minimize", "primary_metric": "none"}, "limits": {"max_total_trials": count, "max_concurrent_trials": 2},
    }  # fmt: skip


def peers(folder: Path) -> dict[str, Callable[[], tuple[float, float]]]:
    """name → one run of ten no-op steps."""
    venv = folder / "peers"
    if not (venv / "bin/python").exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    subprocess.run([venv / "bin/python", "-m", "pip", "install", "--quiet", *PEERS], check=True)
    home = folder / "home"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    environment = {
        **os.environ, "HOME": str(home), "USER": "bench", "PATH": f"{venv}/bin:{os.environ['PATH']}", "METAFLOW_HOME": str(home), "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DVC_NO_ANALYTICS": "1", "METAFLOW_USER": "bench", "PREFECT_LOGGING_LEVEL": "ERROR",
    }  # fmt: skip

    def measured(command: list[str], cwd: Path) -> tuple[float, float]:
        before, began = _of_own_children(), time.perf_counter()
        subprocess.run(command, cwd=cwd, env=environment, check=True, capture_output=True)
        return _of_own_children() - before, time.perf_counter() - began

    flow = home / "flow.py"
    body = "".join(
        f"    @step\n    def s{n}(self):\n        self.next(self.{f's{n + 1}' if n < 8 else 'end'})\n" for n in range(1, 9)
    )  # fmt: skip
    flow.write_text(
        "from metaflow import FlowSpec, step\nclass Ten(FlowSpec):\n    @step\n    def start(self):\n        self.next(self.s1)\n"
        f"{body}    @step\n    def end(self):\n        pass\nif __name__ == '__main__':\n    Ten()\n"
    )
    (home / "prefect_flow.py").write_text(
        "from prefect import flow, task\n@task\ndef noop(x): return x\n@flow\ndef ten():\n    x = 0\n    for _ in range(10):\n        x = noop(x)\n"
        "if __name__ == '__main__':\n    ten()\n"
    )
    repo = home / "dvc"
    repo.mkdir()
    stages = {
        f"s{n}": {"cmd": f"python -c pass && cp in{n} in{n + 1}", "deps": [f"in{n}"], "outs": [f"in{n + 1}"]} for n in range(10)
    }  # fmt: skip
    (repo / "dvc.yaml").write_text(json.dumps({"stages": stages}))
    (repo / "in0").write_text("x")
    subprocess.run(["dvc", "init", "--no-scm", "-q"], cwd=repo, env=environment, check=True, capture_output=True)
    return {
        "Metaflow": lambda: measured(["python", "flow.py", "--quiet", "run"], home),
        "DVC, forced": lambda: measured(["dvc", "repro", "--force", "-q"], repo),
        "DVC, unchanged": lambda: measured(["dvc", "repro", "-q"], repo),
        "Prefect, in process": lambda: measured(["python", "prefect_flow.py"], home),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", default="/tmp/modelyard-bench-workflows")
    parser.add_argument("--without-peers", action="store_true")
    arguments = parser.parse_args()
    folder = Path(arguments.work)
    yard = Yard(folder / "yard")
    try:
        rows: dict[str, Callable[[], tuple[float, float]]] = {
            "yard, ten steps": lambda: yard.run(chain(10, True)),
            "yard, ten steps unchanged": lambda: yard.run(chain(10, False)),
            "yard, 100 steps": lambda: yard.run(fan(100, True)),
            "yard, 100 steps unchanged": lambda: yard.run(fan(100, False)),
            "yard, sweep of 200 trials of `true`": lambda: yard.run(sweep(200)),
            "yard, ten steps that import pandas and scikit-learn": lambda: yard.run(chain(10, True, "imports", PACKAGES)),
            "`yard job list`, once": lambda: yard.listed(),
            "ten bare spawns of Python": lambda: bare(yard.python(()), "pass"),
            "ten spawns that import pandas and scikit-learn": lambda: bare(yard.python(PACKAGES), "import pandas, sklearn.linear_model"),
        }
        yard.settle("noop", ())
        yard.settle("imports", PACKAGES)
        yard.run(chain(10, False))
        yard.run(fan(100, False))
        if not arguments.without_peers:
            rows |= peers(folder)
        print("| what | CPU s | wall s |\n|---|---|---|")
        for name, measure in rows.items():
            rounds = 1 if "200" in name or name == "yard, 100 steps" else arguments.rounds
            try:
                found = [measure() for _ in range(rounds)]
            except subprocess.CalledProcessError as error:
                print(f"| {name} | left out: {(error.stderr or b'').decode()[-200:].splitlines()[-1:]} | |")
                continue
            cpu, wall = (statistics.median(values) for values in zip(*found, strict=True))
            print(f"| {name} | {cpu:.2f} | {wall:.2f} |", flush=True)
    finally:
        yard.down()


def bare(python: Path, code: str) -> tuple[float, float]:
    before, began = _of_own_children(), time.perf_counter()
    for _ in range(10):
        subprocess.run([python, "-c", code], check=True)
    return _of_own_children() - before, time.perf_counter() - began


if __name__ == "__main__":
    main()

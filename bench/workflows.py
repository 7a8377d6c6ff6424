"""Pipelines of no-op Python steps against peers and a bare spawn, in one run.

    python bench/workflows.py [--rounds 3] [--without-peers]

CPU is that of everything: client command, server, supervisor, runners and steps. Medians over the rounds. Peers are installed into a
virtual environment of their own; one that does not install or fails is named and left out.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import (
    Table,
    Usage,
    circumstances,
    cpu_seconds,
    cpu_seconds_of_children,
    cpu_seconds_of_own_children,
    measured,
    median_usage,
    options,
)  # fmt: skip
from peers import NotAvailable, Venv, last_line
from yards import Yard

PACKAGES = ("pandas>=2,<4", "scikit-learn>=1.5,<2")
IMPORTS = "import pandas, sklearn.linear_model"
PEERS = ("metaflow>=2.19,<3", "dvc>=3,<4", "prefect>=3,<4")


@dataclass(frozen=True)
class Row:
    name: str
    action: Callable[[], Usage]
    long: bool = False
    """Measured once, whatever --rounds is."""


class Workflows:
    """What is measured of a running yard."""

    def __init__(self, yard: Yard) -> None:
        self.yard = yard
        self.server, self.supervisor = yard.server, yard.supervisor
        code = yard.home / "src"
        code.mkdir()
        (code / "noop.py").write_text("pass\n")
        (code / "imports.py").write_text(IMPORTS + "\n")

    def cpu(self) -> float:
        """Warm interpreters that run are counted where they are; everything else when it has been waited for."""
        warm = self._interpreters()
        below = sum(cpu_seconds_of_children(pid) for pid in (self.supervisor, *warm))
        return cpu_seconds([self.server, self.supervisor, *warm]) + below + cpu_seconds_of_own_children()

    def _interpreters(self) -> list[int]:
        running = [json.loads(path.read_text())["child"] for path in (self.yard.home / "interpreters").glob("*/running.json")]
        return [pid for pid in running if Path(f"/proc/{pid}").exists()]

    def warm_up(self, script: str, packages: tuple[str, ...], interpreters: int) -> None:
        """Run steps of a script until one was forked, so that building and loading are behind us."""
        ready = self.yard.home / "interpreters"
        for _ in range(20):
            self.run(chain(2, True, script, packages))
            if any(ready.glob("*/run/ready")) and len(self._interpreters()) >= interpreters:
                time.sleep(5)
                return

    def run(self, document: dict[str, Any]) -> Usage:
        """`yard job create` until the pipeline's end, as a user has it."""
        path = self.yard.home / "bench.json"
        path.write_text(json.dumps(document))
        before = self.cpu()
        # A sweep of `true` reports no metric and so ends as failed.
        check = document["type"] == "pipeline"
        wall = measured(lambda: self.yard.run("job", "create", "-f", path, "--stream", check=check), lambda: 0.0).wall
        time.sleep(0.5)  # the last folders are removed after the end is reported
        return Usage(self.cpu() - before, wall)

    def list_jobs(self) -> Usage:
        return measured(lambda: self.yard.run("job", "list", "-o", "none"), self.cpu)

    def python(self, packages: tuple[str, ...]) -> Path:
        """The interpreter of the environment with these packages, or with none."""
        paths = (self.yard.home / "envs").glob("*/bin/python")
        return next(path for path in paths if bool((path.parents[1] / "lock.txt").read_text().strip()) == bool(packages))


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


def spawns(python: Path, code: str) -> Usage:
    def spawn() -> None:
        for _ in range(10):
            subprocess.run([python, "-c", code], check=True)

    return measured(spawn, cpu_seconds_of_own_children)


def yard_rows(workflows: Workflows) -> list[Row]:
    return [
        Row("yard, ten no-op steps `python noop.py` in a chain", lambda: workflows.run(chain(10, True))),
        Row("the same, unchanged", lambda: workflows.run(chain(10, False))),
        Row("yard, 100 no-op steps", lambda: workflows.run(fan(100, True)), long=True),
        Row("the same, unchanged", lambda: workflows.run(fan(100, False))),
        Row("yard, a sweep of 200 trials of `true`", lambda: workflows.run(sweep(200)), long=True),
        Row("yard, ten steps that import pandas and scikit-learn", lambda: workflows.run(chain(10, True, "imports", PACKAGES))),
        Row("`yard job list`, once", workflows.list_jobs),
        Row("ten bare spawns of Python", lambda: spawns(workflows.python(()), "pass")),
        Row("ten spawns that import pandas and scikit-learn", lambda: spawns(workflows.python(PACKAGES), IMPORTS)),
    ]


def peer_rows(venv: Venv, folder: Path) -> list[Row]:
    """Ten no-op steps by each peer. Raises NotAvailable when they do not install."""
    venv.install()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    environment = venv.environment(
        HOME=str(folder), USER="bench", METAFLOW_HOME=str(folder), METAFLOW_USER="bench", DVC_NO_ANALYTICS="1",
        PREFECT_HOME=str(folder / "prefect"), PREFECT_SERVER_ANALYTICS_ENABLED="false", PREFECT_LOGGING_LEVEL="ERROR",
    )  # fmt: skip

    def command(*words: str, cwd: Path = folder) -> Callable[[], Usage]:
        def run() -> None:
            done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True)
            if done.returncode != 0:
                raise NotAvailable(f"{' '.join(words)} exited with {done.returncode}: {last_line(done.stderr)}")

        return lambda: measured(run, cpu_seconds_of_own_children)

    (folder / "flow.py").write_text(metaflow_flow())
    (folder / "prefect_flow.py").write_text(PREFECT_FLOW)
    repository = folder / "dvc"
    repository.mkdir()
    (repository / "dvc.yaml").write_text(json.dumps(dvc_stages()))
    (repository / "in0").write_text("x")
    command("dvc", "init", "--no-scm", "-q", cwd=repository)()
    return [
        Row("Metaflow, ten steps", command("python", "flow.py", "--quiet", "run")),
        Row("DVC, ten steps, forced", command("dvc", "repro", "--force", "-q", cwd=repository)),
        Row("DVC, ten steps, unchanged", command("dvc", "repro", "-q", cwd=repository)),
        Row("Prefect, ten tasks in one process", command("python", "prefect_flow.py")),
    ]


def metaflow_flow() -> str:
    steps = "".join(f"    @step\n    def s{n}(self):\n        self.next(self.{f's{n + 1}' if n < 8 else 'end'})\n" for n in range(1, 9))
    return (
        "from metaflow import FlowSpec, step\nclass Ten(FlowSpec):\n    @step\n    def start(self):\n        self.next(self.s1)\n"
        f"{steps}    @step\n    def end(self):\n        pass\nif __name__ == '__main__':\n    Ten()\n"
    )


def dvc_stages() -> dict[str, Any]:
    return {
        "stages": {f"s{n}": {"cmd": f"python -c pass && cp in{n} in{n + 1}", "deps": [f"in{n}"], "outs": [f"in{n + 1}"]} for n in range(10)}
    }


PREFECT_FLOW = """
from prefect import flow, task
@task
def noop(x): return x
@flow
def ten():
    x = 0
    for _ in range(10):
        x = noop(x)
if __name__ == '__main__':
    ten()
"""


def measure_rows(table: Table, rows: Sequence[Row], rounds: int) -> list[str]:
    """Fill the table; what is to be noted below it of rows that failed."""
    notes = []
    for row in rows:
        try:
            usage = median_usage([row.action() for _ in range(1 if row.long else rounds)])
        except (NotAvailable, RuntimeError) as error:
            notes.append(f"{row.name}: left out, {error}")
        else:
            table.add(row.name, f"{usage.cpu:.2f}", f"{usage.wall:.2f}")
    return notes


def main() -> None:
    parser = options(__doc__, rounds=3)
    parser.add_argument("--without-peers", action="store_true")
    arguments = parser.parse_args()
    table, notes, facts = Table("what", "CPU s", "wall s"), list[str](), list[str]()
    with Yard(arguments.work / "workflows-yard") as yard:
        workflows = Workflows(yard)
        workflows.warm_up("noop", (), interpreters=1)
        workflows.warm_up("imports", PACKAGES, interpreters=2)
        workflows.run(chain(10, False))
        workflows.run(fan(100, False))
        notes += measure_rows(table, yard_rows(workflows), arguments.rounds)
        if not arguments.without_peers:
            venv = Venv(arguments.work / "workflow-peers", PEERS)
            try:
                notes += measure_rows(table, peer_rows(venv, arguments.work / "workflow-peers-home"), arguments.rounds)
                facts = [f"{package} {venv.version(package)}" for package in ("metaflow", "dvc", "prefect")]
            except NotAvailable as error:
                notes.append(f"Peers: left out, {error}")
    print("\n\n".join((circumstances(*facts), str(table), *notes)))


if __name__ == "__main__":
    main()

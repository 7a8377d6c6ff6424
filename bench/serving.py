"""A basket of ordinary MLflow models behind a yard's endpoint and behind azureml-inference-server-http, beside their own predict.

    python bench/serving.py [--models text,dates] [--seconds 3] [--rounds 1] [--without-peer] [--load-cores 1]

Each request has one row, another one than the request before. `alone` is `mlflow.pyfunc.load_model().predict` in a process that does nothing
else, with the Python of the deployment's environment, 1 row and 64 rows a call: the limit. The peer has one worker and runs the scoring script
that one would write: JSON, frame, predict, list. The yard answers through its router with key; the deployments take as many requests at a time
as there are connections, and one more row shows the first model with the default settings. Before it is loaded, each server has to answer each
request as the model does alone. Needs `wrk`. Environments, peers and models that lie in --work are used again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import basket
from basket import BASKET, Kind
from measure import Table, circumstances, options, progress
from peers import NotAvailable, Venv, last_line
from servers import Deployed, Load, Peer, Server, answers, ask, generate_load, require_wrk
from yards import Yard

CONNECTIONS = (1, 8, 64, 256)
PACKAGES = ["mlflow-skinny==3.17.2", "scikit-learn>=1.5,<1.8", "pandas>=2,<3", "skops"]
SUITES = {"tables": ["lightgbm", "xgboost-cpu"], "torch": ["torch==2.13.0"]}
PEER = "azureml-inference-server-http"
SETTINGS = {"max_concurrent_requests_per_instance": max(CONNECTIONS), "request_timeout_ms": 60_000}
"""The time is for the model that takes 20 ms: with 256 connections a request waits for 255 others."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""What a deployment of the yard with one core is given, and so the peer: threads that share busy cores wait for each other."""
SCRIPT = """
import json, os, mlflow.pyfunc, numpy, pandas
def init():
    global model, schema, dates
    model = mlflow.pyfunc.load_model(os.environ["MODEL"])
    schema = model.metadata.get_input_schema()
    dates = [] if schema.is_tensor_spec() else [column.name for column in schema.inputs if column.type.name == "datetime"]
def argument(sent):
    if schema.is_tensor_spec():
        return numpy.array(sent, dtype=schema.numpy_types()[0])
    frame = pandas.DataFrame(sent["data"], columns=sent["columns"])
    for name in dates:
        frame[name] = pandas.to_datetime(frame[name])
    return frame
def answer(predicted):
    return predicted.to_dict("records") if isinstance(predicted, pandas.DataFrame) else predicted.tolist()
def run(raw):
    return answer(model.predict(argument(json.loads(raw)["input_data"])))
"""
ALONE = """
import itertools, json, sys, time, numpy, pandas, score
requests, seconds = open(sys.argv[1]).read().splitlines(), float(sys.argv[2])
score.init()
def rows_per_s(calls):
    size, count, began = len(calls[0]), 0, time.perf_counter()
    for call in itertools.cycle(calls):
        score.model.predict(call)
        count += size
        if time.perf_counter() - began > seconds:
            return count / (time.perf_counter() - began)
singles = [score.argument(json.loads(request)["input_data"]) for request in requests]
many = pandas.concat(singles, ignore_index=True) if hasattr(singles[0], "columns") else numpy.concatenate(singles)
print(json.dumps({"one": rows_per_s(singles), "many": rows_per_s([many]), "answers": [score.run(request) for request in requests]}))
"""


class Alone(NamedTuple):
    """Rows a second of the model's own predict, and its answers to the requests."""

    one: float
    many: float
    answers: list[Any]


@dataclass
class Row:
    name: str
    kind: Kind
    alone: Alone
    yard: dict[int, Load] = field(default_factory=dict)
    """Connections → load; empty when it did not start."""
    peer: dict[int, Load] = field(default_factory=dict)

    def ratio(self, connections: int, other: float) -> float:
        """Of the yard to another rate; NaN when either is missing."""
        return self.yard[connections].per_s / other if self.yard and other else math.nan

    @property
    def to_peer(self) -> float:
        return self.ratio(64, self.peer[64].per_s if self.peer else 0)

    @property
    def to_many(self) -> float:
        return self.ratio(64, self.alone.many)

    @property
    def to_one(self) -> float:
        return self.ratio(1, self.alone.one)

    def reached(self, ceiling: float) -> dict[str, float]:
        """Goal → how much of it is reached; `ceiling` is what the yard reaches with named numbers at 64 connections, NaN when unknown."""
        if not self.yard:
            return {"an answer": 0}
        at_one = 1 / (1 / self.alone.one + 150e-6)
        goals = {"alone at 1 connection": max(self.to_one / 0.85, self.yard[1].per_s / at_one)}
        if self.kind.row_wise:
            goals["the limit at 64"] = max(self.to_many / 0.3, 0 if math.isnan(ceiling) else self.yard[64].per_s / ceiling / 0.8)
        else:
            goals["alone at every load"] = min(load.per_s for load in self.yard.values()) / self.alone.one / 0.8
        if self.peer:
            goals["the peer's p99"] = min(self.peer[count].p99_ms / max(load.p99_ms, 1e-3) for count, load in self.yard.items())
            if self.kind.row_wise:
                goals["10x the peer"] = self.to_peer / 10
        goals["no failure"] = 0 if failed(self.yard) else 1
        return goals


def failed(loads: dict[int, Load]) -> str:
    """The requests that were answered with another status than 2xx, and those that were not answered, by connections; empty when there are none."""
    return ", ".join(f"{load.refused:.0f}+{load.broken:.0f} at {count}" for count, load in loads.items() if load.failed)


class Bench:
    def __init__(self, yard: Yard, work: Path, arguments: argparse.Namespace) -> None:
        self.yard, self.work, self.arguments = yard, work, arguments
        self.pythons: dict[str, str] = {}
        self.notes: list[str] = []
        self.models = work / "models"
        self.models.mkdir(exist_ok=True)
        (work / "score.py").write_text(SCRIPT)

    def venv(self, suite: str) -> Venv:
        """Trains, and runs the peer."""
        return Venv(self.work / suite, [*PACKAGES, *SUITES[suite], PEER])

    def train(self, suite: str, names: list[str]) -> None:
        """Save the models that are missing, or were saved by another basket."""
        text = Path(basket.__file__).read_text() + "".join(self.venv(suite).requirements)
        made = self.models / f"{suite}.made"
        if made.exists() and made.read_text() == text and all((self.models / f"{name}.requests").exists() for name in names):
            return
        progress(f"training {', '.join(names)}")
        made.unlink(missing_ok=True)
        self.venv(suite).install()
        command = [self.venv(suite).program("python"), basket.__file__, str(self.models), *names]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise NotAvailable(f"{suite}: not trained: {last_line(done.stderr)}")
        made.write_text(text)

    def environment(self, suite: str) -> str:
        """Its name in the yard; built, and its Python known."""
        if suite not in self.pythons:
            file = self.work / "environment.yml"
            file.write_text(json.dumps({"name": suite, "version": "1", "pip": [*PACKAGES, *SUITES[suite]]}))
            self.yard.run("environment", "create", "-f", file)
            key = self.yard.json("environment", "build", "-n", suite)["key"]
            self.pythons[suite] = str(self.yard.environments / key / "bin/python")
        return f"azureml:{suite}:1"

    def rows(self) -> Iterator[Row]:
        """What was asked for, without what does not install, train or predict, of which there is a note."""
        for suite in SUITES:
            names = [name for name in BASKET if BASKET[name].suite == suite]
            asked = [name for name in names if name in self.arguments.models]
            try:
                if asked:
                    self.train(suite, names)
                    self.environment(suite)
            except (NotAvailable, RuntimeError) as error:
                self.notes.append(str(error))
                continue
            for name in asked:
                try:
                    yield self.row(name, not self.arguments.without_peer)
                except NotAvailable as error:
                    self.notes.append(str(error))

    def row(self, name: str, with_peer: bool) -> Row:
        kind = BASKET[name]
        environment = self.environment(kind.suite)
        row = Row(name, kind, self.alone(name))
        row.yard = self.loads(Deployed(self.yard, self.work, "yard", environment, request_settings=SETTINGS), row)
        if with_peer:
            command = ["azmlinfsrv", "--entry_script", "score.py", "--port", "5801"]
            ready = self.requests(name).read_bytes().splitlines()[0]
            row.peer = self.loads(Peer(self.work, PEER, self.venv(kind.suite), command, "score", 5801, ready, **ONE_THREAD), row)
        return row

    def requests(self, name: str) -> Path:
        return self.models / f"{name}.requests"

    def alone(self, name: str) -> Alone:
        """With as many threads as the model's libraries take, or with one, whichever is faster: on busy cores threads wait for each other."""
        one, other = self.predicted(name), self.predicted(name, **ONE_THREAD)
        return Alone(max(one.one, other.one), max(one.many, other.many), one.answers)

    def predicted(self, name: str, **variables: str) -> Alone:
        command = [self.pythons[BASKET[name].suite], "-c", ALONE, self.requests(name), str(min(1, self.arguments.seconds))]
        variables = {**os.environ, "MODEL": str(self.models / name), **variables}
        done = subprocess.run(command, cwd=self.work, env=variables, capture_output=True, text=True)
        if done.returncode != 0:
            raise NotAvailable(f"{name}: does not predict: {last_line(done.stderr)}")
        return Alone(**json.loads(done.stdout.splitlines()[-1]))

    def loads(self, server: Server, row: Row, *, count_429: bool = False) -> dict[int, Load]:
        """Connections → load. Nothing, and a note, when the server does not start."""
        arguments, requests = self.arguments, self.requests(row.name)
        measured = {}
        try:
            server.start(self.models / row.name)
            one, *_ = bodies = requests.read_bytes().splitlines()
            if wrong := wrong_answers(server, bodies, row.alone.answers):
                self.notes.append(f"{row.name}, {server.name}: {wrong}")
            for count in CONNECTIONS:
                rounds = []
                for _ in range(arguments.rounds):
                    answers(server, one)  # behind what the load before has left
                    rounds.append(
                        generate_load(server, requests, count, arguments.seconds, cores=arguments.load_cores, count_429=count_429)
                    )
                measured[count] = Load.median(rounds)
                progress(f"{row.name}, {server.name}, {count} connections: {measured[count]}")
            return measured
        except (NotAvailable, RuntimeError) as error:
            self.notes.append(f"{row.name}, {server.name}: left out, {error}")
            return {}
        finally:
            server.stop()

    def defaults(self, row: Row) -> dict[int, Load]:
        """The loads of a deployment that says nothing of its limits."""
        return self.loads(Deployed(self.yard, self.work, "yard, default settings", self.environment(row.kind.suite)), row, count_429=True)


def wrong_answers(server: Server, requests: list[bytes], expected: list[Any]) -> str:
    """How many answers are not those of the model, and the first of them; empty when all are."""
    wrong = []
    for request, right in zip(requests, expected, strict=True):
        try:
            answered = ask(server, request)
        except OSError as error:
            answered = error
        if not same(answered, right):
            wrong.append(f"{answered} instead of {right} for {request.decode()[:200]}")
    return f"{len(wrong)} of {len(requests)} answers are wrong, the first is {wrong[0]}" if wrong else ""


def same(one: Any, other: Any) -> bool:
    """Floats as close as another order of summation leaves them in single precision."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-6)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(same(one[name], other[name]) for name in one)
    return type(one) is type(other) and bool(one == other)


def each(loads: dict[int, Load], value: str, digits: int = 0) -> str:
    return " / ".join(f"{getattr(load, value):.{digits}f}" for load in loads.values())


def report(rows: list[Row]) -> Iterable[str]:
    """The tables, the rows that fall furthest below a goal first, and the medians."""
    ceiling = next((row.yard[64].per_s for row in rows if row.name == "numbers" and row.yard), math.nan)
    rows = sorted(rows, key=lambda row: min(row.reached(ceiling).values()))
    counts = " / ".join(map(str, CONNECTIONS))
    speed = Table(
        "model", "alone rows/s, 1; 64 a call", f"peer requests/s, {counts} connections", "yard requests/s",
        "yard/peer at 64", "yard/alone 64 at 64", "yard/alone 1 at 1", "failed: yard; peer", "goals missed (reached)",
    )  # fmt: skip
    cost = Table("model", "peer p50 ms", "yard p50 ms", "peer p99 ms", "yard p99 ms", "peer CPU us a request", "yard CPU us a request")
    for row in rows:
        missed = ", ".join(f"{goal} ({share:.2f})" for goal, share in row.reached(ceiling).items() if share < 1)
        speed.add(
            f"{row.name}: {row.kind.title}", f"{row.alone.one:.0f}; {row.alone.many:.0f}", each(row.peer, "per_s"), each(row.yard, "per_s"),
            *("" if math.isnan(ratio) else f"{ratio:.2f}" for ratio in (row.to_peer, row.to_many, row.to_one)), f"{failed(row.yard) or 0}; {failed(row.peer) or 0}", missed,
        )  # fmt: skip
        columns = [
            each(loads, value, digits) for value, digits in (("p50_ms", 1), ("p99_ms", 1), ("cpu_us", 0)) for loads in (row.peer, row.yard)
        ]
        cost.add(row.name, *columns)
    yield str(speed)
    yield str(cost)
    for group, of in (("row-wise models", [row for row in rows if row.kind.row_wise]), ("all models", rows)):
        ratios = {"yard/peer at 64": "to_peer", "yard/alone 64 at 64": "to_many", "yard/alone 1 at 1": "to_one"}
        yield (
            f"Median of {len(of)} {group}: "
            + ", ".join(f"{name} {median(getattr(row, value) for row in of):.2f}" for name, value in ratios.items())
            + "."
        )


def median(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return statistics.median(known) if known else math.nan


def report_defaults(name: str, loads: dict[int, Load]) -> str:
    table = Table("connections", "requests/s answered", "share with 429", "other failures", "p50 ms", "p99 ms")
    for count, load in loads.items():
        others = f"{load.refused - load.throttled:.0f}+{load.broken:.0f}"
        table.add(
            count, f"{load.per_s:.0f}", f"{load.throttled / max(1, load.asked):.1%}", others, f"{load.p50_ms:.1f}", f"{load.p99_ms:.1f}"
        )
    return f"The yard with default settings, {name}:\n\n{table}"


def parsed() -> argparse.Namespace:
    parser = options(__doc__, rounds=1)
    parser.add_argument("--seconds", type=int, default=3, help="seconds of each load (default 3)")
    parser.add_argument("--models", type=lambda text: text.split(","), default=list(BASKET), help=f"of {','.join(BASKET)}")
    parser.add_argument("--without-peer", action="store_true")
    parser.add_argument("--load-cores", default="", help="pin the load generator to these cores, as taskset takes them")
    arguments = parser.parse_args()
    if unknown := set(arguments.models) - set(BASKET):
        parser.error(f"no model {', '.join(sorted(unknown))} in the basket; there are {', '.join(BASKET)}")
    return arguments


def main() -> None:
    arguments = parsed()
    require_wrk()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # as on everybody's machine: of the peer, pip has compiled all
    work = arguments.work / "serving"
    work.mkdir(parents=True, exist_ok=True)
    with Yard(work / "yard", environments=work / "environments") as yard:
        bench = Bench(yard, work, arguments)
        rows = list(bench.rows())
        default = bench.defaults(rows[0]) if rows else {}
    if not rows:
        raise SystemExit("\n".join(bench.notes))
    where = f"pinned to cores {arguments.load_cores}" if arguments.load_cores else f"on the servers' cores ({os.cpu_count()} of them)"
    facts = [f"wrk with one thread {where} for {arguments.seconds} s a load, one worker each"]
    if not arguments.without_peer:
        facts.append(f"{PEER} {bench.venv('tables').version(PEER)}")
    print("\n\n".join((circumstances(*facts), *report(rows), report_defaults(rows[0].name, default), *bench.notes)))


if __name__ == "__main__":
    main()

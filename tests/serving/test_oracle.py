"""MLflow's own scoring server as the oracle: the same requests, right and wrong, of models of every kind of signature, get the same answers."""

from __future__ import annotations

import json
import os
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from checked_yard import environments
from grounds import NONE
from modelyard.drivers.builder.venv import VenvBuilder
from modelyard.ports.builder import Requirements

PACKAGES = ("mlflow-skinny>=3,<4", "scikit-learn>=1.5,<1.8", "pandas>=2,<3")
ONE_BY_ONE = {"unnamed", "unsigned", "nested", "anything", "texts", "fixed_shape", "answers"}
"""Models whose requests cannot be put together, by their signature or because nobody said that they may be."""
UNCOUNTED = {"linear", "classes", "two_outputs", "probabilities", "labels", "matrix"}
"""Models that do not count the calls of their predict."""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `oracle.py` found in the environment that the other tests of serving have built."""
    builder = VenvBuilder(environments[0], NONE)
    built = builder.build(builder.lock(Requirements(PACKAGES), print), print)
    spec = find_spec("modelyard_runtime")
    assert spec is not None and spec.origin is not None
    command = [
        built.python, Path(__file__).with_name("oracle.py"), tmp_path_factory.mktemp("oracle"), Path(spec.origin).parent, builder.serving_kit(built),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("way", ["alone", "together", "score"])
def test_each_request_is_answered_as_mlflows_own_server_answers_it(report: dict[str, Any], way: str) -> None:
    """`together`: all requests of a model at once, each of them behind a right one. `score`: Azure's forms of them, all at once."""
    different = {
        f"{model}: {case}": {"mlflow": expected, "yard": found}
        for model, ways in report.items()
        for case, expected, found in ways.get(way, {"different": []})["different"]
    }
    assert not different, f"{len(different)} differ\n" + "\n".join(f"{case}\n  {answers}" for case, answers in list(different.items())[:20])


def test_requests_of_every_signature_that_allows_it_did_travel_together(report: dict[str, Any]) -> None:
    assert {model for model, ways in report.items() if ways["batching"].startswith("one by one")} == ONE_BY_ONE
    for model in set(report) - ONE_BY_ONE - UNCOUNTED:
        good, calls = report[model]["together"]["good"], report[model]["together"]["calls"]
        assert calls < good * 0.8, f"{model}: {calls} calls for {good} answers"

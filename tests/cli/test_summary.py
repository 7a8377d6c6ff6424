"""What a person is shown of a resource, and of times, numbers and states."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from modelyard.cli import output, summary, values
from modelyard.cli.table import columns_of
from modelyard.spec.states import JobState, ProvisioningState, RolloutState, RunState, StepState

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
PIPELINE: dict[str, Any] = {
    "id": "azureml:p1", "name": "p1", "type": "pipeline", "tags": {}, "status": "Failed", "experiment_name": "demo",
    "creation_context": {"created_at": "2026-01-31T11:00:00.000Z", "created_by": "ada"},
    "start_time": "2026-01-31T11:00:00.000Z", "end_time": "2026-01-31T11:03:12.500Z",
    "error": {"code": "step_failed", "message": "step train failed", "hint": "yard job stream -n t1"},
    "inputs": {"rows": {"type": "uri_file", "path": "azureml:bank:1"}, "rate": {"type": "number", "value": 0.1}},
    "jobs": {"train": {"type": "command", "command": "python secret-of-the-definition.py"}},
    "steps": {
        "prep": {"status": "Completed", "job_name": "j1", "start_time": "2026-01-31T11:00:00.000Z", "end_time": "2026-01-31T11:00:02.000Z"},
        "train": {"status": "Failed", "job_name": "t1", "reason": "the command exited with code 3"},
        "later": {"status": "NotStarted"},
    },
}  # fmt: skip


def on_terminal(value: Any, *arguments: Any, width: int = 80, **environment: str) -> str:
    """What `output.show` prints on a terminal."""
    code = f"from modelyard.cli import output, summary; output.show({value!r}, {', '.join(map(repr, arguments)) or 'None, None'})"
    reader, terminal = os.openpty()
    keep = {name: text for name, text in os.environ.items() if name != "NO_COLOR"}
    environment = {**keep, "COLUMNS": str(width), "TERM": "xterm", **environment}
    subprocess.run([sys.executable, "-c", code], stdout=terminal, stderr=terminal, env=environment, check=True)
    os.close(terminal)
    text = os.read(reader, 1 << 16).decode()
    os.close(reader)
    return text


def test_a_job_begins_with_how_it_is_and_a_pipeline_leaves_its_definition_out() -> None:
    shown = {key: value for key, value in summary.of_job(PIPELINE).items() if value}
    assert list(shown)[:5] == ["name", "status", "reason", "created", "started"]
    assert shown["reason"] == "step train failed\nyard job stream -n t1" and "ran 3 min 12 s" in shown["ended"]
    assert "azureml:bank:1" in shown["inputs"] and "rate: 0.1" in shown["inputs"]
    assert [line.split()[:2] for line in shown["steps"].splitlines()] == [["prep", "Completed"], ["train", "Failed"], ["the", "command"], ["later", "NotStarted"]]  # fmt: skip
    assert "secret-of-the-definition" not in json.dumps(shown)


def test_a_sweep_tells_how_far_it_is_and_its_best() -> None:
    trials = [{"number": n, "status": status, "params": {"lr": 10.0**-n}, "metric": metric, "job_name": f"t{n}"}
              for n, (status, metric) in enumerate([("Completed", 1 / 3), ("Failed", None), ("Running", None)])]  # fmt: skip
    job = {"type": "sweep", "name": "s", "limits": {"max_total_trials": 20}, "objective": {"goal": "maximize", "primary_metric": "acc"},
           "trials": trials, "best": trials[0], "search_space": {"lr": {"type": "uniform", "min_value": 0, "max_value": 1}}}  # fmt: skip
    shown = summary.of_job(job)
    assert shown["progress"] == "2 of 20 trials done (1 failed), 1 running"
    assert shown["best"] == "acc 0.333333 in trial 0: lr=1"
    assert shown["searched"] == "lr=uniform(min_value 0, max_value 1)"


def test_in_a_pipe_a_job_is_whole_and_its_summary_is_asked_for_by_form(capsys: pytest.CaptureFixture[str]) -> None:
    output.show(PIPELINE, None, None, summary=summary.of_job)
    assert json.loads(capsys.readouterr().out) == PIPELINE
    output.show(PIPELINE, "table", None, summary=summary.of_job)
    assert capsys.readouterr().out.startswith("name        p1\nstatus      Failed\nreason      step train failed\n")


def test_other_resources_begin_with_their_state_too() -> None:
    document = {"id": "azureml:e", "creation_context": {"created_at": "2020-01-31T11:00:00.000Z", "created_by": "ada"}, "name": "e", "auth_mode": "key",
                "provisioning_state": "Succeeded"}  # fmt: skip
    shown = summary.of_any(document)
    assert list(shown) == ["name", "provisioning_state", "created", "auth_mode", "id"]
    assert shown["created"] == "2020-01-31 11:00:00 UTC by ada"


@pytest.mark.parametrize(
    ("back", "words"),
    [(0.2, "just now"), (45, "45 s ago"), (60, "1 min ago"), (3599, "59 min ago"), (7200, "2 h ago"), (86400 * 3, "3 d ago"),
     (86400 * 14, "2026-01-17"), (-90, "in 1 min")],
)  # fmt: skip
def test_ages(back: float, words: str) -> None:
    assert values.age(NOW - timedelta(seconds=back), NOW) == words


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.15, "0.15 s"), (9.96, "10 s"), (45.9, "45 s"), (192, "3 min 12 s"), (7200, "2 h"), (93_600, "1 d 2 h")]
)
def test_durations(seconds: float, words: str) -> None:
    assert values.exact_duration(seconds) == words


def test_numbers_have_six_digits_in_tables_and_all_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    output.show([{"x": 1 / 3, "in": {"y": 2 / 3}, "n": 12345678}], "table", None, ("x", "in", "n"))
    assert capsys.readouterr().out.splitlines()[1].split() == ["0.333333", "y:", "0.666667", "12345678"]
    output.show([{"x": 1 / 3}], "json", None)
    assert str(1 / 3) in capsys.readouterr().out


def test_on_a_terminal_times_are_ages_and_empty_columns_take_no_room(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"name": "a", "at": "2026-01-31T11:00:00.000Z", "none": None}, {"name": "b", "at": "2026-01-31T11:59:00.000Z", "none": ""}]
    read_along = columns_of(rows, ("name", "none", "at"), NOW)
    assert [column.title for column in read_along] == ["name", "at"] and read_along[1].cells == ["1 h ago", "1 min ago"]
    piped = columns_of(rows, ("name", "none", "at"))
    assert [column.title for column in piped] == ["name", "none", "at"] and piped[2].cells[0] == "2026-01-31 11:00:00"


def test_a_reference_is_no_emoji_and_stands_as_it_is() -> None:
    text = on_terminal([{"name": "azureml:bank:1", "status": ":smile: :heart:"}])
    assert "azureml:bank:1" in text and ":smile: :heart:" in text


def test_states_have_colors_on_a_terminal_alone_and_none_where_somebody_wants_none() -> None:
    rows = [{"name": "a", "status": "Failed"}, {"name": "b", "status": "Completed"}]
    colored = on_terminal(rows)
    assert "\x1b[31mFailed\x1b[0m" in colored and "\x1b[32mCompleted\x1b[0m" in colored
    assert "\x1b" not in on_terminal(rows, NO_COLOR="1") and "\x1b" not in on_terminal(rows, TERM="dumb")
    assert "\x1b[31mFailed" in on_terminal({"status": "Failed"})


def test_every_state_has_a_color() -> None:
    words = {*JobState, *StepState, *ProvisioningState, *RolloutState, *RunState}
    assert not [word for word in words if values.color_of(word) is None]


def test_a_comparison_that_has_no_room_side_by_side_is_shown_field_by_field(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"field": "tags.mlflow.runName", "a" * 30: "x", "b" * 30: "y"}, {"field": "metrics.acc", "a" * 30: 0.5, "b" * 30: 1 / 3}]
    monkeypatch.setattr(summary.table, "terminal_width", lambda: 60)
    assert list(summary.differences(rows)) == [
        "metrics.acc", f"  {'a' * 30}  0.5", f"  {'b' * 30}  0.333333", "tags.mlflow.runName", f"  {'a' * 30}  x", f"  {'b' * 30}  y",
    ]  # fmt: skip
    monkeypatch.setattr(summary.table, "terminal_width", lambda: 200)
    assert [line.split()[0] for line in summary.differences(rows)] == ["field", "metrics.acc", "tags.mlflow.runName"]

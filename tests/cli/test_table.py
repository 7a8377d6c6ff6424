"""Tables: whole columns, whole names."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from modelyard.cli import output, table

JOBS = [
    {"name": "quirky_yak_9f3k2m1x8q", "display_name": "train with the new features", "experiment": "churn", "context": {"at": "2026-01-31T12:00:00.000Z"}},
    {"name": "a-very-long-name-that-somebody-gave-by-hand", "display_name": "b", "experiment": "churn", "context": {"at": "2026-02-01T12:00:00.000Z"}},
]  # fmt: skip
NAMES = ("name", "display_name", "experiment", "context.at")


def printed(width: int, items: list[dict[str, object]] = JOBS) -> list[str]:
    fitted = table.fitting(table.columns_of(items, NAMES), width)
    return [table.titles(fitted), *table.rows(fitted)]


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 120, 200])
def test_no_name_is_broken_whatever_the_width(width: int) -> None:
    text = "\n".join(printed(width))
    assert all(str(job["name"]) in text for job in JOBS)
    assert width < 45 or all(len(line) <= width for line in text.splitlines())


def test_the_last_columns_give_way_whole() -> None:
    assert printed(200)[0].split() == ["name", "display_name", "experiment", "at"]
    assert printed(80)[0].split() == ["name", "display_name", "experiment"]
    assert printed(60)[0].split() == ["name"]
    assert "2026-01-31 12:00:00" in printed(200)[1]


def test_long_text_is_wrapped_between_words_when_a_column_needs_the_room() -> None:
    words = "the quick brown fox jumps over the lazy dog again and again until the evening"
    lines = printed(80, [{"name": "n", "display_name": words, "experiment": "e" * 30}])
    assert len(lines) > 2 and all(len(line) <= 80 for line in lines)
    assert " ".join(line[3:].replace("e" * 30, "") for line in lines[1:]).split() == words.split()


def test_wide_characters_take_two_cells() -> None:
    lines = printed(60, [{"name": "日本語", "display_name": "x"}, {"name": "plain", "display_name": "y"}])
    assert lines[1].index("x") + 3 == lines[2].index("y")


def test_in_a_pipe_every_value_stands_whole(capsys: pytest.CaptureFixture[str]) -> None:
    output.show([{**JOBS[0], "display_name": "x" * 500}], "table", None, NAMES)
    text = capsys.readouterr().out
    assert "x" * 500 in text and "2026-01-31 12:00:00" in text and len(text.splitlines()) == 2
    output.show({"uri": "azureml://" + "y" * 500, "empty": None}, "table", None)
    assert capsys.readouterr().out == "uri  azureml://" + "y" * 500 + "\n"


def test_on_a_terminal_of_80_columns_what_has_no_room_is_named() -> None:
    code = f"from modelyard.cli import output; output.show({json.dumps(JOBS)}, None, None, {NAMES!r})"
    reader, terminal = os.openpty()
    environment = {**os.environ, "COLUMNS": "80", "TERM": "xterm"}
    subprocess.run([sys.executable, "-c", code], stdout=terminal, stderr=terminal, env=environment, check=True)
    os.close(terminal)
    text = os.read(reader, 65536)
    os.close(reader)
    assert b"(no room for at; -o json shows all)" in text and b"by-hand" in text

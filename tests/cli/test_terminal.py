"""What others wrote does not steer a terminal, wherever it is printed; to files and programs it goes as it is."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.cli import output
from modelyard.core.errors import Invalid, Problem, Unavailable
from modelyard.core.home import Home
from modelyard.core.terminal import RESET, LogText, escaped_json, harmless
from modelyard.sdk.nouns.jobs import _Stdout

BAD = {
    "cursor": "\x1b[2J", "title": "\x1b]0;owned\x07", "clipboard": "\x1b]52;c;eA==\x1b\\", "8-bit": "\x9b2J", "backspace": "a\b\b",
    "bidi": "a\u202eb", "isolate": "\u2066x\u2069", "mark": "\u200f", "line": "\u2028", "tag": "\U000e0041", "return": "a\rb", "delete": "\x7f",
}  # fmt: skip


def acts(text: str) -> bool:
    """Whether something in it does more than be seen, but for the bold titles of tables."""
    plain = text.replace("\x1b[1m", "").replace("\x1b[0m", "")
    return any(
        (unicodedata.category(char) in ("Cc", "Zl", "Zp") and char not in "\n\t")
        or unicodedata.bidirectional(char) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
        or char in "\u200e\u200f\u061c"
        or 0xE0000 <= ord(char) <= 0xE007F
        for char in plain
    )


@pytest.mark.parametrize("what", BAD)
def test_what_acts_on_a_terminal_is_replaced_in_errors_tables_and_notes(
    what: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = BAD[what]
    assert not acts(harmless(bad)) and "\ufffd" in harmless(bad)
    assert not acts(str(Invalid(bad, hint=bad, problems=(Problem(bad, bad, bad),))))
    monkeypatch.setattr(output.sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    document: dict[str, Any] = {"name": bad, "tags": {bad: bad}, "list": [bad]}
    output.say(bad)
    for form in output.FORMS:
        output.show([document], form, None)
        output.show(document, form, None)
        output.show(bad, form, None)
    printed = capsys.readouterr()
    assert not acts(printed.out) and not acts(printed.err)


def test_json_keeps_the_value_and_other_forms_do_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    for bad in BAD.values():
        output.show({"x": bad}, "json", None)
        shown = capsys.readouterr().out
        assert json.loads(shown) == {"x": bad} and not acts(shown)
    output.show(["a\u202eb"], "tsv", None)
    assert capsys.readouterr().out == "a\u202eb\n"


@given(st.text())
def test_escaped_json_is_the_same_document(text: str) -> None:
    document = escaped_json(json.dumps([text], ensure_ascii=False))
    assert json.loads(document) == [text] and not acts(document)


def test_a_log_keeps_its_colors_and_progress_and_nothing_else() -> None:
    log = LogText()
    written = "\x1b[31mred\x1b[0m\x1b[1;38;5;9mloud 10%\r20%\t\x1b[2K\x1b]0;title\x07\x1b[?25l\u202e\n"
    shown = log.add(written) + log.end()
    assert shown == "\x1b[31mred\x1b[0m\x1b[1;38;5;9mloud 10%\r20%\t\ufffd[2K\ufffd]0;title\ufffd\ufffd[?25l\ufffd\n" + RESET


@given(st.lists(st.sampled_from(["\x1b", "[", "3", "1", "m", "x", ";", "\x1b[0m", "]", "\x9b", "\n"]), max_size=12), st.integers(0, 12))
def test_a_log_is_cleaned_the_same_however_it_is_cut(pieces: list[str], cut: int) -> None:
    whole, cut_up = LogText(), LogText()
    text, parts = "".join(pieces), ("".join(pieces[:cut]), "".join(pieces[cut:]))
    assert whole.add(text) + whole.end() == "".join(map(cut_up.add, parts)) + cut_up.end()


def test_the_sdk_prints_a_log_as_the_commands_do(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    as_it_is = _Stdout()
    as_it_is("\x1b[2J")
    as_it_is.end()
    assert capsys.readouterr().out == "\x1b[2J", "to a file"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    on_terminal = _Stdout()
    on_terminal("\x1b[")
    on_terminal("2J")
    on_terminal.end()
    assert capsys.readouterr().out == "\ufffd[2J"


# A home that cannot be written


def test_a_home_that_cannot_be_written_says_why_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    for root, reason in [(tmp_path / "file", "there is a file of this name"), (tmp_path / "file" / "home", "a part of the path is a file")]:
        with pytest.raises(Unavailable, match=reason):
            Home(root).prepare()

    def read_only(path: Path, mode: int) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "chmod", read_only)
    with pytest.raises(Unavailable) as refused:
        Home(tmp_path / "home").prepare()
    assert refused.value.code == "home_not_writable" and "mounted read-only" in refused.value.message and "YARD_HOME" in refused.value.hint


@pytest.mark.parametrize("words", [["up"], ["up", "--foreground"]])
def test_yard_up_explains_it_without_a_traceback(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "file").write_text("")
    environment = {**os.environ, "YARD_HOME": str(tmp_path / "file" / "home")}
    done = subprocess.run([str(Path(sys.executable).parent / "yard"), *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "a part of the path is a file" in done.stderr and "Traceback" not in done.stderr, done.stderr

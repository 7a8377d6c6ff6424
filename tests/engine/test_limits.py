"""What takes a time that grows faster than the text does: it is bounded, or written so that it does not."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.actor import Role
from modelyard.core.errors import Invalid
from modelyard.core.names import MAX_COMPARED, nearest, plain_name, reserved
from modelyard.drivers.executor.local.warm import plain_script
from modelyard.spec import expressions

PATTERNS = st.text(alphabet="ab/*", max_size=8)


@given(PATTERNS, st.text(alphabet="ABab/", max_size=10))
def test_an_action_is_matched_as_by_a_regular_expression(pattern: str, action: str) -> None:
    expected = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), action, re.IGNORECASE) is not None
    assert Role("r", (f"Microsoft.{pattern}",)).allows(f"Microsoft.{action}") == expected


@pytest.mark.parametrize("pattern", ["a*" * 100 + "c", "*a" * 127, "*" * 256])
def test_a_role_of_many_wildcards_is_compared_at_once(pattern: str) -> None:
    """By a regular expression this would not end."""
    assert Role("r", (pattern,)).covers(Role("s", ("a" * 256,))) == (pattern == "*" * 256 or pattern.startswith("*a"))


@pytest.mark.parametrize("text", ["${{" * 33_000, "${{" + " " * 100_000, "$[[" * 33_000, "$[[${{" * 15_000 + "]]", "${{a}} " * 14_000])
def test_a_text_of_braces_is_read_in_one_pass(text: str) -> None:
    try:
        assert len(expressions.resolve(text, lambda path: "x")) <= len(text)
    except Invalid as error:
        assert error.code == "invalid_expression" and len(error.message) < 400


def test_values_that_would_fill_the_memory_are_not_put_in() -> None:
    with pytest.raises(Invalid, match="more than 1,000,000 characters"):
        expressions.resolve("${{inputs.x}}" * 7000, lambda path: "y" * 1_000_000)


def test_nothing_long_is_compared_and_not_with_many() -> None:
    assert nearest("comand", ["command"]) == "; did you mean 'command'?"
    assert nearest("c" * (MAX_COMPARED + 1), ["c" * MAX_COMPARED]) == ""
    assert nearest("command", [*map(str, range(1000)), "comand"]) == ""


def test_a_long_command_is_no_plain_script() -> None:
    assert plain_script("python train.py --lr 1") == ["train.py", "--lr", "1"]
    assert plain_script("python train.py " + "'a' " * 2000) is None


@pytest.mark.parametrize(
    "name", ["system", "SYSTEM", "ｓｙｓｔｅｍ", "sys\u200btem", "ſystem", "s\u0301ystem", "ⓢystem", "Anonymous", " system "]
)
def test_a_name_that_looks_like_the_yards_own_is_reserved(name: str) -> None:
    assert reserved(name), plain_name(name)


@pytest.mark.parametrize("name", ["systems", "ecosystem", "system-1", "sam"])
def test_a_name_of_somebody_else_is_not(name: str) -> None:
    assert not reserved(name)

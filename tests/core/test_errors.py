"""Errors say by themselves what a loop may do about them."""

from __future__ import annotations

import sqlite3

import pytest
from sqlalchemy import exc

from modelyard.core.errors import Conflict, Invalid, Superseded
from modelyard.engine.http import STATUS
from modelyard.storage.database import translate


@pytest.mark.parametrize(
    ("text", "transient"),
    [("database or disk is full", True), ("database is locked", True), ("integer out of range", False)],
)
def test_a_fault_of_the_database_says_whether_it_passes(text: str, transient: bool) -> None:
    assert translate(exc.OperationalError("SELECT 1", {}, sqlite3.OperationalError(text))).transient is transient


def test_two_who_write_at_the_same_time_try_again_and_a_wrong_value_is_no_reason_to() -> None:
    raced = translate(exc.IntegrityError("INSERT", {}, sqlite3.IntegrityError("UNIQUE constraint failed")))
    assert (raced.code, raced.transient) == ("concurrent_change", True)
    assert not Invalid("no").transient


def test_a_superseded_write_is_answered_as_a_conflict() -> None:
    assert STATUS[Superseded("job j has moved on").kind] == STATUS[Conflict("no").kind] == 409

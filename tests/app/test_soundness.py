"""A database that was damaged is found, whatever the mark of a clean stop says."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from pathlib import Path

import pytest

from modelyard.app import soundness
from modelyard.app.soundness import DatabaseCheck, check_at_start, read_mark, write_mark
from modelyard.core.errors import Unavailable
from modelyard.core.home import Home
from modelyard.storage.migrate import migrate
from modelyard.storage.open import open_database
from modelyard.testing.yard import InProcessYard


@pytest.fixture
def stopped(tmp_path: Path) -> Home:
    """A home after a clean stop."""
    home = Home(tmp_path / "home")
    home.prepare()
    db = open_database(f"sqlite:///{home.database}")
    migrate(db, home.backups)
    for number in range(200):
        db.write_now(lambda unit, number=number: unit.record("test.made", f"thing{number}", text="x" * 100))  # type: ignore[misc]
    db.close()
    write_mark(home)
    return home


def change(home: Home, at: int, data: bytes) -> None:
    with home.database.open("r+b") as file:
        file.seek(at)
        file.write(data)


def page_of(home: Home, table: str) -> int:
    with sqlite3.connect(home.database) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
    connection.close()
    return int(page - 1) * 4096


def test_a_clean_stop_is_believed(stopped: Home) -> None:
    assert read_mark(stopped) is not None and check_at_start(stopped) is True
    reader = open_database(f"sqlite:///{stopped.database}")  # as `yard backup` does
    reader.read_now(lambda unit: unit.ping())
    reader.close()
    assert check_at_start(stopped) is True, "whoever only looks changes nothing"


@pytest.mark.parametrize("mark", ["whole", "gone", "empty", "torn"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda home: change(home, 0, b"no database"),
        lambda home: change(home, 16, b"\x10\x01"),
        lambda home: os.truncate(home.database, home.database.stat().st_size - 4096),
        lambda home: os.truncate(home.database, home.database.stat().st_size + 4096),
        lambda home: os.truncate(home.database, 50),
        lambda home: change(home, page_of(home, "tokens"), b"\xff" * 2000),
        lambda home: change(home, page_of(home, "events") + 8, b"\xff" * 40),
    ],
    ids=["magic", "page size", "cut", "longer", "stump", "a control table", "events"],
)  # fmt: skip
def test_damage_is_refused_whatever_the_mark_says(stopped: Home, damage: object, mark: str) -> None:
    if mark == "gone":
        stopped.clean_mark.unlink()
    elif mark != "whole":
        stopped.clean_mark.write_bytes(b"" if mark == "empty" else stopped.clean_mark.read_bytes()[:-3])
    damage(stopped)  # type: ignore[operator]
    with pytest.raises(Unavailable) as error:
        check_at_start(stopped)
    assert error.value.code == "database_damaged" and "yard restore" in error.value.hint


def test_one_changed_letter_is_noticed_though_the_file_is_sound(stopped: Home) -> None:
    data = stopped.database.read_bytes()
    change(stopped, data.index(b"thing77"), b"thang")
    assert check_at_start(stopped) is False


def test_of_a_large_database_the_rest_is_checked_while_it_is_served(stopped: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soundness, "DIGESTED", 0)
    monkeypatch.setattr(soundness, "SMALL_TABLE", 100)
    write_mark(stopped)
    change(stopped, page_of(stopped, "events") + 8, b"\xff" * 40)
    assert check_at_start(stopped) is True, "events is no small table here"
    change(stopped, page_of(stopped, "tokens"), b"\xff" * 2000)
    with pytest.raises(Unavailable):
        check_at_start(stopped)

    yard = InProcessYard(tmp_path / "other")
    try:
        asyncio.run(DatabaseCheck(yard.yard).turn())
        assert yard.yard.alarms.counts() == {}
        yard.yard.home = stopped
        yard.run(DatabaseCheck(yard.yard).turn())
        assert yard.call("GET", "/readyz", expect=200).json()["alarms"] == {"database_damaged": 1}
        events = yard.call("GET", "/api/v1/workspaces/default/audit", expect=200).json()["value"]
        assert all(event["event"] != "database.damaged" for event in events), "it concerns no workspace"
    finally:
        yard.close()


def test_a_database_that_is_damaged_while_it_is_served_is_called_so(tmp_path: Path) -> None:
    db = open_database(f"sqlite:///{tmp_path / 'yard.db'}")
    migrate(db, tmp_path)
    db.close()
    with (tmp_path / "yard.db").open("r+b") as file:
        size = file.seek(0, 2)
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    db = open_database(f"sqlite:///{tmp_path / 'yard.db'}")
    with pytest.raises(Unavailable) as error:
        db.write_now(lambda unit: unit.record("test.made", "x"))
    assert error.value.code == "database_damaged"
    db.close()

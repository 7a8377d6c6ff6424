"""Keys change while everything that they opened stays open; a backup from before holds its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from checked_yard import YardUnderTest
from modelyard.app.maintenance import rotate
from modelyard.core.actor import SYSTEM
from modelyard.core.errors import Conflict, Unavailable
from modelyard.core.home import Home
from modelyard.drivers.vault.local import LocalVault, MasterKeyRotation
from modelyard.settings import Settings
from modelyard.storage.database import Database
from modelyard.storage.open import open_database
from modelyard.tenancy.secrets import service as secrets
from modelyard.testing.waiting import wait_for
from modelyard.testing.yard import InProcessYard

COUNT = 5


class Killed(BaseException):
    pass


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with some secrets in two workspaces."""
    yard = InProcessYard(tmp_path / "home")
    vault = LocalVault(yard.home.master_key)
    for number in range(COUNT):
        yard.write(lambda unit, n=number: secrets.put(unit, vault, f"s{n}", f"value {n}"), workspace=f"w{number % 2}")  # type: ignore[misc]
    yard.close()
    return yard.home


def test_secrets_of_all_workspaces_are_sealed_anew_on_both_databases(db: Database, tmp_path: Path) -> None:
    vault = LocalVault(tmp_path / "master.key")
    for number in range(COUNT):
        db.write_now(lambda unit, n=number: secrets.put(unit, vault, f"s{n}", f"value {n}"), SYSTEM, f"w{number % 2}")  # type: ignore[misc]
    rotation = MasterKeyRotation(tmp_path / "master.key")
    position: tuple[str, str] | None = ("", "")
    while position is not None:
        position = db.write_now(lambda unit, after=position: secrets.reseal(unit, rotation.resealed, after, 2))  # type: ignore[misc]
    rotation.finish()
    assert values(db, LocalVault(tmp_path / "master.key")) == ALL


@pytest.fixture
def home_db(home: Home) -> Iterator[Database]:
    made = open_database(f"sqlite:///{home.database}")
    yield made
    made.close()


def values(db: Database, vault: LocalVault) -> list[str]:
    return [db.read_now(lambda unit, n=n: secrets.get(unit, vault, f"s{n}"), SYSTEM, f"w{n % 2}") for n in range(COUNT)]  # type: ignore[misc]


ALL = [f"value {number}" for number in range(COUNT)]


@pytest.mark.parametrize("killed_after", range(COUNT + 2))
def test_a_rotation_of_the_master_key_goes_on_after_a_kill_at_any_row(
    home: Home, home_db: Database, killed_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, digest = home.master_key.read_bytes(), LocalVault(home.master_key).digest("token")
    monkeypatch.setattr(rotate, "BATCH", 1)
    left = [killed_after]

    class Mortal(rotate.MasterKeyRotation):
        def resealed(self, sealed: bytes, bound_to: str) -> bytes | None:
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return super().resealed(sealed, bound_to)

        def finish(self) -> None:
            if killed_after == COUNT:
                raise Killed
            super().finish()

    with monkeypatch.context() as patched:
        patched.setattr(rotate, "MasterKeyRotation", Mortal)
        if killed_after <= COUNT:
            with pytest.raises(Killed):
                rotate.rotate_master(home, Settings())
            assert home.master_key.read_bytes() == old
        else:
            rotate.rotate_master(home, Settings())
    between = LocalVault(home.master_key)
    assert values(home_db, between) == ALL and between.digest("token") == digest
    home_db.write_now(lambda unit: secrets.put(unit, between, "s0", "value 0"), SYSTEM, "w0")  # a server that ran meanwhile
    rotate.rotate_master(home, Settings())
    after = LocalVault(home.master_key)
    assert values(home_db, after) == ALL and after.digest("token") == digest
    assert home.master_key.read_bytes() != old and not home.master_key.with_name("master.key.next").exists()
    (home.root / "old.key").write_bytes(old)
    with pytest.raises(Unavailable):
        values(home_db, LocalVault(home.root / "old.key"))
    assert {path.stat().st_mode & 0o777 for path in (home.master_key, home.control / "token.pepper")} == {0o600}


def test_a_secret_that_no_key_opens_stops_a_rotation_and_nothing_is_lost(home: Home, home_db: Database) -> None:
    home_db.write_now(lambda unit: unit.connection.exec_driver_sql("UPDATE secrets SET sealed = x'00' WHERE name = 's3'"))
    with pytest.raises(Unavailable, match="s3"):
        rotate.rotate_master(home, Settings())
    vault = LocalVault(home.master_key)
    assert [secret for n, secret in enumerate(ALL) if n != 3] == [
        home_db.read_now(lambda unit, n=n: secrets.get(unit, vault, f"s{n}"), SYSTEM, f"w{n % 2}")  # type: ignore[misc]
        for n in range(COUNT) if n != 3
    ]  # fmt: skip


def test_a_backup_is_not_taken_across_a_change_of_keys(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from modelyard.app.maintenance import backup

    copy = backup.copy_sqlite

    def rotated_meanwhile(source: Path, target: Path) -> None:
        copy(source, target)
        rotate.rotate_master(home, Settings())

    monkeypatch.setattr(backup, "copy_sqlite", rotated_meanwhile)
    with pytest.raises(Conflict, match="key"):
        backup.backup(home, Settings(), tmp_path / "b.tar")
    monkeypatch.undo()
    assert backup.backup(home, Settings(), tmp_path / "b.tar") == 0


def test_keys_of_a_yard_are_rotated_and_an_older_backup_is_restored(own_yard: YardUnderTest, tmp_path: Path) -> None:
    own_yard.run("online-endpoint", "create", "-n", "kept")
    keys: Any = own_yard.json("online-endpoint", "get-credentials", "-n", "kept")
    own_yard.run("backup", str(tmp_path / "before.tar"))
    assert own_yard.run("key", "rotate", "master", ok=False).returncode == 5, "the yard runs"
    own_yard.run("key", "rotate", "audit")
    own_yard.run("down")
    own_yard.run("key", "rotate", "master")
    own_yard.up()
    assert own_yard.json("online-endpoint", "get-credentials", "-n", "kept") == keys, "the token is accepted, and the secret opens"
    wait_for(lambda: len({part["key"] for part in own_yard.json("audit", "verify")["parts"]}) == 2, 60, "rows by the new key")
    own_yard.run("backup", str(tmp_path / "after.tar"))
    own_yard.down()
    for name in ("before", "after"):
        other = YardUnderTest(tmp_path / name)
        other.run("restore", str(tmp_path / f"{name}.tar"))
        other.up()
        try:
            assert other.json("online-endpoint", "get-credentials", "-n", "kept") == keys
            assert other.json("audit", "verify")["ok"]
        finally:
            other.down()

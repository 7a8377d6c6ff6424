"""The database on both engines: durability of groups, isolation of units, order of events, leases, migrations."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from modelyard.core.actor import SYSTEM
from modelyard.core.clock import ExpiryClock
from modelyard.core.errors import Conflict, NotFound, Unavailable, YardError
from modelyard.storage import idempotency, leases
from modelyard.storage.database import Database
from modelyard.storage.migrate import migrate
from modelyard.storage.open import open_database
from modelyard.storage.tables import events, metadata
from modelyard.storage.unit import Unit
from modelyard.tenancy.audit import service as audit
from modelyard.tenancy.audit.model import Keys, Ledger
from modelyard.testing.waiting import wait_for


def count(unit: Unit) -> int:
    return int(unit.value(sa.select(sa.func.count()).select_from(events)))


def test_a_failed_unit_leaves_nothing_and_harms_no_neighbour(db: Database) -> None:
    def good(unit: Unit) -> None:
        unit.record("test.good", "x")

    def bad(unit: Unit) -> None:
        unit.record("test.bad", "x")
        raise NotFound("no")

    futures = [db.submit(bad if index % 3 == 0 else good, SYSTEM, "w") for index in range(30)]
    failed = [future.exception() for future in futures if future.exception()]
    assert len(failed) == 10 and all(isinstance(error, NotFound) for error in failed)
    topics = db.read_now(lambda unit: [row.topic for row in unit.rows(sa.select(events.c.topic))])
    assert topics == ["test.good"] * 20


def test_units_do_not_nest(db: Database) -> None:
    with pytest.raises(RuntimeError, match="open on this thread"):
        db.write_now(lambda unit: db.read_now(count))
    with pytest.raises(RuntimeError, match="open on this thread"):
        db.read_now(lambda unit: db.write_now(count))


def test_events_are_numbered_in_the_order_of_commit(db: Database) -> None:
    barrier = threading.Barrier(8)

    def write() -> None:
        barrier.wait()
        for _ in range(10):
            db.write_now(lambda unit: unit.record("test.many", "x"))

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = db.read_now(lambda unit: [row.seq for row in unit.rows(sa.select(events.c.seq).order_by(events.c.seq))])
    assert len(numbers) == 80 and len(set(numbers)) == 80


def test_the_audit_log_shows_every_alteration(db: Database) -> None:
    for index in range(5):
        db.write_now(lambda unit, n=index: unit.record("test.made", f"thing{n}", value=n))
    ledger = Ledger(Keys.new())
    sealed, ledger.head = db.write_now(lambda unit: audit.seal(unit, ledger))
    assert sealed == 5 and db.read_now(lambda unit: audit.verify(unit, ledger))["ok"]
    for statement in (sa.update(events).where(events.c.seq == 2).values(actor="somebody"), sa.delete(events)):
        with pytest.raises(YardError):
            db.write_now(lambda unit, s=statement: unit.run(s))
    if db.dialect == "sqlite":
        db.write_now(lambda unit: unit.connection.exec_driver_sql("DROP TRIGGER events_fixed"))
        db.write_now(lambda unit: unit.run(sa.update(events).where(events.c.seq == 3).values(actor="somebody")))
        result = db.read_now(lambda unit: audit.verify(unit, ledger))
        assert (result["ok"], result["checked"], result["first_bad_row"]) == (False, 2, 3)


def test_a_lease_passes_with_a_growing_token_and_the_old_holder_is_refused(tmp_path: Path) -> None:
    time = [1000]
    made: Any = open_database(f"sqlite:///{tmp_path / 'yard.db'}", clock=lambda: time[0])
    migrate(made, tmp_path / "backups")
    assert made.write_now(lambda unit: leases.acquire(unit, "l", "a", 500)) == 1
    assert made.write_now(lambda unit: leases.acquire(unit, "l", "b", 500)) is None
    time[0] = 2000
    assert made.write_now(lambda unit: leases.acquire(unit, "l", "b", 500)) == 2
    with pytest.raises(Conflict):
        made.write_now(lambda unit: leases.check(unit, "l", 1))
    made.write_now(lambda unit: leases.check(unit, "l", 2))
    made.close()


def test_a_lease_that_a_clock_ahead_has_given_is_not_held_for_years(tmp_path: Path) -> None:
    time = [2_000_000]
    made: Any = open_database(f"sqlite:///{tmp_path / 'yard.db'}", clock=lambda: time[0])
    migrate(made, tmp_path / "backups")
    assert made.write_now(lambda unit: leases.acquire(unit, "l", "a", 500)) == 1
    time[0] = 1_000_000
    assert made.write_now(lambda unit: leases.acquire(unit, "l", "b", 500)) == 2
    made.close()


def test_leases_go_by_the_clock_that_all_servers_of_a_database_share(db: Database) -> None:
    if db.dialect == "sqlite":
        pytest.skip("the clock of SQLite is that of its one server")
    assert db.write_now(lambda unit: leases.acquire(unit, "l", "a", 60_000)) == 1
    db.clock = lambda: 3_000_000_000_000
    assert db.write_now(lambda unit: leases.acquire(unit, "l", "b", 60_000)) is None


def test_the_time_of_expiries_never_goes_back_and_passes_while_the_clock_is_behind() -> None:
    elapsed = [0]
    clock = ExpiryClock(lambda: elapsed[0])
    assert [clock.at(1000), clock.at(500)] == [1000, 1000]
    elapsed[0] = 300
    assert clock.at(600) == 1300
    assert clock.at(9000) == 9000, "and it follows the clock"
    clock.raise_to(20_000)
    assert clock.at(9000) == 20_000


def test_an_idempotency_key_repeats_its_answer_and_refuses_another_request(db: Database) -> None:
    db.write_now(lambda unit: idempotency.remember(unit, "k", "digest", {"made": 1}))
    assert db.write_now(lambda unit: idempotency.earlier_answer(unit, "k", "digest")) == {"made": 1}
    with pytest.raises(Conflict):
        db.write_now(lambda unit: idempotency.earlier_answer(unit, "k", "other"))


def test_the_migrated_schema_is_the_one_the_tables_describe(db: Any) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with db.write_engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": False})
        assert compare_metadata(context, metadata) == []


KILLER = """
import os, signal, sys
import sqlalchemy as sa
from sqlalchemy import event
from pathlib import Path
import modelyard.app.features
from modelyard.storage.open import open_database
from modelyard.storage.migrate import migrate
db = open_database({url!r})
left = [{after}]
@event.listens_for(db.write_engine, "before_cursor_execute")
def _(connection, cursor, statement, *rest):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
migrate(db, Path({backups!r}))
"""


def test_a_migration_survives_a_kill_at_any_statement(tmp_path: Path) -> None:
    for after in (1, 4, 9, 17, 30, 41, 60):
        url = f"sqlite:///{tmp_path / f'{after}.db'}"
        code = KILLER.format(url=url, after=after, backups=str(tmp_path))
        killed = subprocess.run([sys.executable, "-c", code], capture_output=True)
        assert killed.returncode in (-signal.SIGKILL, 0), killed.stderr.decode()
        made: Any = open_database(url)
        migrate(made, tmp_path / "backups")
        made.write_now(lambda unit: unit.record("test.after", "kill"))
        assert made.read_now(count) == 1
        made.close()


def test_a_database_from_a_newer_program_is_refused_with_the_way_back(tmp_path: Path) -> None:
    made: Any = open_database(f"sqlite:///{tmp_path / 'yard.db'}")
    migrate(made, tmp_path / "backups")
    made.write_now(lambda unit: unit.connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Unavailable, match="newer than this program"):
        migrate(made, tmp_path / "backups")
    made.close()


WRITER = """
import os, sys
import modelyard.app.features
from pathlib import Path
from modelyard.storage.open import open_database
from modelyard.storage.migrate import migrate
db = open_database({url!r}); migrate(db, Path({backups!r}))
import threading
def write(n):
    for i in range(100000):
        db.write_now(lambda unit: unit.record("test.acknowledged", f"{{n}}-{{i}}"))
        os.write(1, f"{{n}}-{{i}}\\n".encode())
for n in range(4): threading.Thread(target=write, args=(n,), daemon=True).start()
import time; time.sleep(60)
"""


def test_what_was_acknowledged_before_a_kill_is_there_after_it(tmp_path: Path) -> None:
    database = tmp_path / "yard.db"
    code = WRITER.format(url=f"sqlite:///{database}", backups=str(tmp_path))
    ledger = tmp_path / "ledger"
    with ledger.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=out)
        wait_for(lambda: ledger.stat().st_size > 2000, 30, "some acknowledged writes")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    acknowledged = set(ledger.read_text().splitlines()[:-1])
    with sqlite3.connect(database) as connection:
        kept = {row[0] for row in connection.execute("SELECT subject FROM events WHERE topic = 'test.acknowledged'")}
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    assert acknowledged and acknowledged <= kept

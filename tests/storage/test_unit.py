"""The verbs of a unit, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from modelyard.core.errors import Conflict
from modelyard.storage.database import Database
from modelyard.storage.statements import Statement, among, param
from modelyard.storage.tables import Bytewise, Json
from modelyard.storage.unit import Unit

samples = sa.Table(
    "samples",
    sa.MetaData(),
    sa.Column("run", sa.BigInteger, primary_key=True),
    sa.Column("key", Bytewise, primary_key=True),
    sa.Column("order", sa.Double),
    sa.Column("document", Json),
    sa.Column("valid", sa.Boolean),
)
_ALL = Statement(sa.select(samples).order_by(samples.c.run, samples.c.key))
ROWS = [
    {"run": 1, "key": "a", "order": 0.1, "document": {"é": [1, None, True]}, "valid": True},
    {"run": 1, "key": "b % ? 'x'", "order": -1.7976931348623157e308, "document": [], "valid": False},
    {"run": 2, "key": "c", "order": None, "document": None, "valid": None},
]


@pytest.fixture
def unit(db: Database) -> Iterator[Unit]:
    """A unit in which the table exists."""
    from modelyard.core.actor import SYSTEM

    with db.write_engine.connect() as connection, connection.begin():
        samples.create(connection)
        yield Unit(connection, SYSTEM, "default", 0)


def documents(unit: Unit) -> list[dict[str, Any]]:
    return [row._asdict() for row in unit.rows(_ALL)]


@pytest.mark.parametrize("at_once", [True, False], ids=["together", "one by one"])
def test_what_is_written_is_read_again(unit: Unit, at_once: bool) -> None:
    """Documents, booleans, extremes and nothing at all; columns whose names are words of SQL."""
    assert sum(unit.insert(samples, *batch) for batch in ([ROWS] if at_once else [[row] for row in ROWS])) == 3
    assert documents(unit) == ROWS
    assert [type(row["valid"]) for row in documents(unit)[:2]] == [bool, bool]


def test_a_plain_core_query_reads_the_same_rows_as_a_statement(unit: Unit) -> None:
    unit.insert(samples, *ROWS)
    query = sa.select(samples).order_by(samples.c.run, samples.c.key)
    assert [row._asdict() for row in unit.rows(query)] == documents(unit)
    assert unit.row(query.where(samples.c.run == 2)).key == "c" == unit.row(query.where(samples.c.run == param("run")), run=2).key
    assert unit.row(query.where(samples.c.run == 9)) is None is unit.value(query.where(samples.c.run == 9))
    assert unit.value(sa.select(sa.func.count()).where(among(samples.c.key, "keys")), keys=["a", "c", "z"]) == 2


def test_a_query_put_together_per_call_does_not_keep_the_values_of_the_call_before(unit: Unit) -> None:
    unit.insert(samples, *ROWS)
    for key in ("a", "c", "a"):
        assert unit.rows(sa.select(samples.c.key).where(samples.c.key == key)) == [(key,)]
        assert unit.rows(sa.select(samples.c.key).where(samples.c.key.in_([key, "c"])).limit(1).order_by(samples.c.key)) == [(key,)]


def test_a_row_whose_key_is_taken_is_refused_kept_or_overwritten(unit: Unit) -> None:
    unit.insert(samples, ROWS[0])
    other = {**ROWS[0], "order": 5.0}
    assert unit.insert(samples, other, keep_existing=True) == 0
    assert documents(unit) == [ROWS[0]]
    unit.upsert(samples, other)
    assert documents(unit) == [other]


def test_a_key_that_is_taken_is_a_conflict(db: Database) -> None:
    from modelyard.storage.tables import leases

    lease = {"name": "l", "owner": "a", "token": 1, "expires_ms": 0}
    db.write_now(lambda unit: unit.insert(leases, lease))
    with pytest.raises(Conflict):
        db.write_now(lambda unit: unit.insert(leases, lease))
    with pytest.raises(Conflict):
        db.write_now(lambda unit: unit.insert(leases, {**lease, "name": "m"}, lease))
    assert db.read_now(lambda unit: [row.name for row in unit.rows(sa.select(leases.c.name))]) == ["l"]


def test_a_row_is_overwritten_when_the_condition_holds(unit: Unit) -> None:
    def greater(old: Any, new: Any) -> sa.ColumnElement[bool]:
        return new.order > old.order

    for order, kept in ((3.0, 3.0), (2.0, 3.0), (4.0, 4.0)):
        unit.upsert(samples, {**ROWS[0], "order": order}, when=greater)
        assert unit.value(sa.select(samples.c.order)) == kept


@pytest.mark.parametrize("rows", [2, 63, 64, 65, 200])
def test_any_number_of_rows_is_written(unit: Unit, rows: int) -> None:
    tuples = [(run, "k", float(run), None, run % 2 == 0) for run in range(rows)]
    assert unit.insert(samples, *tuples, keep_existing=True) == rows
    assert unit.insert(samples, *tuples, (rows, "k", 0.0, None, None), keep_existing=True) == 1
    assert [(row.run, row.order) for row in unit.rows(_ALL)][:rows] == [(run, float(run)) for run in range(rows)]


def test_of_several_rows_with_one_key_the_last_counts(unit: Unit) -> None:
    unit.upsert(samples, *({**ROWS[0], "order": float(index)} for index in range(5)), ROWS[1])
    assert [row.order for row in unit.rows(_ALL)] == [4.0, ROWS[1]["order"]]


def test_rows_of_one_insert_have_the_same_columns(unit: Unit) -> None:
    with pytest.raises(ValueError, match="do not all have the same columns"):
        unit.insert(samples, ROWS[0], {"run": 3, "key": "d"})


def test_nothing_is_written_for_no_rows(unit: Unit) -> None:
    assert unit.insert(samples) == 0
    unit.upsert(samples)
    assert documents(unit) == []


def test_an_update_says_how_many_rows_it_changed(unit: Unit) -> None:
    unit.insert(samples, *ROWS)
    change = Statement(sa.update(samples).where(samples.c.run == param("of")).values(document=param("document", Json())))
    assert unit.run(change, of=1, document={"a": 1}) == 2
    assert unit.run(change, of=9, document=None) == 0
    assert unit.run(sa.delete(samples).where(samples.c.run == 1)) == 2
    assert [row.document for row in unit.rows(_ALL)] == [None]


def test_thousands_of_rows_are_read_whole(unit: Unit) -> None:
    unit.insert(samples, *((run, "k", None, None, None) for run in range(2500)))
    query = Statement(sa.select(samples.c.run, samples.c.key).order_by(samples.c.run), plain=True)
    assert unit.rows(query) == [(run, "k") for run in range(2500)]

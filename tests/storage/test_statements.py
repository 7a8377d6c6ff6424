"""What SQL a statement becomes on each database: pure, no database is opened."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from modelyard.storage.statements import MAX_ROWS, Statement, among, insert_of, insert_of_documents, param, row_counts
from modelyard.storage.tables import Json

tables = sa.MetaData()
samples = sa.Table(
    "samples",
    tables,
    sa.Column("run", sa.BigInteger, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Double),
    sa.Column("document", Json),
    sa.Column("valid", sa.Boolean),
)
members = sa.Table("members", tables, sa.Column("a", sa.Text, primary_key=True), sa.Column("b", sa.Text, primary_key=True))


def flat(text: str) -> str:
    return " ".join(text.split())


def test_an_insert_names_its_columns_in_the_order_of_the_table() -> None:
    compiled = insert_of(samples, ("value", "run", "key"), "refuse", "sqlite")
    assert flat(compiled.text) == 'INSERT INTO samples (run, "key", value) VALUES (?, ?, ?)'
    assert compiled.parameters == ("run", "key", "value")
    postgres = insert_of(samples, ("value", "run", "key"), "refuse", "postgresql")
    assert flat(postgres.text) == "INSERT INTO samples (run, key, value) VALUES (%s::BIGINT, %s::VARCHAR, %s)"
    assert postgres.parameters == compiled.parameters


def test_an_insert_of_several_rows_repeats_the_row() -> None:
    text = flat(insert_of(members, None, "keep", "sqlite", 3).text)
    assert text == "INSERT INTO members (a, b) VALUES (?, ?), (?, ?), (?, ?) ON CONFLICT DO NOTHING"


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_what_becomes_of_an_existing_row_is_part_of_the_insert(dialect: str) -> None:
    columns = ("run", "key", "value")
    quoted = '"key"' if dialect == "sqlite" else "key"
    overwritten = f"ON CONFLICT (run, {quoted}) DO UPDATE SET value = excluded.value"
    assert flat(insert_of(samples, columns, "keep", dialect).text).endswith("ON CONFLICT DO NOTHING")
    assert flat(insert_of(samples, columns, "overwrite", dialect).text).endswith(overwritten)
    greater = insert_of(samples, columns, lambda old, new: new.value > old.value, dialect)
    assert flat(greater.text).endswith(f"{overwritten} WHERE excluded.value > samples.value")


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_a_column_is_cleared_by_a_statement_that_says_so(dialect: str) -> None:
    compiled = Statement(sa.update(samples).where(samples.c.key == param("key")).values(value=None)).compiled(dialect)
    assert compiled.arguments({"key": "x"}) == [None, "x"]
    with pytest.raises(KeyError, match="key"):
        compiled.arguments({})


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_a_row_that_is_all_key_has_nothing_to_overwrite(dialect: str) -> None:
    assert insert_of(members, None, "overwrite", dialect).text.endswith("ON CONFLICT DO NOTHING")


def test_postgresql_takes_any_number_of_rows_as_one_document() -> None:
    compiled = insert_of_documents(samples, ("run", "key", "value", "valid"), "overwrite")
    assert flat(compiled.text) == (
        "INSERT INTO samples (run, key, value, valid) SELECT sent.run, sent.key, sent.value, sent.valid "
        "FROM json_to_recordset(CAST(%s::VARCHAR AS JSON)) AS sent(run BIGINT, key TEXT, value DOUBLE PRECISION, valid BOOLEAN) "
        "ON CONFLICT (run, key) DO UPDATE SET value = excluded.value, valid = excluded.valid"
    )
    assert len(compiled.parameters) == 1


@pytest.mark.parametrize("rows", [1, 2, 37, MAX_ROWS, 1000])
def test_few_sizes_of_insert_serve_every_number_of_rows(rows: int) -> None:
    counts = list(row_counts(rows))
    assert sum(counts) == rows and set(counts) <= {1, 2, 4, 8, 16, 32, 64}
    assert sorted(counts, reverse=True) == counts


def test_among_is_one_statement_for_any_number_of_values() -> None:
    statement = Statement(sa.select(samples.c.run).where(among(samples.c.run, "runs")))
    sqlite, postgres = statement.compiled("sqlite"), statement.compiled("postgresql")
    assert flat(sqlite.text).endswith("WHERE samples.run IN (SELECT value FROM json_each(?))")
    assert flat(postgres.text).endswith("WHERE samples.run = ANY(%s::BIGINT[])")
    assert sqlite.arguments({"runs": (1, 2)}) == ["[1,2]"]
    assert postgres.arguments({"runs": (1, 2)}) == [[1, 2]]


def test_a_statement_is_compiled_once_for_each_database() -> None:
    statement = Statement(sa.select(samples).where(samples.c.key == param("key")))
    assert statement.compiled("sqlite") is statement.compiled("sqlite")
    assert statement.compiled("sqlite").text != statement.compiled("postgresql").text


def test_values_that_a_statement_holds_itself_are_passed_with_the_others() -> None:
    statement = Statement(sa.select(samples.c.run).where(samples.c.key.in_(["a", "b"]), samples.c.run > param("run")))
    assert statement.compiled("sqlite").arguments({"run": 7}) == ["a", "b", 7]


def test_rows_are_decoded_only_where_a_column_needs_it() -> None:
    row = (1, "k", 0.5, '{"a": [1]}', 1)
    columns = sa.select(samples)
    sqlite = Statement(columns).compiled("sqlite").decode([row])[0]
    assert (sqlite.run, sqlite.key, sqlite.value, sqlite.document, sqlite.valid) == (1, "k", 0.5, {"a": [1]}, True)
    assert sqlite.valid is True
    empty = Statement(columns).compiled("postgresql").decode([(1, "k", None, None, None)])[0]
    assert tuple(empty) == (1, "k", None, None, None)
    plain = Statement(sa.select(samples.c.run, samples.c.key), plain=True).compiled("sqlite").decode([(1, "k")])
    assert plain == [(1, "k")] and type(plain[0]) is tuple


def test_a_value_that_is_missing_is_an_error_and_not_a_null() -> None:
    with pytest.raises(KeyError, match="key"):
        Statement(sa.select(samples).where(samples.c.key == param("key"))).compiled("sqlite").arguments({})

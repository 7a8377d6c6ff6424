r"""MLflow's filters: what they say, what they mean on both databases against an oracle in Python, and that no text becomes SQL.

A comparison with what a run lacks is false, whatever the operator, but for IS NULL. LIKE tells case and ILIKE does not (of letters
beyond ASCII, SQLite knows no case). `%` and `_` are wildcards, a backslash is a character. In quotes the mark is written twice or as `\'`, so that
a backslash before a mark cannot be written, nor one at the end: `'C:\'` is refused.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelyard.core.errors import Invalid
from modelyard.storage import filters
from modelyard.storage.database import Database
from modelyard.storage.filters import Condition, Order, parse_filter, parse_order
from modelyard.storage.unit import Unit
from modelyard.work.tracking import service
from modelyard.work.tracking.model import Metric

# What a filter says


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("metrics.rmse < 1", [Condition("metrics", "rmse", "<", 1)]),
        ("metrics.rmse<=.5", [Condition("metrics", "rmse", "<=", 0.5)]),
        ("METRICS.Rmse >= -1.5e-3", [Condition("metrics", "Rmse", ">=", -0.0015)]),
        ("metrics.a/b-c.d_e != +3.", [Condition("metrics", "a/b-c.d_e", "!=", 3.0)]),
        ("metrics.`a b` = 1", [Condition("metrics", "a b", "=", 1)]),
        ('metrics."a b" = inf', [Condition("metrics", "a b", "=", math.inf)]),
        ("metrics.'a b' = -Infinity", [Condition("metrics", "a b", "=", -math.inf)]),
        ("params.p = 'x'", [Condition("params", "p", "=", "x")]),
        ('params.p = "x"', [Condition("params", "p", "=", "x")]),
        ("params.p = '5'", [Condition("params", "p", "=", "5")]),
        ("params.p like '%x_'", [Condition("params", "p", "LIKE", "%x_")]),
        ("params.p iLike'x'", [Condition("params", "p", "ILIKE", "x")]),
        ("run_id IN ('a', 'b')", [Condition("", "run_id", "IN", ("a", "b"))]),
        ("run_id in('a')", [Condition("", "run_id", "IN", ("a",))]),
        ("run_id not  in ('a',\"b\")", [Condition("", "run_id", "NOT IN", ("a", "b"))]),
        ("tags.t IS NULL", [Condition("tags", "t", "IS NULL")]),
        ("tags.t is  not\tnull", [Condition("tags", "t", "IS NOT NULL")]),
        ("a = 'x' and\nb = 'AND' AND c = 1", [Condition("", "a", "=", "x"), Condition("", "b", "=", "AND"), Condition("", "c", "=", 1)]),
        ("tags.mlflow.source.name = 'x'", [Condition("tags", "mlflow.source.name", "=", "x")]),
        ("params.in = 'x' AND params.like = 'y'", [Condition("params", "in", "=", "x"), Condition("params", "like", "=", "y")]),
        ("params.größe = 'ß'", [Condition("params", "größe", "=", "ß")]),
    ],
)
def test_a_filter_is_comparisons_joined_by_and(text: str, expected: list[Condition]) -> None:
    assert list(parse_filter(text)) == expected


@pytest.mark.parametrize(
    ("quoted", "value"),
    [
        ("''", ""), ("'it''s'", "it's"), (r"'it\'s'", "it's"), (r"'a\'\'b'", "a''b"), ("'a''''b'", "a''b"), (r"'a\\'", r"a\\"), (r"'a\\''b'", r"a\\'b"),
        (r"'a\b'", r"a\b"), ("'say \"x\"'", 'say "x"'), ('"it\'s"', "it's"), ('"a""b"', 'a"b'), ("'`'", "`"), ("' AND '", " AND "), ("'\n'", "\n"),
    ],
)  # fmt: skip
def test_a_value_in_quotes_is_what_stands_between_them(quoted: str, value: str) -> None:
    assert parse_filter(f"params.p = {quoted}")[0].value == value


@pytest.mark.parametrize("text", [None, "", "  \n"])
def test_nothing_is_no_condition(text: str | None) -> None:
    assert parse_filter(text) == ()


@pytest.mark.parametrize(
    "text",
    [
        "x", "x =", "= 1", "x == 1", "x <> 1", "x = y", "x = 'y", "x = 1 OR y = 2", "(x = 1)", "x = 1 AND", "AND x = 1", "x = 1, y = 2", "x = 1; y = 2",
        "NOT x = 1", "x LIKE 5", "x IN ()", "x IN 'a'", "x IN ('a',)", "x IS 5", "x IS", "x NOT 5", "x = 1 -- y", "x = /* y */ 1", "x = (SELECT 1)", "x = 0x1",
        "x = 1_000", "x = TRUE", "`x` = 1", "x.`y = 1", "1 = x", "x = 'a' 'b'", "x BETWEEN 1 AND 2", "x = null", r"x = 'C:\'", "x = 'a\0b'", "x.`\0` = 1", "x = '\ud800'",
        "x = '" + "y" * 20_000 + "'", " AND ".join(["x = 1"] * 201),
    ],
)  # fmt: skip
def test_what_is_no_filter_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_filter(text)
    assert refused.value.code == "invalid_filter" and len(refused.value.message) < 500


def test_as_many_comparisons_as_are_allowed_are_read() -> None:
    assert len(parse_filter(" AND ".join(["x = 1"] * 200))) == 200


@pytest.mark.parametrize(
    ("clause", "expected"),
    [
        ("metrics.rmse", Order("metrics", "rmse", False)), ("Metrics.Rmse DESC", Order("metrics", "Rmse", True)), (" start_time  asc ", Order("", "start_time", False)),
        ("params.`a b` desc", Order("params", "a b", True)), ("`Run name`", Order("", "Run name", False)), ("tags.a.b", Order("tags", "a.b", False)),
        ("tags.'it''s' DESC", Order("tags", "it's", True)),
    ],
)  # fmt: skip
def test_an_order_is_a_key_and_a_direction(clause: str, expected: Order) -> None:
    assert parse_order([clause]) == (expected,)


@pytest.mark.parametrize("clause", ["", "metrics.a b", "metrics. DESC", "x" * 1001, "tags.`\0`", "tags.\ud800"])
def test_what_is_no_order_is_refused(clause: str) -> None:
    with pytest.raises(Invalid, match="order_by clause"):
        parse_order([clause])


WORDS = [
    "x", "metrics.m", "params.`p q`", "tags.", "'a'", '"b"', "'", '"', "`", "\\", "5", "-1e3", "nan", "=", "!=", "<", ">=", "LIKE", "ilike", "IN", "NOT", "IS", "NULL",
    "AND", "OR", "(", ")", ",", ";", "--", "/*", "%", "\0", "\ud800", "ß", " ", "\n",
]  # fmt: skip


@given(
    st.one_of(
        st.text(max_size=40),
        st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join),
        st.lists(st.sampled_from(WORDS), max_size=12).map("".join),
    )
)
@settings(max_examples=200)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        conditions = parse_filter(text)
    except Invalid:
        return
    assert all(condition.name for condition in conditions) and bool(conditions) == bool(text.strip())


# No text becomes SQL

ROWS = sa.Table("rows", sa.MetaData(), sa.Column("id", sa.Integer), sa.Column("value", sa.Text), sa.Column("number", sa.Double))
TAGS = sa.Table("row_tags", sa.MetaData(), sa.Column("id", sa.Integer), sa.Column("key", sa.Text), sa.Column("value", sa.Text))


def compiled(condition: sa.ColumnElement[bool]) -> tuple[str, set[Any]]:
    statement = sa.select(ROWS.c.id).where(condition).compile()
    return str(statement), set(map(str, statement.params.values()))


@given(st.sampled_from(["=", "!=", "LIKE", "ILIKE"]), st.text(max_size=30), st.text(max_size=30))
@example("=", "' OR 1=1 --", "`;DROP TABLE rows")
def test_the_statement_is_the_same_whatever_the_text(comparison: str, name: str, value: str) -> None:
    plain, hostile = (filters.text_condition(ROWS.c.value, Condition("params", "p", comparison, text)) for text in ("x", value))
    assert compiled(plain)[0] == compiled(hostile)[0] and value.replace("/", "//" if "LIKE" in comparison else "/") in compiled(hostile)[1]
    plain, hostile = (filters.tag_condition(TAGS, TAGS.c.id == ROWS.c.id, Condition("tags", key, "=", value)) for key in ("x", name))
    assert compiled(plain)[0] == compiled(hostile)[0] and {name, value} <= compiled(hostile)[1]


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (Condition("metrics", "m", "LIKE", "x"), "Invalid comparison operator 'LIKE' for metrics.m"),
        (Condition("metrics", "m", "IS NULL"), "Invalid comparison operator 'IS NULL' for metrics.m"),
        (Condition("metrics", "m", "=", "1"), "Expected numeric value type for metrics.m. Found 1"),
        (Condition("", "start_time", "<", 2**63), "the number for start_time is too large"),
    ],
)
def test_a_number_is_compared_with_numbers_only(condition: Condition, message: str) -> None:
    with pytest.raises(Invalid, match=re.escape(message)):
        filters.number_condition(ROWS.c.number, condition)


@pytest.mark.parametrize(("comparison", "value"), [("=", 1), ("LIKE", 1.5), ("IN", ("a", 1)), ("<", "a"), ("IS NULL", None)])
def test_a_text_is_compared_with_texts_only(comparison: str, value: Any) -> None:
    with pytest.raises(Invalid):
        filters.text_condition(ROWS.c.value, Condition("params", "p", comparison, value))


# What a filter means: an oracle over runs that both databases hold


class Row(NamedTuple):
    name: str
    start_time: int
    end_time: int | None
    status: str
    metrics: dict[str, float]
    params: dict[str, str]
    tags: dict[str, str]


RUNS = [
    Row("alpha", 10, None, "RUNNING", {"m": 1.0, "a b": 2.0}, {"p": "tree"}, {"t": "x"}),
    Row("Alpha", 20, 90, "FINISHED", {"m": 1.5}, {"p": "Tree", "a b": "1"}, {"t": "x_y", "a: b": "'"}),
    Row("be_ta", 20, 80, "FAILED", {"m": -2.0, "a b": 0.0}, {"p": "tre%"}, {}),
    Row("be%ta", 30, None, "KILLED", {"m": math.nan}, {"p": r"a\b", "a b": "a/b"}, {"t": ""}),
    Row("ga\\mma", 40, 70, "FINISHED", {}, {"p": "it's"}, {"t": '"q"'}),
    Row("del\nta", 2**40, 2**41, "SCHEDULED", {"m": 1e300, "a b": -0.0}, {}, {"t": "line\nbreak", "a: b": "''"}),
    Row("ß/é", 5, 6, "FINISHED", {"m": 0.1}, {"p": "%_"}, {"t": "über"}),
]


@pytest.fixture
def runs(db: Database) -> Callable[[str], list[int]]:
    """Which of RUNS a filter answers."""

    def log(unit: Unit) -> tuple[str, list[str]]:
        experiment = service.create_experiment(unit, "filters")
        ids = []
        for row in RUNS:
            run = service.create_run(unit, experiment, name=row.name, start_ms=row.start_time, tags=row.tags)
            points = [Metric(key, 0.0 if math.isnan(value) else value, 1, 0, math.isnan(value)) for key, value in row.metrics.items()]
            service.log_batch(unit, run.id, points, list(row.params.items()), [])
            service.update_run(unit, run.id, status=row.status, end_ms=row.end_time)
            ids.append(run.id)
        return experiment, ids

    experiment, ids = db.write_now(log, workspace="default")

    def answered(text: str) -> list[int]:
        text = re.sub(r"RUN_(\d)", lambda match: ids[int(match[1])], text)
        page = db.read_now(lambda unit: service.search_runs(unit, [experiment], text, None, "ALL", 100, None), workspace="default")
        return sorted(ids.index(run.id) for run in page.items)

    return answered


MEANINGS: list[tuple[str, list[int] | None]] = [
    ("metrics.m > 1", [1, 5]), ("metrics.m = 1", [0]), ("metrics.m != 1", [1, 2, 5, 6]), ("metrics.`a b` = 0", [2, 5]), ("metric.m <= -2", [2]),
    ("metrics.m < inf", [0, 1, 2, 5, 6]), ("metrics.m > -inf", [0, 1, 2, 5, 6]), ("metrics.m < nan", []), ("metrics.m = NaN", []),
    ("metrics.m != nan", [0, 1, 2, 5, 6]), ("metrics.m >= nan", []), ("metrics.none = 1", []), ("metrics.m = 0.1", [6]),
    ("params.p = 'tree'", [0]), ("params.p != 'tree'", [1, 2, 3, 4, 6]), ("params.p LIKE 'tre_'", [0, 2]), ("params.p ILIKE 'TRE_'", [0, 1, 2]),
    ("params.p LIKE 'Tre%'", [1]), ("params.p LIKE '%%%'", [0, 1, 2, 3, 4, 6]), ("params.p LIKE ''", []), (r"params.p LIKE 'a\b'", [3]), (r"params.p LIKE '\%'", []),
    ("params.`a b` LIKE 'a/_'", [3]), ("params.p = 'it''s'", [4]), (r"params.p = 'it\'s'", [4]), ('params.p = "it\'s"', [4]), ("parameter.p = '%_'", [6]),
    ("params.p IS NULL", [5]), ("params.p IS NOT NULL AND params.\"a b\" IS NULL", [0, 2, 4, 6]),
    ("tags.t = ''", [3]), ("tags.t LIKE '%\n%'", [5]), ("tags.t LIKE 'x_'", []), ("tags.t LIKE 'x__'", [1]), ("tag.\"a: b\" = ''''", [1]), (r"tags.`a: b` = '\'\''", [5]),
    ("tags.t IS NULL", [2]), ("tags.t LIKE '_ber'", [6]), ("tags.t = '\"q\"'", [4]),
    ("run_name = 'alpha'", [0]), ("attributes.run_name ILIKE 'ALPHA'", [0, 1]), ("run_name LIKE 'be\\_ta'", []), ("run_name LIKE 'be_ta'", [2, 3]),
    ("attr.run_name = 'ga\\mma'", [4]), ("run_name LIKE 'ß/%'", [6]), ("tags.`mlflow.runName` = 'alpha'", [0]),
    ("status = 'FINISHED'", [1, 4, 6]), ("attribute.status != 'FINISHED'", [0, 2, 3, 5]), ("status IN ('FAILED')", None),
    ("start_time >= 20 AND start_time < 40", [1, 2, 3]), ("start_time > 19.5 AND start_time < 20.5", [1, 2]), ("start_time < inf AND start_time > 1e12", [5]),
    ("start_time = nan", []), ("start_time != nan", [0, 1, 2, 3, 4, 5, 6]), ("end_time != nan", [1, 2, 4, 5, 6]), ("end_time != 90", [2, 4, 5, 6]), ("end_time < 1e300", [1, 2, 4, 5, 6]),
    ("run_id = 'RUN_0'", [0]), ("run_id IN ('RUN_0', 'RUN_2', 'none')", [0, 2]), ("run_id NOT IN ('RUN_0', 'RUN_2')", [1, 3, 4, 5, 6]), ("run_id LIKE '%'", [0, 1, 2, 3, 4, 5, 6]),
    ("metrics.m > 0 AND params.p ILIKE 't%' AND tags.t IS NOT NULL", [0, 1]), ("params.p = 1", None), ("metrics.m = '1'", None), ("nonsense = 'x'", None),
    ("params.p IN ('tree')", None), ("metrics.m IS NULL", None), ("start_time = 9223372036854775808", None), ("dataset.name = 'x'", []), ("dataset.what = 'x'", None),
]  # fmt: skip
"""A filter and the runs that it answers; None where it is refused."""


def test_a_filter_answers_the_runs_that_it_means(runs: Callable[[str], list[int]]) -> None:
    def answered(text: str) -> list[int] | None:
        try:
            return runs(text)
        except Invalid as refused:
            assert refused.code == "invalid_filter"
            return None

    assert {text: answered(text) for text, _ in MEANINGS} == dict(MEANINGS)


NUMBERS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


def holds(row: Row, condition: Condition) -> bool:
    """What MLflow documents, in Python."""
    attributes = {"run_name": row.name, "status": row.status, "start_time": row.start_time, "end_time": row.end_time}
    known: dict[str, Any] = {"metrics": row.metrics, "params": row.params, "tags": row.tags, "attributes": attributes}[condition.group]
    value = known.get(condition.name)
    if condition.operator in ("IS NULL", "IS NOT NULL"):
        return (value is None) == (condition.operator == "IS NULL")
    if value is None or value != value:
        return False
    if condition.operator in NUMBERS:
        return NUMBERS[condition.operator](value, condition.value)
    pattern = "".join({"%": ".*", "_": "."}.get(character, re.escape(character)) for character in condition.value)
    return re.fullmatch(pattern, value, re.DOTALL | (re.IGNORECASE | re.ASCII if condition.operator == "ILIKE" else 0)) is not None


letters = st.text("aAtTrep%_\\/'\" \nßé", max_size=5)
texts = st.one_of(st.sampled_from([value for row in RUNS for value in (row.name, *row.params.values(), *row.tags.values())]), letters)
texts = texts.filter(lambda value: not re.search(r"\\(['\"]|\Z)", value))
numbers = st.one_of(
    st.sampled_from([value for row in RUNS for value in (row.start_time, row.end_time or 0, *row.metrics.values())]), st.integers(-3, 100)
)
kinds: list[tuple[str, tuple[str, ...], tuple[str, ...], Any]] = [
    ("metrics", ("m", "a b", "none"), tuple(NUMBERS), numbers),
    ("params", ("p", "a b", "none"), ("=", "!=", "LIKE", "ILIKE"), texts),
    ("tags", ("t", "a: b", "none"), ("=", "!=", "LIKE", "ILIKE"), texts),
    ("params", ("p", "a b", "none"), ("IS NULL", "IS NOT NULL"), st.none()),
    ("tags", ("t", "a: b", "none"), ("IS NULL", "IS NOT NULL"), st.none()),
    ("attributes", ("run_name", "status"), ("=", "!=", "LIKE", "ILIKE"), texts),
    ("attributes", ("start_time", "end_time"), tuple(NUMBERS), numbers),
]
conditions = st.sampled_from(kinds).flatmap(
    lambda kind: st.builds(Condition, st.just(kind[0]), st.sampled_from(kind[1]), st.sampled_from(kind[2]), kind[3])
)


def written(draw: st.DrawFn, condition: Condition) -> str:
    """A condition as somebody may write it: spaces, capitals, and quotation marks as they like."""
    space = draw(st.sampled_from([" ", "  ", "\n", "\t "]))
    marks = '`"' + ("" if "'" in condition.name else "'")
    mark = draw(st.sampled_from(marks if not condition.name.isidentifier() else ["", *marks]))
    key = f"{draw(st.sampled_from([condition.group, condition.group.upper()]))}.{mark}{condition.name}{mark}"
    word = draw(st.sampled_from([condition.operator, condition.operator.lower()])).replace(" ", space)
    if condition.value is None:
        return f"{key}{space}{word}{space}"
    if not isinstance(condition.value, str):
        return f"{key}{space}{word}{condition.value!r}"
    around = draw(st.sampled_from("'\""))
    inside = condition.value.replace(around, around * 2)
    return f"{key}{space}{word}{space}{around}{inside}{around}"


@st.composite
def written_filters(draw: st.DrawFn) -> tuple[str, list[Condition]]:
    parts = draw(st.lists(conditions, min_size=1, max_size=3))
    return draw(st.sampled_from([" AND ", " and\n"])).join(written(draw, condition) for condition in parts), parts


def test_a_filter_answers_what_an_evaluation_in_python_answers(runs: Callable[[str], list[int]]) -> None:
    @given(written_filters())
    @settings(max_examples=50)
    def compared(case: tuple[str, list[Condition]]) -> None:
        text, parts = case
        assert runs(text) == [number for number, row in enumerate(RUNS) if all(holds(row, part) for part in parts)]

    compared()


def test_no_text_does_more_than_compare(runs: Callable[[str], list[int]]) -> None:
    hostile = st.one_of(st.text(max_size=20), st.lists(st.sampled_from(WORDS), max_size=6).map("".join))

    @given(
        st.sampled_from(["params", "tags", "metrics", "attributes", "dataset", "", "x"]),
        hostile,
        st.sampled_from(["=", "LIKE", "<", "IN"]),
        hostile,
    )
    @settings(max_examples=40)
    def asked(group: str, name: str, comparison: str, value: str) -> None:
        for text in (
            f"{group}.`{name}` {comparison} '{value}'",
            f"{group}.{name} {comparison} {value}",
            f"run_name {comparison} '{value}'",
        ):
            try:
                assert set(runs(text)) <= set(range(len(RUNS)))
            except Invalid:
                pass

    asked()
    assert runs("run_name LIKE '%'") == list(range(len(RUNS)))

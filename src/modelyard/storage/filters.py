"""MLflow's filter and order language, parsed by a grammar into conditions that stores turn into bound SQL.

`metrics.rmse < 1 AND params.model = 'tree' AND tags.x IS NULL` (reference `mlflow-protocol`, section 4).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from ..core.errors import Invalid

MAX_LENGTH = 20_000
MAX_CONDITIONS = 200
_UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")
"""What JSON can carry and a database cannot be asked for: PostgreSQL takes no NUL, and nobody half of a surrogate pair."""

_GRAMMAR = r"""
start: condition ("AND"i condition)*
condition: key COMPARE value           -> compare
         | key LIKE STRING             -> compare
         | key IN list                 -> compare
         | key NOT IN list             -> not_in
         | key IS NULL                 -> is_null
         | key IS NOT NULL             -> not_null
key: NAME ("." (NAME | QUOTED | STRING))?
value: STRING | NUMBER
list: "(" value ("," value)* ")"
COMPARE: ">=" | "<=" | "!=" | "=" | ">" | "<"
LIKE.3: /I?LIKE(?=[\s'"])/i
IN.3: /IN(?=[\s(])/i
NOT.3: /NOT(?=\s)/i
IS.3: /IS(?=\s)/i
NULL.3: /NULL\b/i
QUOTED: /`[^`]*`/
STRING: /'([^'\\]|\\.|'')*'/ | /"([^"\\]|\\.|"")*"/
NUMBER: /[+-]?(\d+\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?|inf(inity)?|nan)/i
NAME: /[^\W\d][\w\/\-]*(\.[\w\/\-]+)*|[^\W\d][\w\/\-]*/
%ignore /\s+/
"""


@dataclass(frozen=True)
class Condition:
    """`group` is the prefix before the dot (empty for a bare name); `operator` is in capitals."""

    group: str
    name: str
    operator: str
    value: Any = None


@dataclass(frozen=True)
class Order:
    group: str
    name: str
    descending: bool


def parse_filter(text: str | None) -> tuple[Condition, ...]:
    """Raises Invalid for anything outside the grammar, and for filters too long to be meant."""
    if text is None or not text.strip():
        return ()
    if len(text) > MAX_LENGTH:
        raise Invalid(f"a filter has {MAX_LENGTH} characters at most", code="invalid_filter")
    if _UNSTORABLE.search(text):
        raise Invalid("a filter has no NUL characters and no halves of surrogate pairs", code="invalid_filter")
    return _parse(text)


@functools.lru_cache(maxsize=512)
def _parse(text: str) -> tuple[Condition, ...]:
    import lark

    try:
        tree = _parser().parse(text)
    except (lark.exceptions.LarkError, RecursionError):
        raise Invalid(
            f"Invalid filter string: {text[:200]}. Write comparisons joined by AND, such as metrics.rmse < 1 AND params.model = 'tree'.",
            code="invalid_filter",
        ) from None
    conditions = tuple(_condition(child) for child in tree.children if not isinstance(child, lark.Token))
    if len(conditions) > MAX_CONDITIONS:
        raise Invalid(f"a filter has {MAX_CONDITIONS} comparisons at most", code="invalid_filter")
    return conditions


@functools.cache
def _parser() -> Any:
    import lark

    return lark.Lark(_GRAMMAR, parser="lalr", lexer="contextual", maybe_placeholders=False)


def _condition(node: Any) -> Condition:
    group, name = _key([str(token) for token in node.children[0].children])
    operands = node.children[1:]
    if node.data == "is_null":
        return Condition(group, name, "IS NULL")
    if node.data == "not_null":
        return Condition(group, name, "IS NOT NULL")
    if node.data == "not_in":
        return Condition(group, name, "NOT IN", tuple(_value(item.children[0]) for item in operands[-1].children))
    operator = str(operands[0]).upper()
    if operator == "IN":
        return Condition(group, name, "IN", tuple(_value(item.children[0]) for item in operands[1].children))
    return Condition(group, name, operator, _value(operands[1].children[0] if hasattr(operands[1], "children") else operands[1]))


def _key(parts: list[str]) -> tuple[str, str]:
    if len(parts) == 2:
        return parts[0].rstrip(".").lower(), _unquote(parts[1])
    head, dot, tail = parts[0].partition(".")
    return (head.lower(), tail) if dot else ("", head)


def _value(token: Any) -> str | float | int:
    if token.type == "STRING":
        return _unquote(str(token))
    text = str(token)
    try:
        return int(text)
    except ValueError:
        return float(text)


def _unquote(text: str) -> str:
    """The text between quotation marks; inside, the mark itself is doubled or follows a backslash."""
    if len(text) < 2 or text[0] != text[-1] or text[0] not in "'\"`":
        return text
    mark = text[0]
    return re.sub(rf"\\(.)|{mark}{mark}", lambda pair: mark if pair[1] in (None, mark) else pair[0], text[1:-1])


def parse_order(clauses: list[str] | None) -> tuple[Order, ...]:
    """`["metrics.rmse DESC", "start_time"]`. Raises Invalid."""
    orders = []
    for clause in clauses or []:
        if _UNSTORABLE.search(clause):
            raise Invalid("an order_by clause has no NUL characters and no halves of surrogate pairs", code="invalid_order")
        text = clause.strip()
        words = text.rsplit(None, 1)
        descending = False
        if len(words) == 2 and words[1].upper() in ("ASC", "DESC"):
            text, descending = words[0].strip(), words[1].upper() == "DESC"
        head, dot, tail = text.partition(".")
        if head[:1] in "`\"'" or not dot:
            group, name = "", _unquote(text)
        else:
            group, name = head.lower(), _unquote(tail.strip())
        if not name or (" " in name and tail[:1] not in "`\"'") or len(text) > 1000:
            raise Invalid(f"Invalid order_by clause '{clause[:200]}'", code="invalid_order")
        orders.append(Order(group, name, descending))
    if len(orders) > 20:
        raise Invalid("order_by has 20 clauses at most", code="invalid_order")
    return tuple(orders)


def text_condition(
    column: sa.ColumnElement[Any], condition: Condition, operators: tuple[str, ...] = ("=", "!=", "LIKE", "ILIKE", "IN", "NOT IN")
) -> sa.ColumnElement[bool]:
    """`column <operator> value` for text. Raises Invalid for an operator that does not fit or a number as value."""
    shown = f"{condition.group}.{condition.name}".lstrip(".")
    if condition.operator not in operators:
        raise Invalid(
            f"Invalid comparison operator '{condition.operator}' for {shown}; use one of {', '.join(operators)}", code="invalid_filter"
        )
    value = condition.value
    values = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(item, str) for item in values):
        raise Invalid(f"Expected a quoted string value for {shown}, got {value!r}", code="invalid_filter")
    return _TEXT[condition.operator](column, value)


_TEXT: dict[str, Callable[[Any, Any], sa.ColumnElement[bool]]] = {
    "=": lambda column, value: column == value,
    "!=": lambda column, value: column != value,
    # `%` and `_` are the pattern's own. A backslash is a character: PostgreSQL alone would take it for an escape.
    "LIKE": lambda column, value: column.like(value.replace("/", "//"), escape="/"),
    "ILIKE": lambda column, value: column.ilike(value.replace("/", "//"), escape="/"),
    "IN": lambda column, value: column.in_(value),
    "NOT IN": lambda column, value: column.not_in(value),
}


def number_condition(column: sa.ColumnElement[Any], condition: Condition) -> sa.ColumnElement[bool]:
    """`column <operator> value` for numbers; quoted numbers are refused, as MLflow does."""
    shown = f"{condition.group}.{condition.name}".lstrip(".")
    if condition.operator not in _NUMBER:
        raise Invalid(
            f"Invalid comparison operator '{condition.operator}' for {shown}; use one of {', '.join(_NUMBER)}", code="invalid_filter"
        )
    if isinstance(condition.value, (str, tuple)):
        raise Invalid(f"Expected numeric value type for {shown}. Found {condition.value}", code="invalid_filter")
    if isinstance(condition.value, int) and abs(condition.value) >= 2**63:
        raise Invalid(f"the number for {shown} is too large", code="invalid_filter")
    if condition.value != condition.value:  # of NaN each database thinks otherwise; here nothing is like it
        return column.is_not(None) if condition.operator == "!=" else sa.false()
    return _NUMBER[condition.operator](column, condition.value)


_NUMBER: dict[str, Callable[[Any, Any], sa.ColumnElement[bool]]] = {
    ">": lambda column, value: column > value,
    ">=": lambda column, value: column >= value,
    "<": lambda column, value: column < value,
    "<=": lambda column, value: column <= value,
    "=": lambda column, value: column == value,
    "!=": lambda column, value: column != value,
}


def tag_condition(table: sa.Table, joined: sa.ColumnElement[bool], condition: Condition) -> sa.ColumnElement[bool]:
    """A comparison with the `value` that a key-value `table` holds under the condition's name."""
    has_key = sa.and_(joined, table.c.key == condition.name)
    if condition.operator == "IS NULL":
        return ~sa.exists().where(has_key)
    if condition.operator == "IS NOT NULL":
        return sa.exists().where(has_key)
    return sa.exists().where(has_key, text_condition(table.c.value, condition, ("=", "!=", "LIKE", "ILIKE")))


def json_text(dialect: str, column: sa.ColumnElement[Any], *path: str) -> sa.ColumnElement[Any]:
    """The text at a path of keys in a Json column, NULL when there is none."""
    if dialect == "postgresql":
        return sa.cast(column, JSONB).op("#>>", return_type=sa.Text())(sa.cast(list(path), ARRAY(sa.Text)))
    *outer, last = path
    if _PLAIN_KEY.fullmatch(last):
        return sa.func.json_extract(column, _json_path(*path), type_=sa.Text())
    # SQLite's paths have no way to write a quotation mark or a backslash: such a key is looked for among the pairs.
    pairs = sa.func.json_each(column, _json_path(*outer)).table_valued("key", "value")
    return sa.select(sa.cast(pairs.c.value, sa.Text())).where(pairs.c.key == last).scalar_subquery()


_PLAIN_KEY = re.compile(r'[^"\\\x00-\x1f]+')


def _json_path(*keys: str) -> str:
    """Of keys without quotation marks and backslashes."""
    return "$" + "".join(f'."{key}"' for key in keys)


def nullable_text_condition(column: sa.ColumnElement[Any], condition: Condition) -> sa.ColumnElement[bool]:
    if condition.operator in ("IS NULL", "IS NOT NULL"):
        return column.is_(None) if condition.operator == "IS NULL" else column.is_not(None)
    return text_condition(column, condition, ("=", "!=", "LIKE", "ILIKE"))

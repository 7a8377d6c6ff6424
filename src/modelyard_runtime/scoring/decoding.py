"""Bodies of requests as what a model takes, by its signature. The signature is compiled once, when the model is loaded: no request makes a
frame of its own or walks the schema.

What is decoded here reaches the model as MLflow's parsing and enforcement of the schema would hand it over: same columns, types and values.
Whatever they would convert, warn of or refuse is not decoded (None), and MLflow's own code answers it, with its own result or message.
"""

from __future__ import annotations

import base64
import datetime
import itertools
import re
from typing import Any, Callable, Iterable, Protocol, Sequence

SPLIT, RECORDS, INSTANCES, INPUTS = "dataframe_split", "dataframe_records", "instances", "inputs"
INPUT_DATA = "input_data"
"""Azure's form at /score: a split frame, records, rows in the order of the signature, columns by name, or tensors."""
MOST_LAYOUTS = 100
Value = Any
"""A value as JSON has it."""


class Undecodable(Exception):
    """There is no decoder for a signature; the text says why."""


class Decoded:
    """The rows of one request. Those of equal `layout` go to the model in one call."""

    __slots__ = ("layout", "data", "count")

    def __init__(self, layout: Any, data: Any, count: int) -> None:
        self.layout, self.data, self.count = layout, data, count


class Decoder(Protocol):
    numeric: bool
    """It takes numbers alone."""

    def decode(self, form: str, value: Value) -> Decoded | None: ...

    def join(self, parts: Sequence[Decoded]) -> Any:
        """The model's argument for the rows of these requests, which have one layout."""
        ...

    def samples(self, example: Decoded | None, count: int) -> list[Decoded]:
        """So many rows, each a request: no two alike, near those of the example, else made up from the signature. Raises Undecodable."""
        ...


def decoder_of(schema: Any) -> Decoder:
    """Raises Undecodable."""
    if schema is None:
        raise Undecodable("it has no signature")
    return TensorDecoder(schema) if schema.is_tensor_spec() else ColumnDecoder(schema)


# Columns


class Kind:
    """How values of a type of the signature stand in JSON, and what array they become. `test` looks at the values of a column further."""

    def __init__(
        self, types: tuple[type, ...], dtype: str | None, sample: Callable[[int], Value], test: Callable[[Any], bool] | None = None
    ):
        self.types, self.dtype, self.sample, self.test = frozenset(types), dtype, sample, test

    def array(self, values: Sequence[Value]) -> Any:
        import numpy

        return list(values) if self.dtype is None else numpy.array(values, dtype=self.dtype)


class Binary(Kind):
    def array(self, values: Sequence[Value]) -> Any:
        return [base64.decodebytes(value.encode()) for value in values]


def _within(bits: int) -> Callable[[Any], bool]:
    least, most = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return lambda values: min(values) >= least and max(values) <= most


MOMENT = re.compile(r"(?:1[7-9]|20|21)\d\d-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{3}|\.\d{6})?)?)?", re.ASCII).fullmatch
"""Times in every notation that pandas, NumPy and Python read alike, within the years of a datetime64[ns]."""


def _are_moments(values: Iterable[Value]) -> bool:
    """In one notation, as pandas wants it of a column."""
    notations = set()
    for value in values:
        if value is not None:
            if not MOMENT(value):
                return False
            datetime.datetime.fromisoformat(value)
            notations.add((len(value), value[10:11]))
    return len(notations) <= 1


KINDS: dict[str, Kind] = {
    "double": Kind((float, int), "float64", lambda n: n % 5 + 0.5),
    "float": Kind((float, int), "float32", lambda n: n % 5 + 0.5),
    "long": Kind((int,), "int64", lambda n: n % 5, _within(64)),
    "integer": Kind((int,), "int32", lambda n: n % 5, _within(32)),
    "boolean": Kind((bool,), "bool", lambda n: n % 2 == 0),
    "string": Kind((str,), None, lambda n: "abcde"[n % 5] * (n % 3 + 1)),
    "datetime": Kind((str,), "datetime64[ns]", lambda n: "2024-01-%02dT10:00:00" % (n % 28 + 1), _are_moments),
    "binary": Binary((str,), None, lambda n: base64.b64encode(b"abcde"[: n % 5 + 1]).decode()),
}
INTEGERS, FLOATS = ("long", "integer"), ("double", "float")
NULLABLE = ("double", "float", "datetime", "string")
"""An optional column of these types has a missing value that leaves its type as it is."""


class Column:
    def __init__(self, spec: Any) -> None:
        self.name: Any = spec.name
        self.type: str = getattr(spec.type, "name", "")
        if self.type not in KINDS:
            raise Undecodable("column %s is of the type %s" % (spec.name, self.type or type(spec.type).__name__))
        self.kind = KINDS[self.type]
        self.required: bool = getattr(spec, "required", True) is not False
        nullable = not self.required and self.type in NULLABLE
        self.types = self.kind.types | {type(None)} if nullable else self.kind.types


class Layout:
    """The columns that a request has, in the order of the signature, and where each stands in its rows."""

    def __init__(self, columns: list[Column], positions: list[int], width: int) -> None:
        import pandas

        self.columns = columns
        self.positions = None if positions == list(range(width)) else positions
        self.names = tuple(column.name for column in columns)
        self.index = pandas.Index(list(self.names))
        first = columns[0]
        alike = all(column.types == first.types and column.kind.dtype == first.kind.dtype for column in columns)
        self.common = first if alike and first.kind.dtype is not None else None
        """A column that all others are like: the rows are one matrix."""

    def fits(self, rows: list[list[Value]], strict: bool) -> bool:
        """`strict`: without missing values and binary texts, which the forms of tensors write in another way."""
        if self.common is not None and not strict:
            types, test = self.common.types, self.common.kind.test
            if not types.issuperset(map(type, itertools.chain.from_iterable(rows))):
                return False
            return test is None or test(list(itertools.chain.from_iterable(rows)))
        for column, values in zip(self.columns, zip(*rows)):
            if not (column.kind.types if strict else column.types).issuperset(map(type, values)):
                return False
            if column.kind.test is not None and not column.kind.test(values) or strict and column.type == "binary":
                return False
        return True


class ColumnDecoder:
    """For signatures of named columns; the model takes a data frame."""

    def __init__(self, schema: Any) -> None:
        import pandas

        if not schema.has_input_names():
            raise Undecodable("its columns have no names")
        self.columns = [Column(spec) for spec in schema.inputs]
        self.names = [column.name for column in self.columns]
        if len(set(self.names)) != len(self.names) or not self.names:
            raise Undecodable("its columns do not have a name each")
        if int(pandas.__version__.split(".")[0]) >= 3:  # a missing text is one thing alone in its column, and another beside texts
            for column in self.columns:
                if column.type == "string":
                    column.types = column.kind.types
        self.numeric = all(column.type in INTEGERS + FLOATS for column in self.columns)
        self.layouts: dict[tuple[Any, ...], Layout | None] = {}
        self.layout = Layout(self.columns, list(range(len(self.columns))), len(self.columns))
        """Of all columns."""

    def decode(self, form: str, value: Value) -> Decoded | None:
        found = self._rows(form, value)
        if found is None:
            return None
        names, rows = found
        layout = self.layout if names == self.names else self._layout(tuple(names))
        if layout is None or not rows or not {list}.issuperset(map(type, rows)) or not {len(names)}.issuperset(map(len, rows)):
            return None
        if layout.positions is not None:
            rows = [[row[position] for position in layout.positions] for row in rows]
        try:
            if not layout.fits(rows, strict=form in (INPUTS, INSTANCES)):
                return None
        except (ValueError, TypeError):
            return None
        return Decoded(self.layout if layout.names == self.layout.names else layout, rows, len(rows))

    def _rows(self, form: str, value: Value) -> tuple[list[Any], list[Any]] | None:
        """(names, rows), not looked at any closer."""
        azure = form == INPUT_DATA
        if type(value) is dict:
            if form == SPLIT or azure and "data" in value:
                return self._split(value)
            if form == INPUTS or azure:
                columns = list(value.values())
                alike = columns and {list}.issuperset(map(type, columns)) and len(set(map(len, columns))) == 1
                return (list(value), [list(row) for row in zip(*columns)]) if alike else None
            return None
        if type(value) is not list or not value or form == SPLIT:
            return None
        first = type(value[0])
        if first is dict:
            return _records(value)
        if azure and first is list:
            return self.names, value
        if len(self.names) == 1 and first is not list and form != RECORDS:
            return self.names, [[item] for item in value]
        return None

    @staticmethod
    def _split(value: dict[str, Value]) -> tuple[list[Any], list[Any]] | None:
        names, rows, index = value.get("columns"), value.get("data"), value.get("index")
        if type(names) is not list or type(rows) is not list or not {"columns", "index", "data"}.issuperset(value):
            return None
        if "index" in value and (type(index) is not list or len(index) != len(rows)):
            return None
        return names, rows

    def _layout(self, names: tuple[Any, ...]) -> Layout | None:
        """Of a request with these columns; None when the signature refuses them. Columns that it does not know are left out, as MLflow does."""
        try:
            if names in self.layouts:
                return self.layouts[names]
        except TypeError:  # a name that is no text
            return None
        present = [column for column in self.columns if column.name in names]
        whole = len(set(names)) == len(names) and present and all(column.required is False or column in present for column in self.columns)
        layout = Layout(present, [names.index(column.name) for column in present], len(names)) if whole else None
        if len(self.layouts) < MOST_LAYOUTS:
            self.layouts[names] = layout
        return layout

    def join(self, parts: Sequence[Decoded]) -> Any:
        import pandas

        layout: Layout = parts[0].layout
        rows = parts[0].data if len(parts) == 1 else [row for part in parts for row in part.data]
        if layout.common is not None:
            return pandas.DataFrame(layout.common.kind.array(rows), columns=layout.index, copy=False)
        return pandas.DataFrame({column.name: column.kind.array(values) for column, values in zip(layout.columns, zip(*rows))})

    def samples(self, example: Decoded | None, count: int) -> list[Decoded]:
        if example is None or example.layout is not self.layout:
            rows = [[column.kind.sample(row * 7 + index * 3) for index, column in enumerate(self.columns)] for row in range(count)]
        else:
            rows = [[_near(example.data, row, index) for index in range(len(self.columns))] for row in range(count)]
        return [Decoded(self.layout, [row], 1) for row in rows]


def _near(rows: list[list[Value]], row: int, index: int) -> Value:
    """A number near an example's, or another example's text."""
    value = rows[(row + index) % len(rows)][index]
    if type(value) is float:
        return value * (1 + row / 10) + row / 7
    if type(value) is int and abs(value) < 2**30:
        return value + row
    return value


def _records(value: list[Value]) -> tuple[list[Any], list[Any]] | None:
    names = list(value[0])
    try:
        if not {len(names)}.issuperset(map(len, value)):
            return None
        return names, [[record[name] for name in names] for record in value]
    except (KeyError, TypeError):
        return None


# Tensors


class TensorDecoder:
    """For signatures of tensors of numbers; the model takes an array, or arrays by name."""

    numeric = True

    def __init__(self, schema: Any) -> None:
        self.named: bool = schema.has_input_names()
        self.specs: list[tuple[Any, Any, tuple[int, ...]]] = [(spec.name, spec.type, tuple(spec.shape)) for spec in schema.inputs]
        for name, dtype, shape in self.specs:
            if dtype.kind not in "fiub":
                raise Undecodable("the tensor %s is of the type %s" % (name or "", dtype))
            if not shape or shape[0] != -1:
                raise Undecodable("the first dimension of its tensor is not the rows of a request")

    def decode(self, form: str, value: Value) -> Decoded | None:
        if type(value) is dict and "data" in value and form in (SPLIT, INPUT_DATA):
            split = ColumnDecoder._split(value)
            value = self._frame(*split) if split is not None else None
        elif form == RECORDS:
            records = _records(value) if type(value) is list and value and type(value[0]) is dict else None
            value = self._frame(*records) if records is not None else None
        given = self._by_spec(value)
        if given is None:
            return None
        try:
            arrays = [self._array(item, dtype, shape) for item, (_, dtype, shape) in zip(given, self.specs)]
        except (ValueError, TypeError, OverflowError):
            return None
        count = len(arrays[0]) if arrays[0] is not None else 0
        if not count or any(array is None or len(array) != count for array in arrays):
            return None
        return Decoded(tuple(array.shape[1:] for array in arrays), arrays, count)

    def _frame(self, names: list[Any], rows: list[Any]) -> list[Any] | None:
        """The rows of a frame with a column for each number of an unnamed tensor's row."""
        width = len(names)
        whole = not self.named and width > 1 and self.specs[0][2] == (-1, width) and len(set(map(str, names))) == width
        return rows if whole else None

    def _by_spec(self, value: Value) -> list[Value] | None:
        if type(value) is list and value and len(self.specs) == 1 and type(value[0]) is not dict:
            return [value]
        if self.named and type(value) is dict and len(value) == len(self.specs):
            return [value.get(name) for name, _, _ in self.specs]
        return None

    @staticmethod
    def _array(value: Value, dtype: Any, shape: tuple[int, ...]) -> Any:
        """None when it is not of this type and shape, or loses something on the way to it."""
        import numpy

        found = numpy.asarray(value)
        if found.ndim != len(shape) or any(size not in (-1, own) for size, own in zip(shape, found.shape)):
            return None
        if found.dtype == dtype:
            return found
        if dtype.kind == "f" and found.dtype.kind in "fiu":
            return found.astype(dtype)
        if dtype.kind in "iu" and found.dtype.kind in "iu":
            cast = found.astype(dtype)
            return cast if (cast == found).all() else None
        return None

    def join(self, parts: Sequence[Decoded]) -> Any:
        import numpy

        if len(parts) == 1:
            arrays = parts[0].data
        else:
            arrays = [numpy.concatenate(same) for same in zip(*(part.data for part in parts))]
        return {name: array for (name, _, _), array in zip(self.specs, arrays)} if self.named else arrays[0]

    def samples(self, example: Decoded | None, count: int) -> list[Decoded]:
        import numpy

        random = numpy.random.default_rng(0)
        rows = []
        for row in range(count):
            arrays = []
            for index, (_, dtype, shape) in enumerate(self.specs):
                if example is not None:
                    array = example.data[index][row % example.count][None]
                    if dtype.kind == "f":
                        array = (array * (1 + row / 10) + row / 7).astype(dtype)
                elif -1 in shape[1:]:
                    raise Undecodable("the shape of its tensor is open, and it has no example")
                else:
                    array = random.integers(0, 2, size=(1, *shape[1:])).astype(dtype) + (random.random() if dtype.kind == "f" else 0)
                    array = array.astype(dtype)
                arrays.append(array)
            rows.append(Decoded(tuple(array.shape[1:] for array in arrays), arrays, 1))
        return rows

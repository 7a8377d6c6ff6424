"""Asks models of every kind of signature the same requests twice: through MLflow's own scoring server, and through the yard's model server.

    python oracle.py FOLDER RUNTIME KIT, with the Python of a deployment's environment

Prints, as JSON, for each model and way of asking: how many requests were answered 200, how many calls of the model that took, and where the two
servers differ. In this process both are the whole program but for the sockets: MLflow's as the ASGI application that it is, the yard's from
its HTTP handler on. A model of the table answers each row with the text of what it was given, types included, so that answers are equal only
if the two servers hand the model the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

FOLDER, RUNTIME, KIT = sys.argv[1:]
sys.path += [os.path.dirname(RUNTIME), KIT, os.path.join(RUNTIME, "shims")]
os.environ["_MLFLOW_IS_IN_SERVING_ENVIRONMENT"] = "true"
warnings.simplefilter("ignore")
logging.disable(logging.WARNING)

import mlflow.pyfunc  # noqa: E402
import mlflow.sklearn  # noqa: E402
import numpy  # noqa: E402
import pandas  # noqa: E402
from mlflow.models import ModelSignature, infer_signature  # noqa: E402
from mlflow.pyfunc import scoring_server  # noqa: E402
from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec  # noqa: E402
from mlflow.types.schema import AnyType, Array, ColSpec, Map, Object, Property  # noqa: E402

calls = 0
"""Of the models' predict."""
JSON, CSV = "application/json", "text/csv"


class Case(NamedTuple):
    name: str
    body: bytes
    kind: str = JSON


Cases = Iterator[Case]


# Models


class Echo(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Says of each row what it is given."""

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # MLflow would read hints
        import __main__

        __main__.calls += 1
        told = __main__.told
        said = repr(sorted(params.items())) if params else ""
        if hasattr(model_input, "columns"):
            columns = [(str(name), str(model_input[name].dtype), list(model_input[name])) for name in model_input.columns]
            return [
                "; ".join(f"{name} {dtype} {told(values[row])}" for name, dtype, values in columns) + said
                for row in range(len(model_input))
            ]
        if isinstance(model_input, dict):
            parts = {name: (array.dtype, array.tolist()) for name, array in model_input.items()}
            if len({len(values) for _, values in parts.values()}) != 1:
                return [repr(parts) + said]
            rows = zip(*(values for _, values in parts.values()), strict=True)
            return [
                "; ".join(f"{name} {dtype} {value!r}" for (name, (dtype, _)), value in zip(parts.items(), row, strict=True)) + said
                for row in rows
            ]
        if hasattr(model_input, "dtype"):
            return [f"{model_input.dtype} {row!r}{said}" for row in model_input.tolist()]
        return [f"{type(model_input).__name__} {model_input!r}{said}"]


def told(value: Any) -> str:
    """Type and value; a text of NumPy is a text."""
    return f"str {str(value)!r}" if isinstance(value, str) else f"{type(value).__name__} {value!r}"


class Answers(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Answers what the request names: a person's model returns all of these."""

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # MLflow would read hints
        import __main__

        return __main__.ANSWERS[model_input["name"].iloc[0]]()


ANSWERS: dict[str, Callable[[], Any]] = {
    "whole numbers": lambda: numpy.array([1, 2]),
    "small whole numbers": lambda: numpy.array([1, 2], dtype="int8"),
    "floats": lambda: numpy.array([1.0, 0.1, 1e300]),
    "single precision": lambda: numpy.array([0.1, 1.0], dtype="float32"),
    "half precision": lambda: numpy.array([0.1], dtype="float16"),
    "no number": lambda: numpy.array([1.0, math.nan, math.inf, -math.inf]),
    "truths": lambda: numpy.array([True, False]),
    "texts": lambda: numpy.array(["a", "ü", '"']),
    "objects": lambda: numpy.array(["a", None, 1, 1.5], dtype=object),
    "bytes": lambda: numpy.array([b"ab", b"\xff"]),
    "times": lambda: numpy.array(["2024-01-02T03:04:05"], dtype="datetime64[s]"),
    "days": lambda: numpy.array(["2024-01-02"], dtype="datetime64[D]"),
    "matrix": lambda: numpy.array([[1.0, 2.0], [3.0, 4.0]]),
    "a number": lambda: 3,
    "a NumPy number": lambda: numpy.int64(3),
    "a NumPy float": lambda: numpy.float32(0.1),
    "a text": lambda: "yes",
    "nothing": lambda: None,
    "an empty list": lambda: [],
    "a list": lambda: [1, 2.5, "x", None, True],
    "a list of NumPy numbers": lambda: [numpy.int32(1), numpy.float32(0.1), numpy.bool_(True)],
    "a list of arrays": lambda: [numpy.array([1, 2]), numpy.array([3.5])],
    "nested lists": lambda: [[1, [2, [3]]], []],
    "a tuple": lambda: (1, 2),
    "a dictionary": lambda: {"a": [1, 2], "b": "x"},
    "a dictionary of arrays": lambda: {"a": numpy.array([1, 2]), "b": numpy.array([0.1], dtype="float32")},
    "a list of dictionaries": lambda: [{"a": 1}, {"a": numpy.float64(0.5)}],
    "whole numbers as names": lambda: {1: "a"},
    "a frame": lambda: pandas.DataFrame({"a": [1, 2], "b": [0.5, math.nan], "c": ["x", None], "d": [True, False]}),
    "a frame with times": lambda: pandas.DataFrame({"t": pandas.to_datetime(["2024-01-02 03:04:05.678", None]), "n": [1, 2]}),
    "a frame with a zone": lambda: pandas.DataFrame({"t": pandas.to_datetime(["2024-01-02T03:04:05+02:00"])}),
    "a frame of single precision": lambda: pandas.DataFrame({"a": numpy.array([0.1, 1.0], dtype="float32")}),
    "a frame of lists": lambda: pandas.DataFrame({"a": [[1, 2], [3]], "b": [{"x": 1}, {"x": 2}]}),
    "a frame of arrays": lambda: pandas.DataFrame({"a": [numpy.array([1, 2]), numpy.array([0.5])]}),
    "a frame of categories": lambda: pandas.DataFrame({"a": pandas.Categorical(["x", "y"])}),
    "a frame of bytes": lambda: pandas.DataFrame({"a": [b"ab"]}),
    "an empty frame": lambda: pandas.DataFrame({"a": []}),
    "a frame with an index": lambda: pandas.DataFrame({"a": [1, 2]}, index=["x", "y"]),
    "nullable columns": lambda: pandas.DataFrame({"a": pandas.array([1, None], dtype="Int64"), "b": pandas.array(["x", None], dtype="string")}),
    "columns with numbers as names": lambda: pandas.DataFrame({0: [1], 1: [2]}),
    "a series": lambda: pandas.Series([1.5, math.nan]),
    "a series of times": lambda: pandas.Series(pandas.to_datetime(["2024-01-02"])),
    "a time": lambda: [pandas.Timestamp("2024-01-02")],
    "a decimal": lambda: [__import__("decimal").Decimal("1.10")],
    "raw bytes": lambda: [b"ab"],
    "a date": lambda: [__import__("datetime").date(2024, 1, 2)],
    "a set": lambda: {1},
    "a complex number": lambda: [1j],
    "an object": lambda: [object()],
    "a long whole number": lambda: [2**70],
    "an error": lambda: 1 / 0,
    "an error of the caller": lambda: (_ for _ in ()).throw(mlflow.exceptions.MlflowException.invalid_parameter_value("not like this")),
}  # fmt: skip
COLUMNS: dict[str, list[Any]] = {
    "string": ["a", "ü b"], "boolean": [True, False], "integer": [1, -2], "long": [3, 2**40], "float": [0.5, 2.25], "double": [0.1, -1e9],
    "datetime": ["2024-01-02T03:04:05", "1999-12-31T23:59:59"], "binary": ["YWI=", "/w=="],
}  # fmt: skip
VALUES: dict[str, Any] = {
    "null": None, "a whole number": 7, "a whole float": 7.0, "a float": 7.5, "a wide number": 2**33,
    "a huge number": 2**80, "NaN": math.nan, "infinity": math.inf, "true": True, "a text": "abc", "an empty text": "",
    "a number as text": "12", "true as text": "true", "a date": "2024-01-02", "a time with Z": "2024-01-02T03:04:05Z",
    "a time with a zone": "2024-01-02T03:04:05+02:00", "milliseconds": 1704164645000, "no date": "2024-13-45",
    "an early date": "1500-01-01", "base64": "YWJj", "half base64": "YWJ", "a list": [1, 2], "an object": {"x": 1},
}  # fmt: skip

SOME = ("null", "a whole number", "a float", "NaN", "true", "a text", "a date")


def columns(required: bool) -> Schema:
    return Schema([ColSpec(kind, kind, required=required) for kind in COLUMNS])


def save(name: str, model: Any, **more: Any) -> None:
    mlflow.pyfunc.save_model(os.path.join(FOLDER, name), python_model=model, pip_requirements=[], **more)


def save_echo(inputs: Schema | None, params: ParamSchema | None = None) -> Callable[[str], None]:
    return lambda name: save(name, Echo(), **({"signature": ModelSignature(inputs, None, params)} if inputs or params else {}))


def save_sklearn(model: Callable[[], Any], inputs: Any, target: Any, **more: Any) -> Callable[[str], None]:
    def saved(name: str) -> None:
        fitted = model().fit(inputs, target)
        signature = infer_signature(inputs, fitted.predict(inputs))
        mlflow.sklearn.save_model(
            fitted, os.path.join(FOLDER, name), signature=signature, pip_requirements=[], serialization_format="cloudpickle", **more
        )

    return saved


def linear() -> Any:
    from sklearn.linear_model import LinearRegression

    return LinearRegression()


def logistic() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression()


def labels() -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    return make_pipeline(ColumnTransformer([("t", OneHotEncoder(handle_unknown="ignore"), ["t"])], remainder="passthrough"), logistic())


# Requests


def body(**document: Any) -> bytes:
    return json.dumps(document).encode()


def frame_cases(names: list[str], rows: list[list[Any]]) -> Cases:
    """Requests of a frame in every form, and what can be wrong with their form."""
    records = [dict(zip(names, row, strict=True)) for row in rows]
    by_name = {name: [row[index] for row in rows] for index, name in enumerate(names)}
    back = names[::-1]
    split: dict[str, dict[str, Any]] = {
        "": {"columns": names, "data": rows},
        " of one row": {"columns": names, "data": rows[:1]},
        " with an index": {"columns": names, "index": list(range(len(rows))), "data": rows},
        " with texts as index": {"columns": names, "index": [f"r{row}" for row in range(len(rows))], "data": rows},
        " with a short index": {"columns": names, "index": [0], "data": rows},
        " in another order": {"columns": back, "data": [row[::-1] for row in rows]},
        " with one more column": {"columns": ["more", *names], "data": [[9, *row] for row in rows]},
        " without the last column": {"columns": names[:-1], "data": [row[:-1] for row in rows]},
        " without the first column": {"columns": names[1:], "data": [row[1:] for row in rows]},
        " with a column twice": {"columns": [*names, names[0]], "data": [[*row, row[0]] for row in rows]},
        " with other names": {"columns": [f"{name}?" for name in names], "data": rows},
        " without columns": {"data": rows},
        " without data": {"columns": names},
        " of no rows": {"columns": names, "data": []},
        " of no columns": {"columns": [], "data": []},
        " with a short row": {"columns": names, "data": [rows[0], rows[1][:-1]]},
        " with a long row": {"columns": names, "data": [rows[0], [*rows[1], 1]]},
        " with another key": {"columns": names, "data": rows, "more": 1},
        " of one row without its list": {"columns": names, "data": rows[0]},
        " with nulls": {"columns": names, "data": [[None] * len(names)]},
    }
    for name, value in split.items():
        yield Case(f"split{name}", body(dataframe_split=value))
    every: dict[str, list[Any]] = {
        "": records,
        " of one row": records[:1],
        " in another order": [{name: record[name] for name in back} for record in records],
        " in several orders": [records[0], {name: records[1][name] for name in back}],
        " with one more column": [{"more": 9, **record} for record in records],
        " with one more column in one": [records[0], {**records[1], "more": 9}],
        " without the last column": [{name: record[name] for name in names[:-1]} for record in records],
        " without the last column in one": [records[0], {name: records[1][name] for name in names[:-1]}],
        " of no rows": [],
        " of an empty one": [{}],
        " and a number": [records[0], 1],
    }
    for name, value in every.items():
        yield Case(f"records{name}", body(dataframe_records=value))
        yield Case(f"instances of records{name}", body(instances=value))
        yield Case(f"inputs of records{name}", body(inputs=value))
    others: dict[str, Any] = {
        "columns": by_name,
        "columns of one row": {name: values[:1] for name, values in by_name.items()},
        "columns in another order": {name: by_name[name] for name in back},
        "one more column": {**by_name, "more": [9] * len(rows)},
        "one column less": {name: by_name[name] for name in names[:-1]},
        "columns of several lengths": {**by_name, names[0]: by_name[names[0]][:1]},
        "single values": records[0],
        "rows": rows,
        "a row": rows[0],
        "a value": rows[0][0],
        "nothing": None,
        "an empty list": [],
        "an empty object": {},
    }
    for name, value in others.items():
        for form in ("inputs", "instances", "dataframe_split", "dataframe_records"):
            yield Case(f"{form} of {name}", body(**{form: value}))
    good = {"dataframe_split": {"columns": names, "data": rows}}
    for name, document in {
        "two forms": {**good, "instances": rows}, "another key": {**good, "more": 1}, "signature_name": {**good, "signature_name": "x"},
        "no form": {}, "only params": {"params": {}}, "null params": {**good, "params": None}, "empty params": {**good, "params": {}},
        "unknown params": {**good, "params": {"x": 1}}, "params that are a list": {**good, "params": [1]},
    }.items():  # fmt: skip
        yield Case(name, body(**document))
    text = json.dumps(good).encode()
    for name, raw in {
        "broken JSON": text[:-1], "no body": b"", "a list": b"[1, 2]", "null": b"null", "a text": b'"x"', "two documents": text + text,
        "spaces around": b"\n  " + text + b"  \n", "a byte order mark": b"\xef\xbb\xbf" + text, "no UTF-8": b'{"dataframe_split": "\xff"}',
        "a key twice": b'{"dataframe_split": {}, ' + text[1:],
    }.items():  # fmt: skip
        yield Case(name, raw)
    for kind in (
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        "application/json; charset=latin-1",
        "application/json; a=b",
        "Application/JSON",
        "text/plain",
        "",
    ):
        yield Case(f"the type {kind!r}", text, kind)  # fmt: skip
    csv = {
        "": pandas.DataFrame(records), " of one row": pandas.DataFrame(records[:1]), " in another order": pandas.DataFrame(records)[back],
        " with one more column": pandas.DataFrame(records).assign(more=9), " without a column": pandas.DataFrame(records)[names[:-1]],
        " of no rows": pandas.DataFrame(records[:0], columns=names),
    }  # fmt: skip
    for name, frame in csv.items():
        yield Case(f"CSV{name}", frame.to_csv(index=False).encode(), CSV)
    yield Case("CSV of nothing", b"", CSV)
    yield Case("CSV with missing values", (",".join(names) + "\n" + "," * (len(names) - 1) + "\n").encode(), CSV)
    yield Case("CSV of texts", (",".join(names) + "\n" + ",".join(["x"] * len(names)) + "\n").encode(), CSV)
    yield Case("CSV with no UTF-8", b"a\n\xff\n", CSV)


def value_cases(names: list[str], rows: list[list[Any]], values: dict[str, Any] = VALUES) -> Cases:
    """Each kind of value in each column: of a single row, and, for some of them, beside a right one and in another form."""
    for index, name in enumerate(names):
        for value_name, value in values.items():
            row = [*rows[0][:index], value, *rows[0][index + 1 :]]
            yield Case(f"split, {name} is {value_name}", body(dataframe_split={"columns": names, "data": [row]}))
            if value_name in SOME:
                yield Case(
                    f"split, {name} of the second row is {value_name}", body(dataframe_split={"columns": names, "data": [rows[1], row]})
                )
                yield Case(f"inputs, {name} is {value_name}", body(inputs={key: [item] for key, item in zip(names, row, strict=True)}))
        less = [key for key in names if key != name]
        yield Case(f"only {name} is missing", body(dataframe_split={"columns": less, "data": [rows[0][:index] + rows[0][index + 1 :]]}))


def column_cases(names: list[str], rows: list[list[Any]], values: dict[str, Any] = VALUES) -> Cases:
    yield from frame_cases(names, rows)
    yield from value_cases(names, rows, values)


def split_cases(names: list[str], rows: list[list[Any]]) -> Cases:
    return (case for case in frame_cases(names, rows) if case.name.startswith("split"))


def tensor_cases(shape: tuple[int, ...], of: Callable[[int], Any]) -> Cases:
    """For an unnamed tensor of rows of this shape; `of` makes a value out of a number."""
    numbers = itertools.count()

    def filled(dimensions: tuple[int, ...]) -> Any:
        return [filled(dimensions[1:]) for _ in range(dimensions[0])] if dimensions else of(next(numbers))

    def replaced(value: Any) -> Any:
        """The same with one value in place of the first."""
        copied = json.loads(json.dumps(good))
        place = copied
        for _ in shape:
            place = place[0]
        place[0] = value
        return copied

    good = filled((3, *shape))
    given: dict[str, Any] = {
        "rows": good, "one row": good[:1], "no rows": [], "a row without its list": good[0], "one list too many": [good], "a value": of(1),
        "a ragged row": [good[0], good[1][:-1] if shape else [of(1)]], "rows that are too wide": filled((2, *shape[:-1], (shape or (1,))[-1] + 1)),
        "nothing": None, "an empty object": {}, "an empty row": [[]], "a tensor by a name": {"x": good}, "rows by a name": [{"x": row} for row in good],
    }  # fmt: skip
    given.update({f"{name} inside": replaced(value) for name, value in VALUES.items()})
    for name, value in given.items():
        yield Case(f"inputs: {name}", body(inputs=value))
        yield Case(f"instances: {name}", body(instances=value))
    if len(shape) == 1:
        names: list[Any] = [f"c{number}" for number in range(shape[0])]
        for label, some in (("", names), (" with numbers as names", list(range(shape[0]))), (" with a name less", names[:-1])):
            yield Case(f"split{label}", body(dataframe_split={"columns": some, "data": good}))
        yield Case("records", body(dataframe_records=[dict(zip(names, row, strict=True)) for row in good]))
        yield Case("CSV", pandas.DataFrame(good, columns=names).to_csv(index=False).encode(), CSV)
    yield Case("params", body(inputs=good, params={"x": 1}))
    yield Case("two forms", body(inputs=good, instances=good))
    yield Case("no form", body())


def named_tensor_cases() -> Cases:
    a, b = [[0.5, 1], [2.0, 3.5], [1, 1]], [[1], [2], [3]]
    rows = [{"a": left, "b": right} for left, right in zip(a, b, strict=True)]
    given: dict[str, Any] = {
        "tensors": {"a": a, "b": b}, "one row": {"a": a[:1], "b": b[:1]}, "another order": {"b": b, "a": a}, "one less": {"a": a},
        "one more": {"a": a, "b": b, "c": b}, "several lengths": {"a": a, "b": b[:1]}, "other names": {"x": a, "y": b}, "a tensor": a, "rows": rows,
        "a row": rows[0], "rows without a name": [{"a": row["a"]} for row in rows], "floats for whole numbers": {"a": a, "b": [[1.5], [2.5], [3.5]]},
        "whole floats": {"a": a, "b": [[1.0], [2.0], [3.0]]}, "a null": {"a": [[None, 1.0]], "b": [[1]]}, "texts": {"a": [["x", "y"]], "b": [[1]]},
        "other shapes": {"a": [[1.0]], "b": [[1]]}, "no rows": {"a": [], "b": []}, "an empty object": {}, "an empty list": [],
    }  # fmt: skip
    for name, value in given.items():
        yield Case(f"inputs of {name}", body(inputs=value))
        yield Case(f"instances of {name}", body(instances=value))
    yield Case("split", body(dataframe_split={"columns": ["a", "b"], "data": [[[0.5, 1.0], [1]]]}))
    yield Case("records", body(dataframe_records=rows))


def nested_cases() -> Cases:
    good: dict[str, Any] = {"tags": ["a", "b"], "grid": [[1.0, 2.0], [3.0]], "who": {"name": "Ann", "age": 40}, "counts": {"x": 1, "y": 2}}
    given: dict[str, dict[str, Any]] = {
        "all": good, "an empty list": {**good, "tags": []}, "numbers for texts": {**good, "tags": [1, 2]}, "a text for a list": {**good, "tags": "a"},
        "null for a list": {**good, "tags": None}, "null in a list": {**good, "tags": ["a", None]}, "whole numbers for floats": {**good, "grid": [[1], [2]]},
        "a flat list": {**good, "grid": [1.0, 2.0]}, "no optional field": {**good, "who": {"name": "Ann"}}, "no required field": {**good, "who": {"age": 40}},
        "a field more": {**good, "who": {"name": "Ann", "age": 40, "more": 1}}, "a text for an age": {**good, "who": {"name": "Ann", "age": "x"}},
        "null for a field": {**good, "who": {"name": "Ann", "age": None}}, "a list for an object": {**good, "who": ["Ann", 40]},
        "an empty map": {**good, "counts": {}}, "texts in a map": {**good, "counts": {"x": "1"}}, "floats in a map": {**good, "counts": {"x": 1.5}},
        "null for a map": {**good, "counts": None}, "nothing optional": {name: good[name] for name in ("tags", "grid", "who")},
        "no list": {name: good[name] for name in ("grid", "who", "counts")}, "a column more": {**good, "more": 1},
    }  # fmt: skip
    for name, row in given.items():
        yield Case(f"records, {name}", body(dataframe_records=[row]))
        yield Case(f"records, a right one and {name}", body(dataframe_records=[good, row]))
        yield Case(f"split, {name}", body(dataframe_split={"columns": list(row), "data": [list(row.values())]}))
        yield Case(f"inputs, {name}", body(inputs={key: [value] for key, value in row.items()}))
        yield Case(f"inputs of a row, {name}", body(inputs=row))
        yield Case(f"instances, {name}", body(instances=[row]))


def unsigned_cases() -> Cases:
    yield from frame_cases(["a", "b"], [[1, "x"], [2, "y"]])
    for name, value in VALUES.items():
        yield Case(f"split of {name}", body(dataframe_split={"columns": ["a", "b"], "data": [[value, 1], [2, 3]]}))
        yield Case(f"inputs, a row with {name}", body(inputs=[[value, 1], [2, 3]]))
        yield Case(f"instances, a list with {name}", body(instances=[value]))


PARAMS = ParamSchema(
    [
        ParamSpec("threshold", DataType.double, 0.5), ParamSpec("share", DataType.float, 0.25), ParamSpec("most", DataType.long, 3),
        ParamSpec("few", DataType.integer, 1), ParamSpec("name", DataType.string, "x"), ParamSpec("exact", DataType.boolean, False),
        ParamSpec("since", DataType.datetime, numpy.datetime64("2024-01-02")), ParamSpec("weights", DataType.double, [1.0], shape=(-1,)),
    ]
)  # fmt: skip


def params_cases() -> Cases:
    split = {"columns": ["a", "b"], "data": [[1.0, 2.0], [3.0, 4.0]]}
    for spec in PARAMS.params:
        for name, value in VALUES.items():
            yield Case(f"{spec.name} is {name}", body(dataframe_split=split, params={spec.name: value}))
            if name in ("a whole number", "a float", "a text"):
                for form, data in (
                    ("dataframe_records", [{"a": 1.0, "b": 2.0}]),
                    ("inputs", {"a": [1.0], "b": [2.0]}),
                    ("instances", [{"a": 1.0, "b": 2.0}]),
                ):
                    yield Case(f"{form}, {spec.name} is {name}", body(**{form: data}, params={spec.name: value}))
    for name, params in {
        "none": None, "empty": {}, "all": {"threshold": 0.1, "most": 7, "name": "y", "exact": True, "weights": [0.5, 2]}, "unknown": {"other": 1},
        "one unknown": {"threshold": 0.1, "other": 1}, "a list": [1], "a text": "x", "a number": 1,
    }.items():  # fmt: skip
        yield Case(f"{name}", body(dataframe_split=split, params=params))
        yield Case(f"{name}, beside a wrong frame", body(dataframe_split={**split, "columns": ["a", "c"]}, params=params))
    yield Case("without params", body(dataframe_split=split))
    yield Case("CSV", b"a,b\n1.0,2.0\n", CSV)


def answer_cases() -> Cases:
    for name in ANSWERS:
        yield Case(name, body(dataframe_split={"columns": ["name"], "data": [[name]]}))


class Kind(NamedTuple):
    save: Callable[[str], None]
    cases: Callable[[], Cases]
    azure: bool = False
    """Whether its requests are also made of /score."""
    opted: bool = True
    """Whether the deployment says that requests may be predicted together; else it is what the flavour and its check say."""


NAMES = list(COLUMNS)
ROWS = [list(row) for row in zip(*COLUMNS.values(), strict=True)]
NUMBERS, PAIRS = ["x", "y"], [[0.5, 1.0], [2.0, -3.25]]
TABLE = pandas.DataFrame({"t": ["a", "b"] * 20, "n": numpy.arange(40) % 7, "x": numpy.linspace(-1, 1, 40)})
MATRIX = pandas.DataFrame(numpy.random.default_rng(0).normal(size=(40, 2)), columns=NUMBERS)
MODELS: dict[str, Kind] = {
    "every_type": Kind(save_echo(columns(True)), lambda: column_cases(NAMES, ROWS), azure=True),
    "optional": Kind(
        save_echo(columns(False)), lambda: column_cases(NAMES, ROWS, {name: VALUES[name] for name in SOME}), azure=True
    ),
    "one_text": Kind(save_echo(Schema([ColSpec("string", "text")])), lambda: frame_cases(["text"], [["a"], ["b"]]), azure=True),
    "one_number": Kind(save_echo(Schema([ColSpec("double", "x")])), lambda: frame_cases(["x"], [[0.5], [2]]), azure=True),
    "unnamed": Kind(save_echo(Schema([ColSpec("double"), ColSpec("string")])), lambda: split_cases(["a", "b"], [[0.5, "x"], [1.5, "y"]])),
    "unsigned": Kind(save_echo(None), unsigned_cases),
    "params": Kind(save_echo(Schema([ColSpec("double", "a"), ColSpec("double", "b")]), PARAMS), params_cases),
    "nested": Kind(
        save_echo(
            Schema(
                [
                    ColSpec(Array(DataType.string), "tags"), ColSpec(Array(Array(DataType.double)), "grid"),
                    ColSpec(Object([Property("name", DataType.string), Property("age", DataType.long, required=False)]), "who"),
                    ColSpec(Map(DataType.long), "counts", required=False),
                ]
            )
        ),
        nested_cases,
    ),
    "anything": Kind(save_echo(Schema([ColSpec(AnyType(), "a"), ColSpec("long", "b")])), lambda: split_cases(["a", "b"], [["x", 1], ["y", 2]])),
    "doubles": Kind(save_echo(Schema([TensorSpec(numpy.dtype("float64"), (-1, 3))])), lambda: tensor_cases((3,), lambda n: n / 2), azure=True),
    "floats": Kind(save_echo(Schema([TensorSpec(numpy.dtype("float32"), (-1, 2, 2))])), lambda: tensor_cases((2, 2), lambda n: n / 4), azure=True),
    "longs": Kind(save_echo(Schema([TensorSpec(numpy.dtype("int64"), (-1,))])), lambda: tensor_cases((), lambda n: n), azure=True),
    "integers": Kind(save_echo(Schema([TensorSpec(numpy.dtype("int32"), (-1, 2))])), lambda: tensor_cases((2,), lambda n: n)),
    "bytes": Kind(save_echo(Schema([TensorSpec(numpy.dtype("uint8"), (-1, 4))])), lambda: tensor_cases((4,), lambda n: n)),
    "truths": Kind(save_echo(Schema([TensorSpec(numpy.dtype("bool"), (-1, 2))])), lambda: tensor_cases((2,), lambda n: n % 2 == 0)),
    "texts": Kind(save_echo(Schema([TensorSpec(numpy.dtype("str"), (-1, 2))])), lambda: tensor_cases((2,), str)),
    "open_shape": Kind(save_echo(Schema([TensorSpec(numpy.dtype("float64"), (-1, -1))])), lambda: tensor_cases((3,), lambda n: n / 2)),
    "fixed_shape": Kind(save_echo(Schema([TensorSpec(numpy.dtype("float64"), (3, 2))])), lambda: tensor_cases((2,), lambda n: n / 2)),
    "named_tensors": Kind(
        save_echo(Schema([TensorSpec(numpy.dtype("float64"), (-1, 2), "a"), TensorSpec(numpy.dtype("int64"), (-1, 1), "b")])), named_tensor_cases
    ),
    "linear": Kind(save_sklearn(linear, MATRIX, MATRIX.x * 2 + MATRIX.y), lambda: column_cases(NUMBERS, PAIRS), azure=True, opted=False),
    "classes": Kind(save_sklearn(logistic, MATRIX, (MATRIX.x > 0).astype(int)), lambda: split_cases(NUMBERS, PAIRS), opted=False),
    "two_outputs": Kind(save_sklearn(linear, MATRIX, MATRIX * 2), lambda: split_cases(NUMBERS, PAIRS), opted=False),
    "probabilities": Kind(
        save_sklearn(logistic, MATRIX, (MATRIX.x > 0).astype(int), pyfunc_predict_fn="predict_proba"), lambda: split_cases(NUMBERS, PAIRS), opted=False
    ),
    "labels": Kind(
        save_sklearn(labels, TABLE, numpy.where(TABLE.x > 0, "high", "low")), lambda: column_cases(["t", "n", "x"], [["a", 3, 0.5], ["b", 4, -0.5]]),
        opted=False,
    ),
    "matrix": Kind(save_sklearn(linear, MATRIX.to_numpy(), MATRIX.x), lambda: tensor_cases((2,), lambda n: n / 2), azure=True, opted=False),
    "answers": Kind(lambda name: save(name, Answers(), signature=ModelSignature(Schema([ColSpec("string", "name")]))), answer_cases, azure=True, opted=False),
}  # fmt: skip


# The two servers

Answered = tuple[int, Any]
"""Status, and what the body says: JSON, or text."""
Ask = Callable[[Case], "asyncio.Future[Answered]"]


def read(status: int, raw: bytes) -> Answered:
    if status >= 500:
        return status, "an error of the server"  # a traceback, or none
    try:
        said = json.loads(raw)
    except ValueError:
        return status, raw.decode()
    if status != 200 and isinstance(said, dict):
        said.pop("stack_trace", None)
    return status, said


def mlflows(model: Any) -> Callable[[Case], Any]:
    app = scoring_server.init(model)

    async def ask(case: Case) -> Answered:
        headers = [(b"content-length", b"%d" % len(case.body))] + ([(b"content-type", case.kind.encode())] if case.kind else [])
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http", "path": "/invocations",
            "raw_path": b"/invocations", "query_string": b"", "root_path": "", "headers": headers, "client": None, "server": None,
        }  # fmt: skip
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": case.body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        with contextlib.suppress(Exception):  # that the server raises again behind its answer 500
            await app(scope, receive, send)
        return read(sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:]))

    return ask


def yards(server: Any, path: str) -> Callable[[Case], Any]:
    from modelyard_runtime.serving.http1 import Request

    async def ask(case: Case) -> Answered:
        response = await server.handle(Request("POST", path, "", {"content-type": case.kind} if case.kind else {}, case.body))
        return read(response.status, bytes(response.body))

    return ask


def same(one: Any, other: Any) -> bool:
    """Equal in value and type. Floats may differ in their last digits, which depend on how many rows are summed."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return math.isnan(one) and math.isnan(other) or math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[name], other[name]) for name in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def equal(mlflow: Answered, yard: Answered) -> bool:
    """Where MLflow's own server breaks there is nothing to be equal to."""
    return mlflow[0] >= 500 or same(mlflow, yard)


def equal_at_score(mlflow: Answered, yard: Answered) -> bool:
    """/score has the predictions alone and messages of its own, and may take what MLflow refuses; only what the model raises breaks it, as Azure's."""
    status, said = mlflow
    if status == 200:
        return same((200, said.get("predictions")), yard)
    return yard[0] < 500 or status >= 500 or "unexpected error while evaluating the model" in said.get("message", "")


def azures(case: Case, tensors: bool) -> Case | None:
    """The same request of /score, whose `input_data` is a split frame, records, or tensors; None for others."""
    try:
        document = json.loads(case.body)
        params = document.pop("params", None)
        ((form, value),) = document.items()
    except (ValueError, AttributeError, TypeError):
        return None
    forms = {
        "dataframe_split": isinstance(value, dict) and {"columns", "data"} <= set(value),
        "dataframe_records": isinstance(value, list) and all(isinstance(row, dict) for row in value),
        "inputs": tensors and isinstance(value, (dict, list)),
    }
    if case.kind != JSON or not forms.get(form) or not isinstance(params, (dict, type(None))):
        return None
    return case._replace(body=body(**{"input_data": value, **({} if params is None else {"params": params})}))


async def compared(name: str, kind: Kind) -> dict[str, Any]:
    from modelyard_runtime.protocol import ModelKind, ModelServerConfig
    from modelyard_runtime.serving import model_server

    folder = os.path.join(FOLDER, name)
    config = ModelServerConfig(
        socket="", kind=ModelKind.MLFLOW, kit=KIT, timeout_ms=60_000, model_dir=folder, batching=64 if kind.opted else None
    )
    model = model_server.load(config)
    server, cases = model_server.Server(model, config), list(kind.cases())
    mlflow_ask, ask, score = mlflows(mlflow.pyfunc.load_model(folder)), yards(server, "/invocations"), yards(server, "/score")
    expected = {case.name: await mlflow_ask(case) for case in cases}
    assert len(expected) == len(cases), (
        f"{name}: cases have one name: {[case.name for case in cases if sum(other.name == case.name for other in cases) > 1]}"
    )
    ways: dict[str, Any] = {}

    async def by(way: str, asked: list[tuple[Case, Answered]], answers: Any, alike: Callable[[Answered, Answered], bool] = equal) -> None:
        global calls
        calls = 0
        found = await answers
        different = [(case.name, right, answer) for (case, right), answer in zip(asked, found, strict=True) if not alike(right, answer)]
        ways[way] = {"good": sum(status == 200 for status, _ in found), "calls": calls, "different": different}

    async def one_by_one(asked: list[tuple[Case, Answered]]) -> list[Answered]:
        return [await ask(case) for case, _ in asked]

    asked = [(case, expected[case.name]) for case in cases]
    await by("alone", asked, one_by_one(asked))
    good = next((case, right) for case, right in asked if right[0] == 200)
    between = [each for case in asked for each in (good, case)]
    await by("together", between, asyncio.gather(*(ask(case) for case, _ in between)))
    if kind.azure:
        tensors = model.schema is not None and model.schema.is_tensor_spec()
        of_score = [(azure, right) for case, right in asked if (azure := azures(case, tensors)) is not None]
        await by("score", of_score, asyncio.gather(*(score(case) for case, _ in of_score)), equal_at_score)
    return {"batching": model.batching, **ways}


def main() -> None:
    report = {}
    for name, kind in MODELS.items():
        with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
            kind.save(name)
            report[name] = asyncio.run(compared(name, kind))
    print(json.dumps(report))


main()

"""Three ways to predict rows of numbers with a scikit-learn-like model, shorter than MLflow's wrapper, and the proof that one is right.

Each takes a list of rows, as JSON has them, and answers a one-dimensional array with a prediction for each.
"""

from __future__ import annotations

import warnings
from typing import Any, Protocol

from modelyard_runtime.scoring import twin as onnx
from modelyard_runtime.scoring.twin import Conversion, Differs, Twin

INTEGERS, FLOATS = ("long", "integer"), ("double", "float")


class Columns:
    """The columns of a signature: named numbers. `integers` are the indices of those that take whole numbers only."""

    def __init__(self, names: list[str], kinds: list[str]) -> None:
        import numpy

        self.numpy: Any = numpy
        self.names, self.kinds = names, kinds
        self.doubles = all(kind == "double" for kind in kinds)
        self.integers = [index for index, kind in enumerate(kinds) if kind in INTEGERS]
        self.types: dict[str, Any] = {"double": numpy.float64, "float": numpy.float32, "long": numpy.int64, "integer": numpy.int32}

    def matrix(self, rows: list[Any]) -> Any:
        return self.numpy.array(rows, dtype=self.numpy.float64)

    def frame(self, rows: list[Any]) -> Any:
        import pandas

        if self.doubles:
            return pandas.DataFrame(self.matrix(rows), columns=self.names, copy=False)
        columns = list(zip(*rows))
        return pandas.DataFrame(
            {name: self.numpy.array(columns[index], dtype=self.types[self.kinds[index]]) for index, name in enumerate(self.names)}
        )


class Predictor(Protocol):
    def predict(self, rows: list[Any]) -> Any: ...


class MatrixPredictor:
    """The scikit-learn model itself, without its checks: the values are finite, for JSON has no others."""

    def __init__(self, columns: Columns, implementation: Any) -> None:
        import sklearn

        if not columns.doubles:
            raise TypeError("the columns are of several types")
        self.columns, self.model, self.context = columns, implementation.sklearn_model, sklearn.config_context

    def predict(self, rows: list[Any]) -> Any:
        with self.context(assume_finite=True, skip_parameter_validation=True), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the columns have no names: their order was checked
            return self.model.predict(self.columns.matrix(rows))


class FramePredictor:
    """The native model inside MLflow's wrapper, called with a data frame."""

    def __init__(self, columns: Columns, implementation: Any) -> None:
        self.columns, self.implementation = columns, implementation

    def predict(self, rows: list[Any]) -> Any:
        return self.columns.numpy.asarray(self.implementation.predict(self.columns.frame(rows)))


class TwinPredictor:
    """The model's ONNX twin, whose predictions are converted to the type of the model's own."""

    def __init__(self, columns: Columns, twin: Twin, dtype: Any) -> None:
        self.columns, self.twin, self.dtype = columns, twin, dtype

    def predict(self, rows: list[Any]) -> Any:
        return self.twin.predict(self.columns.matrix(rows)).astype(self.dtype, copy=False)


def agrees(predictor: Predictor, columns: Columns, model: Any) -> bool:
    """Whether it predicts what the model does through MLflow's wrapper, row by row and several rows in one call."""
    import pandas

    numpy = columns.numpy
    rows = [[(row * 7 + index * 3) % 5 for index in range(len(columns.kinds))] for row in range(8)]
    frame = pandas.DataFrame(rows, columns=columns.names)
    for name, kind in zip(columns.names, columns.kinds):
        frame[name] = frame[name].astype(columns.types[kind])
    expected = numpy.asarray(model.predict(frame))
    whole = predictor.predict(rows)
    single = numpy.concatenate([predictor.predict([row]) for row in rows])
    same_kind = expected.dtype == whole.dtype and expected.ndim == 1
    return bool(same_kind and numpy.array_equal(expected, whole) and numpy.array_equal(expected, single))


def twin_of(model: Any, columns: Columns, conversion: Conversion) -> tuple[TwinPredictor, str]:
    """The ONNX twin as a predictor, and how far it was found equal. Raises Differs."""
    if not hasattr(model._model_impl, "sklearn_model"):
        raise Differs("only scikit-learn models can have one")
    twin = conversion.result()
    matrix = onnx.samples(len(columns.names), columns.integers, _example(model, columns))
    rows = [[int(value) if index in columns.integers else float(value) for index, value in enumerate(row)] for row in matrix.tolist()]
    original = model._model_impl.sklearn_model
    probabilities = original.predict_proba(columns.frame(rows)) if hasattr(original, "predict_proba") else None
    predicted = FramePredictor(columns, model._model_impl).predict(rows)
    return TwinPredictor(columns, twin, predicted.dtype), onnx.compare(twin, matrix, predicted, probabilities)


def _example(model: Any, columns: Columns) -> Any:
    """The input example that was saved with the model, as a matrix; None when there is none that fits."""
    try:
        return model.input_example[columns.names].to_numpy(dtype=float)
    except Exception:
        return None

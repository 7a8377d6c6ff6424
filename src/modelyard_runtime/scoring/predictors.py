"""Ways from the rows of requests to a loaded MLflow model's predictions: each is shorter than the one before it, and used only where it was proven equal.

A way takes requests of one layout and their `params`, and answers what the model predicts for all their rows.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from typing import Any, Callable, Iterator, Sequence

from modelyard_runtime.scoring import twin as onnx
from modelyard_runtime.scoring.decoding import INTEGERS, ColumnDecoder, Decoded, Decoder
from modelyard_runtime.scoring.twin import Conversion, Differs, Twin

INSIDE = ("steps", "estimator", "estimators", "estimators_", "best_estimator_", "regressor", "transformers")
"""Attributes of scikit-learn's models that have others inside."""
Way = Callable[[Sequence[Decoded], Any], Any]


def ways(model: Any, decoder: Decoder) -> Iterator[Way]:
    """The shortest first, and in the end MLflow's own."""
    for make in (_matrix_way, _native_way):
        try:
            yield make(model, decoder)
        except (AttributeError, TypeError, ImportError):
            continue
    yield lambda parts, params: model.predict(decoder.join(parts), params=params) if params else model.predict(decoder.join(parts))


def _native_way(model: Any, decoder: Decoder) -> Way:
    """What MLflow calls once the schema is enforced."""
    predict = _without_validation(model._predict_fn, model)
    taken = inspect.signature(predict).parameters.get("params")
    if taken is not None and taken.kind is not inspect.Parameter.VAR_KEYWORD:
        return lambda parts, params: predict(decoder.join(parts), params=params)
    return lambda parts, params: predict(decoder.join(parts))


def _without_validation(predict: Callable[..., Any], model: Any) -> Callable[..., Any]:
    """A scikit-learn model without the checks of its own parameters, which were checked when it was fitted."""
    if not hasattr(getattr(model, "_model_impl", None), "sklearn_model"):
        return predict
    try:
        from sklearn import config_context

        with config_context(skip_parameter_validation=True):
            pass
    except (ImportError, TypeError):
        return predict

    @functools.wraps(predict)
    def quick(*arguments: Any, **named: Any) -> Any:
        with config_context(skip_parameter_validation=True):
            return predict(*arguments, **named)

    return quick


def _matrix_way(model: Any, decoder: Decoder) -> Way:
    """A scikit-learn model without a frame and its checks of names, of columns that are required doubles.

    An estimator that has no other inside is not asked whether its values are finite, for JSON has no others.
    """
    import sklearn

    implementation = model._model_impl
    # MLflow's wrapper does nothing but call it, or the method that the model was saved with.
    predict = implementation.sklearn_model.predict if model._predict_fn == implementation.predict else model._predict_fn
    if not isinstance(decoder, ColumnDecoder) or not all(column.required and column.type == "double" for column in decoder.columns):
        raise TypeError("the columns are not all required doubles")
    array = decoder.columns[0].kind.array
    settings = {"skip_parameter_validation": True, "assume_finite": not any(hasattr(implementation.sklearn_model, name) for name in INSIDE)}
    with sklearn.config_context(**settings):  # one of before 1.2 does not know them
        pass

    def way(parts: Sequence[Decoded], params: Any) -> Any:
        rows = parts[0].data if len(parts) == 1 else [row for part in parts for row in part.data]
        with sklearn.config_context(**settings), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the columns have no names: their order was checked
            return predict(array(rows))

    return way


def twin_way(model: Any, decoder: Any, conversion: Conversion) -> tuple[Way, str]:
    """By the model's ONNX twin, and how far it was found equal. Raises Differs."""
    if not isinstance(decoder, ColumnDecoder) or not decoder.numeric or not all(column.required for column in decoder.columns):
        raise Differs("only models of named numbers, all required, can have one")
    if not hasattr(model._model_impl, "sklearn_model"):
        raise Differs("only scikit-learn models can have one")
    if model._predict_fn != model._model_impl.predict:
        raise Differs("the model answers by a method other than predict")
    twin = conversion.result()
    integers = [index for index, column in enumerate(decoder.columns) if column.type in INTEGERS]
    matrix = onnx.samples(len(decoder.names), integers, _example(model, decoder))
    rows = [[int(value) if index in integers else float(value) for index, value in enumerate(row)] for row in matrix.tolist()]
    frame = decoder.join([Decoded(decoder.layout, rows, len(rows))])
    original = model._model_impl.sklearn_model
    probabilities = original.predict_proba(frame) if hasattr(original, "predict_proba") else None
    predicted = original.predict(frame)
    found = onnx.compare(twin, matrix, predicted, probabilities)
    return _by_twin(twin, predicted.dtype), found


def _by_twin(twin: Twin, dtype: Any) -> Way:
    import numpy

    def way(parts: Sequence[Decoded], params: Any) -> Any:
        rows = parts[0].data if len(parts) == 1 else [row for part in parts for row in part.data]
        return twin.predict(numpy.array(rows, dtype=numpy.float64)).astype(dtype, copy=False)

    return way


def _example(model: Any, decoder: ColumnDecoder) -> Any:
    """The input example that was saved with the model, as a matrix; None when there is none that fits."""
    try:
        return model.input_example[decoder.names].to_numpy(dtype=float)
    except Exception:
        return None

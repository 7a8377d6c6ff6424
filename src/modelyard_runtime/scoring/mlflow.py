"""An MLflow model without a script: Azure's `input_data` at /score, MLflow's own server's contract at /invocations.

/invocations is MLflow's own code where the environment has it, so that every message and status is the genuine one. Requests that
are plain numbers for a signature of numbers take a shorter way to the same prediction; it is compared with the long one when the
model is loaded, and not used unless they agree.
"""

from __future__ import annotations

import json
import os
from typing import Any, Mapping
from urllib.parse import parse_qsl

from modelyard_runtime.protocol import ModelServerConfig
from modelyard_runtime.scoring import openapi
from modelyard_runtime.scoring.contract import Answer, BadInput, Handler, Request, encode, json_body, plain
from modelyard_runtime.scoring.predictors import FLOATS, INTEGERS, Columns, FramePredictor, MatrixPredictor, Predictor, agrees, twin_of
from modelyard_runtime.scoring.twin import Conversion, Differs

ROW_WISE = ("sklearn", "lightgbm", "xgboost", "catboost")
"""Flavours whose predictions of a row do not depend on the other rows."""


class MlflowModel:
    methods: Mapping[str, tuple[str, ...]] = {
        "/score": ("POST",), "/invocations": ("POST",), "/swagger.json": ("GET",), "/version": ("GET",),
    }  # fmt: skip

    def __init__(self, config: ModelServerConfig) -> None:
        folder = next((current for current, _, files in os.walk(config.model_dir or "") if "MLmodel" in files), None)
        if folder is None:
            raise FileNotFoundError("the model holds no MLmodel file; a model without one needs a scoring script")
        os.environ.setdefault("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")
        conversion = Conversion(folder, config.twin) if config.twin else None  # while the model is loaded
        import mlflow.pyfunc

        self.model: Any = mlflow.pyfunc.load_model(folder)
        self.schema: Any = self.model.metadata.get_input_schema() if self.model.metadata is not None else None
        self.batch = RowBatch.of(self.model, self.schema)
        self.twin = ""
        if conversion is not None:
            self.twin = self._take_twin(conversion)
            print("[modelyard] the ONNX twin is " + self.twin, flush=True)

    def _take_twin(self, conversion: Conversion) -> str:
        """Predict by the ONNX twin from now on, if it is equal; whether it is used, for a person."""
        try:
            if self.batch is None:
                raise Differs("only models of named numbers that predict row by row can have one")
            self.batch.predictor, equal = twin_of(self.model, self.batch.columns, conversion)
            return "used: " + equal
        except Exception as problem:
            conversion.stop()
            return "not used: %s" % (str(problem) or type(problem).__name__)

    def routes(self) -> Mapping[str, Handler]:
        return {"/score": self.score, "/invocations": self.invocations, "/swagger.json": self.swagger, "/version": self.version}

    def score(self, request: Request) -> Answer:
        document = json_body(request)
        if "input_data" not in document:
            raise BadInput('the body must be {"input_data": …}: a split frame, records, rows or named tensors')
        return Answer(200, encode(self.predict(self._input(document["input_data"]), document.get("params"))))

    def invocations(self, request: Request) -> Answer:
        from mlflow.exceptions import MlflowException

        try:
            from mlflow.pyfunc.scoring_server import invocations
        except ImportError:
            return self._invocations(request)
        try:
            done = invocations(request.body, request.headers.get("content-type") or "", self.model, self.schema)
        except MlflowException as problem:
            return Answer(problem.get_http_status_code(), problem.serialize_as_json().encode())
        return Answer(done.status, done.response.encode(), content_type=done.mimetype)

    def _invocations(self, request: Request) -> Answer:
        """For environments whose MLflow has no scoring server."""
        document = json_body(request)
        forms = [name for name in ("dataframe_split", "dataframe_records", "instances", "inputs") if name in document]
        if len(forms) != 1:
            raise BadInput("the body must have exactly one of dataframe_split, dataframe_records, instances and inputs")
        return Answer(200, encode({"predictions": self.predict(self._input(document[forms[0]]), document.get("params"))}))

    def version(self, request: Request) -> Answer:
        import mlflow

        return Answer(200, mlflow.__version__.encode())

    def swagger(self, request: Request) -> Answer:
        version = dict(parse_qsl(request.query)).get("version", "2")
        if version not in openapi.VERSIONS:
            return Answer(404, openapi.NO_SUCH_VERSION)
        columns: dict[str, dict[str, str]] = {}
        if self.schema is not None and self.schema.has_input_names() and not self.schema.is_tensor_spec():
            kinds = {**dict.fromkeys(INTEGERS, "integer"), **dict.fromkeys(FLOATS, "number"), "boolean": "boolean"}
            columns = {str(column.name): {"type": kinds.get(getattr(column.type, "name", ""), "string")} for column in self.schema.inputs}
        row: dict[str, Any] = {"type": "object", "properties": columns}
        inputs: dict[str, tuple[dict[str, Any], bool]] = {
            "input_data": ({"type": "array", "items": row}, False),
            "params": ({"type": "object"}, True),
        }
        return Answer(200, json.dumps(openapi.document(version, inputs, {"type": "array", "items": {}})).encode())

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            result = self.model.predict(data, params=params) if params else self.model.predict(data)
        except MlflowException as problem:
            if problem.get_http_status_code() == 400:
                raise BadInput(problem.message) from None
            raise
        return plain(result)

    def _input(self, value: Any) -> Any:
        """The argument of the model's `predict` for `input_data`. Raises BadInput."""
        import numpy
        import pandas

        columns = self.schema.input_names() if self.schema is not None and self.schema.has_input_names() else None
        if isinstance(value, dict) and "data" in value and "columns" in value:
            frame = pandas.DataFrame(value["data"], columns=value["columns"])
            return self.typed(frame)
        if isinstance(value, dict):
            if self.schema is not None and not self.schema.is_tensor_spec():
                return self.typed(pandas.DataFrame({name: _column(items) for name, items in value.items()}))
            return {name: numpy.asarray(items) for name, items in value.items()}
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return self.typed(pandas.DataFrame(value))
        if isinstance(value, list):
            if self.schema is not None and self.schema.is_tensor_spec():
                kind = self.schema.numpy_types()[0]
                return numpy.asarray(value, dtype=kind)
            if columns is not None:
                rows = [row if isinstance(row, list) else [row] for row in value]
                if any(len(row) != len(columns) for row in rows):
                    raise BadInput("each row needs %d values: %s" % (len(columns), ", ".join(map(str, columns[:20]))))
                return self.typed(pandas.DataFrame(rows, columns=columns))
            return numpy.asarray(value)
        raise BadInput("input_data is a split frame, a list of records or rows, or named tensors")

    def typed(self, frame: Any) -> Any:
        """JSON does not tell integers from floats: columns take the types of the signature when that loses nothing."""
        import numpy

        if self.schema is None or self.schema.is_tensor_spec() or not self.schema.has_input_names():
            return frame
        for name, kind in self.schema.input_dict().items():
            if name not in frame.columns:
                continue
            type_name = kind.type.name if hasattr(kind.type, "name") else ""
            try:
                if type_name in FLOATS:
                    frame[name] = frame[name].astype(numpy.float64 if type_name == "double" else numpy.float32)
                elif type_name in INTEGERS:
                    cast = frame[name].astype(numpy.int64 if type_name == "long" else numpy.int32)
                    if (cast == frame[name]).all():
                        frame[name] = cast
                elif type_name == "datetime":
                    frame[name] = frame[name].astype("datetime64[ns]")
            except (ValueError, TypeError) as problem:
                raise BadInput("column %s cannot be read as %s: %s" % (name, type_name, problem)) from None
        return frame


def _column(items: Any) -> list[Any]:
    return items if isinstance(items, list) else [items]


class RowBatch:
    """A signature as a decoder from JSON to rows, and a way to predict them that is shorter than MLflow's wrapper: a `contract.Batch`.

    Only for signatures of named numbers and flavours that predict row by row, so that rows of several requests can be put together.
    """

    def __init__(self, columns: Columns, predictor: Predictor) -> None:
        self.columns, self.predictor = columns, predictor
        self.names, self.integers = columns.names, columns.integers

    @classmethod
    def of(cls, model: Any, schema: Any) -> RowBatch | None:
        """None when each request has to be predicted by itself."""
        try:
            loader = (model.metadata.flavors.get("python_function") or {}).get("loader_module", "")
            if schema is None or schema.is_tensor_spec() or not schema.has_input_names() or loader.rpartition(".")[2] not in ROW_WISE:
                return None
            kinds = [getattr(column.type, "name", "") for column in schema.inputs]
            if not kinds or any(kind not in INTEGERS + FLOATS for kind in kinds) or not all(column.required for column in schema.inputs):
                return None
            columns = Columns([str(column.name) for column in schema.inputs], kinds)
            for kind in (MatrixPredictor, FramePredictor):
                try:
                    predictor: Predictor = kind(columns, model._model_impl)
                    if agrees(predictor, columns, model):
                        return cls(columns, predictor)
                except Exception:
                    continue  # such as a model that asks for columns by name
            return None
        except Exception as problem:
            print("[modelyard] requests are predicted one by one: %s: %s" % (type(problem).__name__, problem), flush=True)
            return None

    def predict(self, rows: list[Any]) -> Any:
        return self.predictor.predict(rows)

    def decode(self, request: Request) -> tuple[list[Any], bool] | None:
        import orjson

        if request.path not in ("/score", "/invocations") or request.method != "POST":
            return None
        kind = request.headers.get("content-type", "")
        if kind != "application/json" and not (kind == "" and request.path == "/score"):
            return None
        try:
            document = orjson.loads(request.body)
        except ValueError:
            return None
        if type(document) is not dict or len(document) != 1:
            return None
        form, value = next(iter(document.items()))
        azure = request.path == "/score"  # the form of the answer, too
        if form not in (("input_data",) if azure else ("dataframe_split", "dataframe_records")):
            return None
        rows = self._rows(value)
        return None if rows is None else (rows, azure)

    def _rows(self, value: Any) -> list[Any] | None:
        if type(value) is dict:
            if not set(value) <= {"columns", "index", "data"} or value.get("columns") != self.names or type(value.get("data")) is not list:
                return None
            rows = value["data"]
        elif type(value) is list and value and type(value[0]) is dict:
            width = len(self.names)
            try:
                rows = [[row[name] for name in self.names] if len(row) == width else None for row in value]
            except (KeyError, TypeError):
                return None
        elif type(value) is list:
            rows = value
        else:
            return None
        width = len(self.names)
        for row in rows:
            if type(row) is not list or len(row) != width:
                return None
            for item in row:
                if type(item) is not float and type(item) is not int:
                    return None
            for index in self.integers:
                if type(row[index]) is not int:
                    return None
        return rows or None

    def encode(self, predictions: Any, form: bool) -> Answer | None:
        if predictions.dtype.kind == "f" and not self.columns.numpy.isfinite(predictions).all():
            return None
        values = predictions.tolist()
        return Answer(200, encode(values if form else {"predictions": values}))

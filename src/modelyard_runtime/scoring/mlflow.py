"""An MLflow model without a script: Azure's `input_data` at /score, MLflow's own server's contract at /invocations.

/invocations is MLflow's own code where the environment has it, so that every message and status is the genuine one. Requests that the
signature takes as they are go a shorter way to the same prediction, see `decoding` and `batching`.
"""

from __future__ import annotations

import json
import os
from typing import Any, Mapping
from urllib.parse import parse_qsl

from modelyard_runtime.protocol import ModelServerConfig
from modelyard_runtime.scoring import openapi
from modelyard_runtime.scoring.batching import RowBatch
from modelyard_runtime.scoring.contract import Answer, BadInput, Handler, Request, encode, json_body, plain
from modelyard_runtime.scoring.decoding import FLOATS, INTEGERS, Undecodable
from modelyard_runtime.scoring.predictors import twin_way
from modelyard_runtime.scoring.twin import Conversion, Differs

EXAMPLE = "serving_input_example.json"
"""The body of a request to /invocations that MLflow saves beside a model, from its input example."""


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
        example = self._example(folder)
        self.batching = ""
        self.batch = self._batch(config.batching, example)
        print("[modelyard] requests are predicted " + self.batching, flush=True)
        if example is not None and (self.batch is None or self.batch.most == 1):
            self._warm(example)
        self.twin = ""
        if conversion is not None:
            self.twin = self._take_twin(conversion)
            print("[modelyard] the ONNX twin is " + self.twin, flush=True)

    def _batch(self, wanted: int | None, example: Request | None) -> RowBatch | None:
        try:
            batch = RowBatch(self.model, self.schema, wanted, example, self._failed)
        except Exception as problem:
            reason = str(problem) if isinstance(problem, Undecodable) else "%s: %s" % (type(problem).__name__, problem)
            self.batching = "one by one: " + reason
            return None
        self.batching = batch.summary
        return batch

    @staticmethod
    def _example(folder: str) -> Request | None:
        path = os.path.join(folder, EXAMPLE)
        if not os.path.isfile(path):
            return None
        with open(path, "rb") as file:
            return Saved(file.read())

    def _warm(self, example: Request) -> None:
        """The first prediction of a process may take long; no caller waits for it."""
        answer = self.invocations(example)
        if answer.status != 200:
            print("[modelyard] the model did not answer its own example: %s" % str(answer.body)[:500], flush=True)

    def _take_twin(self, conversion: Conversion) -> str:
        """Predict by the ONNX twin from now on, if it is equal; whether it is used, for a person."""
        try:
            if self.batch is None or self.batch.most == 1:
                raise Differs("only models of named numbers that predict row by row can have one")
            self.batch.way, equal = twin_way(self.model, self.batch.decoder, conversion)
            return "used: " + equal
        except Exception as problem:
            conversion.stop()
            return "not used: %s" % (str(problem) or type(problem).__name__)

    def routes(self) -> Mapping[str, Handler]:
        return {"/score": self.score, "/invocations": self.invocations, "/swagger.json": self.swagger, "/version": self.version}

    def score(self, request: Request, model: Any = None) -> Answer:
        document = json_body(request)
        if "input_data" not in document:
            raise BadInput('the body must be {"input_data": …}: a split frame, records, rows or named tensors')
        return Answer(200, encode(self._predict(model or self.model, self._input(document["input_data"]), document.get("params"))))

    def invocations(self, request: Request) -> Answer:
        return self._invoke(request, self.model)

    def _invoke(self, request: Request, model: Any) -> Answer:
        from mlflow.exceptions import MlflowException

        try:
            from mlflow.pyfunc.scoring_server import invocations
        except ImportError:
            return self._invocations(request, model)
        try:
            done = invocations(request.body, request.headers.get("content-type") or "", model, self.schema)
        except MlflowException as problem:
            return Answer(problem.get_http_status_code(), problem.serialize_as_json().encode())
        return Answer(done.status, done.response.encode(), content_type=done.mimetype)

    def _invocations(self, request: Request, model: Any) -> Answer:
        """For environments whose MLflow has no scoring server."""
        document = json_body(request)
        forms = [name for name in ("dataframe_split", "dataframe_records", "instances", "inputs") if name in document]
        if len(forms) != 1:
            raise BadInput("the body must have exactly one of dataframe_split, dataframe_records, instances and inputs")
        return Answer(
            200, encode({"predictions": self._predict(model, self._parsed(forms[0], document[forms[0]]), document.get("params"))})
        )

    def _failed(self, request: Request, problem: BaseException) -> Answer | BaseException:
        """What the model raised, worded as if MLflow's own code had called it."""
        try:
            return (self.score if request.path == "/score" else self._invoke)(request, Raises(self.model, problem))
        except BaseException as worded:
            return worded

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
        return self._predict(self.model, data, params)

    @staticmethod
    def _predict(model: Any, data: Any, params: dict[str, Any] | None) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            result = model.predict(data, params=params) if params else model.predict(data)
        except MlflowException as problem:
            if problem.get_http_status_code() == 400:
                raise BadInput(problem.message) from None
            raise
        return plain(result)

    def _input(self, value: Any) -> Any:
        """The argument of the model's `predict` for `input_data`, as MLflow's server would parse the same in a form of its own. Raises BadInput."""
        schema = self.schema
        tensors = schema is not None and schema.is_tensor_spec()
        if isinstance(value, dict):
            return self._parsed("dataframe_split" if "data" in value and "columns" in value else "inputs", value)
        if not isinstance(value, list):
            raise BadInput("input_data is a split frame, a list of records or rows, or named tensors")
        if value and isinstance(value[0], dict) or not value and not tensors:
            return self._parsed("dataframe_records", value)
        if schema is None or tensors or not schema.has_input_names():
            return self._parsed("inputs", value)
        names = schema.input_names()
        rows = [row if isinstance(row, list) else [row] for row in value]
        if any(len(row) != len(names) for row in rows):
            raise BadInput("each row needs %d values: %s" % (len(names), ", ".join(map(str, names[:20]))))
        return self._parsed("dataframe_split", {"columns": names, "data": rows})

    def _parsed(self, form: str, value: Any) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            from mlflow.utils.proto_json_utils import dataframe_from_parsed_json, parse_tf_serving_input
        except ImportError:
            return self._of_old_mlflow(form, value)
        try:
            if form.startswith("dataframe_"):
                return dataframe_from_parsed_json(value, pandas_orient=form[len("dataframe_") :], schema=self.schema)
            return parse_tf_serving_input({form: value}, schema=self.schema)
        except MlflowException as problem:
            raise BadInput(problem.message) from None

    def _of_old_mlflow(self, form: str, value: Any) -> Any:
        """Where MLflow parses no JSON that was parsed: before its version 2."""
        import numpy
        import pandas

        if form == "dataframe_split":
            return self.typed(pandas.DataFrame(value["data"], columns=value["columns"]))
        if form == "dataframe_records":
            return self.typed(pandas.DataFrame(value))
        if self.schema is not None and not self.schema.is_tensor_spec() and isinstance(value, dict):
            return self.typed(pandas.DataFrame({name: items if isinstance(items, list) else [items] for name, items in value.items()}))
        return {name: numpy.asarray(items) for name, items in value.items()} if isinstance(value, dict) else numpy.asarray(value)

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


class Saved:
    """The request that was saved with a model."""

    method, path, query = "POST", "/invocations", ""

    def __init__(self, body: bytes) -> None:
        self.headers, self.body = {"content-type": "application/json"}, body


class Raises:
    """Stands for a model that has been asked and has raised."""

    def __init__(self, model: Any, problem: BaseException) -> None:
        self.metadata, self.problem = model.metadata, problem

    def predict(self, data: Any, params: Any = None) -> Any:
        raise self.problem

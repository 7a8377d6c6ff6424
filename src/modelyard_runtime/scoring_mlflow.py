"""An MLflow model without a script: Azure's `input_data` at /score, MLflow's own server's contract at /invocations.

/invocations is MLflow's own code where the environment has it, so that every message and status is the genuine one. Requests that
are plain numbers for a signature of numbers take a shorter way to the same prediction; it is compared with the long one when the
model is loaded, and not used unless they agree.
"""

import json
import os
import warnings
from urllib.parse import parse_qsl

import onnx_twin
import openapi
from contract import Answer, BadInput, encode, json_body, plain

INTEGERS, FLOATS = ("long", "integer"), ("double", "float")
ROW_WISE = ("sklearn", "lightgbm", "xgboost", "catboost")
"""Flavours whose predictions of a row do not depend on the other rows."""


class MlflowModel:
    def __init__(self, config):
        root = config["model_dir"]
        folder = next((current for current, _, files in os.walk(root) if "MLmodel" in files), None)
        if folder is None:
            raise FileNotFoundError("the model holds no MLmodel file; a model without one needs a scoring script")
        os.environ.setdefault("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")
        conversion = onnx_twin.Conversion(folder, config["twin"]) if config.get("twin") else None  # while the model is loaded
        import mlflow.pyfunc

        self.model = mlflow.pyfunc.load_model(folder)
        self.schema = self.model.metadata.get_input_schema() if self.model.metadata is not None else None
        self.name = config.get("name") or "model"
        self.batch = Compiled.make(self.model, self.schema, conversion)

    methods = {"/score": ("POST",), "/invocations": ("POST",), "/swagger.json": ("GET",), "/version": ("GET",)}

    def routes(self):
        return {"/score": self.score, "/invocations": self.invocations, "/swagger.json": self.swagger, "/version": self.version}

    def score(self, request):
        document = json_body(request)
        if "input_data" not in document:
            raise BadInput('the body must be {"input_data": …}: a split frame, records, rows or named tensors')
        return Answer(200, encode(self.predict(self._input(document["input_data"]), document.get("params"))))

    def invocations(self, request):
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

    def _invocations(self, request):
        """For environments whose MLflow has no scoring server."""
        document = json_body(request)
        forms = [name for name in ("dataframe_split", "dataframe_records", "instances", "inputs") if name in document]
        if len(forms) != 1:
            raise BadInput("the body must have exactly one of dataframe_split, dataframe_records, instances and inputs")
        return Answer(200, encode({"predictions": self.predict(self._input(document[forms[0]]), document.get("params"))}))

    def version(self, request):
        import mlflow

        return Answer(200, mlflow.__version__.encode())

    def swagger(self, request):
        version = dict(parse_qsl(request.query)).get("version", "2")
        if version not in openapi.VERSIONS:
            return Answer(404, openapi.NO_SUCH_VERSION)
        columns = {}
        if self.schema is not None and self.schema.has_input_names() and not self.schema.is_tensor_spec():
            kinds = {**dict.fromkeys(INTEGERS, "integer"), **dict.fromkeys(FLOATS, "number"), "boolean": "boolean"}
            columns = {str(column.name): {"type": kinds.get(getattr(column.type, "name", ""), "string")} for column in self.schema.inputs}
        row = {"type": "object", "properties": columns}
        inputs = {"input_data": ({"type": "array", "items": row}, False), "params": ({"type": "object"}, True)}
        return Answer(200, json.dumps(openapi.document(version, inputs, {"type": "array", "items": {}})).encode())

    def predict(self, data, params=None):
        from mlflow.exceptions import MlflowException

        try:
            result = self.model.predict(data, params=params) if params else self.model.predict(data)
        except MlflowException as problem:
            if problem.get_http_status_code() == 400:
                raise BadInput(problem.message) from None
            raise
        return plain(result)

    def _input(self, value):
        import numpy
        import pandas

        columns = self.schema.input_names() if self.schema is not None and self.schema.has_input_names() else None
        if isinstance(value, dict) and "data" in value and "columns" in value:
            frame = pandas.DataFrame(value["data"], columns=value["columns"])
            return self._typed(frame)
        if isinstance(value, dict):
            if self.schema is not None and not self.schema.is_tensor_spec():
                return self._typed(pandas.DataFrame({name: _column(items) for name, items in value.items()}))
            return {name: numpy.asarray(items) for name, items in value.items()}
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return self._typed(pandas.DataFrame(value))
        if isinstance(value, list):
            if self.schema is not None and self.schema.is_tensor_spec():
                kind = self.schema.numpy_types()[0]
                return numpy.asarray(value, dtype=kind)
            if columns is not None:
                rows = [row if isinstance(row, list) else [row] for row in value]
                if any(len(row) != len(columns) for row in rows):
                    raise BadInput("each row needs %d values: %s" % (len(columns), ", ".join(map(str, columns[:20]))))
                return self._typed(pandas.DataFrame(rows, columns=columns))
            return numpy.asarray(value)
        raise BadInput("input_data is a split frame, a list of records or rows, or named tensors")

    def _typed(self, frame):
        """JSON does not tell integers from floats: columns take the types of the signature when that loses nothing."""
        import numpy

        if self.schema is None or self.schema.is_tensor_spec() or not self.schema.has_input_names():
            return frame
        for name, kind in self.schema.input_dict().items():
            if name not in frame.columns:
                continue
            wanted = kind.type.name if hasattr(kind.type, "name") else ""
            try:
                if wanted in FLOATS:
                    frame[name] = frame[name].astype(numpy.float64 if wanted == "double" else numpy.float32)
                elif wanted in INTEGERS:
                    cast = frame[name].astype(numpy.int64 if wanted == "long" else numpy.int32)
                    if (cast == frame[name]).all():
                        frame[name] = cast
                elif wanted == "datetime":
                    frame[name] = frame[name].astype("datetime64[ns]")
            except (ValueError, TypeError) as problem:
                raise BadInput("column %s cannot be read as %s: %s" % (name, wanted, problem)) from None
        return frame


def _column(items):
    return items if isinstance(items, list) else [items]


class Compiled:
    """The signature as a decoder from JSON to one array, and the model behind MLflow's wrapper.

    `decode` gives (rows, how to write the answer), or None for what takes the long way; rows of several requests may be predicted
    together. Only for signatures of named numbers and flavours that predict row by row.
    """

    def __init__(self, model, names, kinds):
        import numpy

        self.numpy = numpy
        self.model, self.names, self.kinds = model, names, kinds
        self.whole = all(kind == "double" for kind in kinds)
        self.integers = [index for index, kind in enumerate(kinds) if kind in INTEGERS]
        self.types = {"double": numpy.float64, "float": numpy.float32, "long": numpy.int64, "integer": numpy.int32}

    @classmethod
    def make(cls, model, schema, conversion=None):
        """None when requests have to take the long way. `conversion`: of its ONNX twin, if it shall have one."""
        made = cls._make(model, schema)
        if conversion is not None:
            try:
                if made is None:
                    raise onnx_twin.Differs("only models of named numbers that predict row by row can have one")
                print("[modelyard] the ONNX twin is used: " + made.take_twin(conversion), flush=True)
            except Exception as problem:
                conversion.stop()
                print("[modelyard] the ONNX twin is not used: %s" % (str(problem) or type(problem).__name__), flush=True)
        return made

    @classmethod
    def _make(cls, model, schema):
        try:
            loader = (model.metadata.flavors.get("python_function") or {}).get("loader_module", "")
            if schema is None or schema.is_tensor_spec() or not schema.has_input_names() or loader.rpartition(".")[2] not in ROW_WISE:
                return None
            kinds = [getattr(column.type, "name", "") for column in schema.inputs]
            if not kinds or any(kind not in INTEGERS + FLOATS for kind in kinds) or not all(column.required for column in schema.inputs):
                return None
            made = cls(model, [str(column.name) for column in schema.inputs], kinds)
            for way in (made._by_matrix, made._by_frame):
                made.predict = way
                try:
                    if made._agrees():
                        return made
                except Exception:
                    continue  # such as a model that asks for columns by name
            return None
        except Exception as problem:
            print("[modelyard] requests take the long way: %s: %s" % (type(problem).__name__, problem), flush=True)
            return None

    def _agrees(self):
        """Whether the short way predicts what the long one does, alone and together."""
        import pandas

        rows = [[(row * 7 + index * 3) % 5 for index in range(len(self.kinds))] for row in range(8)]
        frame = pandas.DataFrame(rows, columns=self.names)
        for index, kind in enumerate(self.kinds):
            frame[self.names[index]] = frame[self.names[index]].astype(self.types[kind])
        long = self.numpy.asarray(self.model.predict(frame))
        short = self.predict(rows)
        single = self.numpy.concatenate([self.predict([row]) for row in rows])
        return long.dtype == short.dtype and long.ndim == 1 and self.numpy.array_equal(long, short) and self.numpy.array_equal(long, single)

    def take_twin(self, conversion):
        """Predict by the ONNX twin from now on; how far it was found equal. Raises onnx_twin.Differs."""
        if not hasattr(self.model._model_impl, "sklearn_model"):
            raise onnx_twin.Differs("only scikit-learn models can have one")
        twin = conversion.result()
        matrix = onnx_twin.samples(len(self.names), self.integers, self._example())
        rows = [
            [int(value) if index in self.integers else float(value) for index, value in enumerate(row)] for row in matrix.tolist()
        ]  # fmt: skip
        own = self.model._model_impl.sklearn_model
        probabilities = own.predict_proba(self._frame(rows)) if hasattr(own, "predict_proba") else None
        predicted = self._by_frame(rows)
        equal = onnx_twin.compare(twin, matrix, predicted, probabilities)
        kind = predicted.dtype
        self.predict = lambda rows: twin.predict(self.numpy.array(rows, dtype=self.numpy.float64)).astype(kind, copy=False)
        return equal

    def _example(self):
        """The input example that was saved with the model, as a matrix; None when there is none that fits."""
        try:
            return self.model.input_example[self.names].to_numpy(dtype=float)
        except Exception:
            return None

    def decode(self, request):
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
        azure = request.path == "/score"
        if form not in (("input_data",) if azure else ("dataframe_split", "dataframe_records")):
            return None
        rows = self._rows(value)
        return None if rows is None else (rows, azure)

    def _rows(self, value):
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

    def _by_matrix(self, rows):
        """Predictions of all rows, a one-dimensional array, by the scikit-learn model itself: the values are finite, JSON has no others."""
        import sklearn

        if not self.whole:
            raise TypeError("the columns are of several types")
        with sklearn.config_context(assume_finite=True, skip_parameter_validation=True), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the columns have no names: their order was checked
            return self.model._model_impl.sklearn_model.predict(self.numpy.array(rows, dtype=self.numpy.float64))

    def _by_frame(self, rows):
        """The same by MLflow's wrapper, which is given a frame."""
        return self.numpy.asarray(self.model._model_impl.predict(self._frame(rows)))

    def _frame(self, rows):
        import pandas

        if self.whole:
            return pandas.DataFrame(self.numpy.array(rows, dtype=self.numpy.float64), columns=self.names, copy=False)
        columns = list(zip(*rows))
        return pandas.DataFrame(
            {name: self.numpy.array(columns[index], dtype=self.types[self.kinds[index]]) for index, name in enumerate(self.names)}
        )

    def encode(self, predictions, azure):
        """None when there is a value that JSON has no word for."""
        if predictions.dtype.kind == "f" and not self.numpy.isfinite(predictions).all():
            return None
        values = predictions.tolist()
        return Answer(200, encode(values if azure else {"predictions": values}))

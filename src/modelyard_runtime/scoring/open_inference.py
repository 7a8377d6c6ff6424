"""The Open Inference Protocol, version 2, over an MLflow model: named tensors in and out (reference `serving-contracts`, section 4)."""

from __future__ import annotations

import json
from typing import Any

from modelyard_runtime.scoring.contract import Answer, BadInput, Request, encode
from modelyard_runtime.scoring.mlflow import MlflowModel

KINDS = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "INT8": "int8", "INT16": "int16",
    "INT32": "int32", "INT64": "int64", "FP16": "float16", "FP32": "float32", "FP64": "float64", "BYTES": "object",
}  # fmt: skip
NAMES = {kind: name for name, kind in KINDS.items()}
_TAKEN: dict[str, tuple[type, ...]] = {"b": (bool, int), "i": (int, float), "u": (int, float), "f": (int, float, type(None))}
"""What a tensor takes of JSON, by the kind of its dtype, when nothing is lost."""


class OpenInference:
    """Answers everything below /v2. The model is known by its name, in its one version."""

    def __init__(self, model: MlflowModel, name: str, version: str) -> None:
        self.model, self.name, self.version = model, name, version

    def handle(self, request: Request) -> Answer:
        parts = request.path.strip("/").split("/")[1:]
        if parts == []:
            return self._shown({"name": "modelyard", "version": "2", "extensions": []}, request, "GET")
        if parts in (["health", "live"], ["health", "ready"]):
            return self._shown({parts[1]: True}, request, "GET")
        if parts[0] != "models" or len(parts) < 2:
            return self._failed(404, "there is nothing at /v2/%s" % "/".join(parts))
        name, rest = parts[1], parts[2:]
        if rest[:1] == ["versions"] and len(rest) > 1:
            if rest[1] != self.version:
                return self._failed(404, "model %s has version %s, not %s" % (self.name, self.version, rest[1][:80]))
            rest = rest[2:]
        if name != self.name:
            return self._failed(404, "there is no model %s here; there is %s" % (name[:80], self.name))
        if rest == []:
            return self._shown(self._metadata(), request, "GET")
        if rest == ["ready"]:
            return self._shown({"name": self.name, "ready": True}, request, "GET")
        if rest != ["infer"]:
            return self._failed(404, "a model has `ready` and `infer`")
        if request.method != "POST":
            return self._failed(405, "use POST")
        try:
            return Answer(200, encode(self._infer(request)))
        except BadInput as problem:
            return self._failed(400, str(problem))

    def _shown(self, document: dict[str, Any], request: Request, method: str) -> Answer:
        return Answer(200, json.dumps(document).encode()) if request.method == method else self._failed(405, "use %s" % method)

    @staticmethod
    def _failed(status: int, message: str) -> Answer:
        return Answer(status, json.dumps({"error": message}).encode())

    def _metadata(self) -> dict[str, Any]:
        described = self.model.model.metadata
        returned = described.get_output_schema() if described is not None else None
        inputs, outputs = _described(self.model.schema, "input"), _described(returned, "predictions")
        return {"name": self.name, "versions": [self.version], "platform": "mlflow", "inputs": inputs, "outputs": outputs}

    def _infer(self, request: Request) -> dict[str, Any]:
        try:
            document = json.loads(request.body)
        except (ValueError, RecursionError) as problem:
            raise BadInput("the body is not valid JSON: %s" % problem) from None
        tensors = document.get("inputs") if isinstance(document, dict) else None
        if not isinstance(tensors, list) or not tensors:
            raise BadInput("the body has a list `inputs` of tensors")
        requested = _requested(document)
        arrays: dict[str, Any] = {}
        for tensor in tensors:
            name, array = _tensor(tensor)
            if name in arrays:
                raise BadInput("input %s is there twice" % name)
            arrays[name] = array
        outputs = {name: _output(name, value) for name, value in _named(self.model.predict(self._argument(arrays))).items()}
        missing = [name for name in requested if name not in outputs]
        if missing:
            raise BadInput("the model has no output %s; it has %s" % (", ".join(missing), ", ".join(outputs)))
        answer = {"model_name": self.name, "model_version": self.version, "outputs": [outputs[name] for name in requested or outputs]}
        answer["id"] = document["id"] if document.get("id") is not None else request.headers.get("x-request-id", "")
        return answer

    def _argument(self, arrays: dict[str, Any]) -> Any:
        """What the model's `predict` takes: a frame for a signature of columns, else the tensor, or several by their names."""
        import pandas

        schema, first = self.model.schema, next(iter(arrays.values()))
        columns = schema is not None and not schema.is_tensor_spec()
        if columns and len(arrays) == 1 and first.ndim == 2 and len(schema.inputs) != 1:
            if first.shape[1] != len(schema.inputs):
                raise BadInput("the model takes %d columns, not %d" % (len(schema.inputs), first.shape[1]))
            return self.model.typed(pandas.DataFrame(first, columns=schema.input_names() if schema.has_input_names() else None))
        if columns or schema is None and len(arrays) > 1:
            if len({len(array) for array in arrays.values()}) > 1:
                raise BadInput("the tensors have different numbers of rows")
            return self.model.typed(pandas.DataFrame({name: _column(array) for name, array in arrays.items()}))
        return arrays if len(arrays) > 1 or schema is not None and schema.has_input_names() else first


def _described(schema: Any, unnamed: str) -> list[dict[str, Any]]:
    """The tensors of a signature."""
    tensors = []
    for column in schema.inputs if schema is not None else ():
        kind = NAMES.get(str(getattr(column.type, "to_numpy", lambda column=column: column.type)()), "BYTES")
        tensors.append({"name": str(column.name or unnamed), "datatype": kind, "shape": list(getattr(column, "shape", (-1, 1)))})
    return tensors


def _requested(document: dict[str, Any]) -> list[str]:
    """The names of the outputs that the request asks for; empty for all."""
    outputs = document.get("outputs")
    if outputs is None:
        return []
    if not isinstance(outputs, list) or any(not isinstance(item, dict) or not isinstance(item.get("name"), str) for item in outputs):
        raise BadInput("`outputs` is a list of outputs, each with a name")
    return list(dict.fromkeys(item["name"] for item in outputs))


def _tensor(tensor: Any) -> tuple[str, Any]:
    import numpy

    if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
        raise BadInput("an input has a name, a shape, a datatype and data")
    name, kind, shape, data = tensor["name"], tensor.get("datatype"), tensor.get("shape"), tensor.get("data")
    if kind not in KINDS:
        raise BadInput("input %s: datatype %r is not one of %s" % (name, kind, ", ".join(KINDS)))
    if not isinstance(shape, list) or not shape or any(type(size) is not int or size < 0 for size in shape):
        raise BadInput("input %s: shape is a list of sizes" % name)
    try:
        values = numpy.array(data, dtype=object).reshape(shape)
        array = values.astype(KINDS[kind])
    except (ValueError, TypeError, OverflowError) as problem:
        raise BadInput("input %s: data does not fit datatype %s and shape %s: %s" % (name, kind, shape, problem)) from None
    taken = _TAKEN.get(array.dtype.kind)
    wrong = next((value for value in values.flat if type(value) not in taken), None) if taken else None
    if wrong is not None or array.dtype.kind in "biu" and (array != values).any():  # NumPy would cut a fraction, or wrap around
        raise BadInput("input %s: data has %s, which is no %s" % (name, json.dumps(wrong)[:80] if wrong is not None else "a number", kind))
    return name, array


def _column(array: Any) -> Any:
    """One value a row; a list a row where the tensor has several."""
    return array.reshape(len(array)) if array.size == len(array) else list(array)


def _output(name: str, value: Any) -> dict[str, Any]:
    """A tensor. What is neither a number nor a truth value is BYTES: text as it is, everything else as its JSON."""
    import numpy

    try:
        array = numpy.asarray(value)
        kind = NAMES.get(str(array.dtype), "BYTES")
        array = array if kind != "BYTES" else numpy.array(value, dtype=object)
    except ValueError:  # rows of several lengths
        kind, array = "BYTES", numpy.empty(len(value), dtype=object)
        for index, row in enumerate(value):
            array[index] = row
    data = array.reshape(-1).tolist()
    if kind == "BYTES":
        data = [_text(item) for item in data]
    return {"name": name, "shape": list(array.shape), "datatype": kind, "data": data}


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if value != value:  # a missing text, as pandas has it
        return None
    written = json.loads(encode(value))
    return written if isinstance(written, str) else json.dumps(written)


def _named(result: Any) -> dict[str, Any]:
    """Output names and their values: columns of records, entries of a dict, or `predictions`."""
    if isinstance(result, dict):
        return {str(name): value for name, value in result.items()}
    if isinstance(result, list) and result and all(isinstance(row, dict) for row in result):
        names = dict.fromkeys(name for row in result for name in row)
        if list(names) == [0]:  # MLflow's form of a series without a name
            return {"predictions": [row[0] for row in result]}
        return {str(name): [row.get(name) for row in result] for name in names}
    return {"predictions": result}

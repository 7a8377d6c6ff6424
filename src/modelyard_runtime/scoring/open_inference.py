"""The Open Inference Protocol, version 2, over an MLflow model: named tensors in and out (reference `serving-contracts`, section 4)."""

from __future__ import annotations

import json
from typing import Any

from modelyard_runtime.scoring.contract import Answer, BadInput, Request
from modelyard_runtime.scoring.mlflow import MlflowModel

KINDS = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "INT8": "int8", "INT16": "int16",
    "INT32": "int32", "INT64": "int64", "FP16": "float16", "FP32": "float32", "FP64": "float64", "BYTES": "object",
}  # fmt: skip
NAMES = {kind: name for name, kind in KINDS.items()}


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
            return Answer(200, json.dumps(self._infer(request)).encode())
        except BadInput as problem:
            return self._failed(400, str(problem))

    def _shown(self, document: dict[str, Any], request: Request, method: str) -> Answer:
        return Answer(200, json.dumps(document).encode()) if request.method == method else self._failed(405, "use %s" % method)

    @staticmethod
    def _failed(status: int, message: str) -> Answer:
        return Answer(status, json.dumps({"error": message}).encode())

    def _metadata(self) -> dict[str, Any]:
        inputs, schema = [], self.model.schema
        for column in schema.inputs if schema is not None else ():
            kind = NAMES.get(str(getattr(column.type, "to_numpy", lambda column=column: column.type)()), "BYTES")
            shape = [size for size in getattr(column, "shape", (-1, 1))]
            inputs.append({"name": str(column.name or "input"), "datatype": kind, "shape": shape})
        return {"name": self.name, "versions": [self.version], "platform": "mlflow", "inputs": inputs, "outputs": []}

    def _infer(self, request: Request) -> dict[str, Any]:
        import pandas

        try:
            document = json.loads(request.body)
        except (ValueError, RecursionError) as problem:
            raise BadInput("the body is not valid JSON: %s" % problem) from None
        tensors = document.get("inputs") if isinstance(document, dict) else None
        if not isinstance(tensors, list) or not tensors:
            raise BadInput("the body has a list `inputs` of tensors")
        arrays = {}
        for tensor in tensors:
            name, array = self._tensor(tensor)
            arrays[name] = array
        schema = self.model.schema
        if schema is None or schema.is_tensor_spec():
            data = next(iter(arrays.values())) if len(arrays) == 1 else arrays
        elif len(arrays) == 1 and next(iter(arrays.values())).ndim == 2 and len(schema.inputs) != 1:
            array = next(iter(arrays.values()))
            if array.shape[1] != len(schema.inputs):
                raise BadInput("the model takes %d columns, not %d" % (len(schema.inputs), array.shape[1]))
            data = self.model.typed(pandas.DataFrame(array, columns=schema.input_names() if schema.has_input_names() else None))
        else:
            if len({len(array) for array in arrays.values()}) > 1:
                raise BadInput("the tensors have different numbers of rows")
            data = self.model.typed(pandas.DataFrame({name: array.reshape(len(array)) for name, array in arrays.items()}))
        result = self.model.predict(data)
        outputs = [self._output(name, value) for name, value in _named(result).items()]
        requested = [item.get("name") for item in document.get("outputs") or () if isinstance(item, dict)]
        if requested:
            known = [output["name"] for output in outputs]
            missing = [name for name in requested if name not in known]
            if missing:
                raise BadInput("the model has no output %s; it has %s" % (", ".join(map(str, missing)), ", ".join(known)))
            outputs = [output for output in outputs if output["name"] in requested]
        answer = {"model_name": self.name, "model_version": self.version, "outputs": outputs}
        answer["id"] = document["id"] if document.get("id") is not None else request.headers.get("x-request-id", "")
        return answer

    @staticmethod
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
            return name, numpy.array(data, dtype=KINDS[kind]).reshape(shape)
        except (ValueError, TypeError, OverflowError) as problem:
            raise BadInput("input %s: data does not fit datatype %s and shape %s: %s" % (name, kind, shape, problem)) from None

    @staticmethod
    def _output(name: str, value: Any) -> dict[str, Any]:
        import numpy

        array = numpy.asarray(value)
        kind = NAMES.get(str(array.dtype), "BYTES")
        return {"name": name, "shape": list(array.shape), "datatype": kind, "data": array.reshape(-1).tolist()}


def _named(result: Any) -> dict[str, Any]:
    """Output names and their values: columns of records, entries of a dict, or `predictions`."""
    if isinstance(result, dict):
        return result
    if isinstance(result, list) and result and isinstance(result[0], dict):
        return {name: [row[name] for row in result] for name in result[0]}
    return {"predictions": result}

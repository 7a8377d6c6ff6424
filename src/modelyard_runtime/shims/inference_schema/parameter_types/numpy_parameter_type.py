"""An array with the sample's dtype and, but for its first dimension, its shape."""

import base64
import datetime

import numpy as np

from .abstract_parameter_type import AbstractParameterType

UNITS = {
    "years": "Y", "months": "M", "weeks": "W", "days": "D", "hours": "h", "minutes": "m", "seconds": "s", "milliseconds": "ms",
    "microseconds": "us", "nanoseconds": "ns", "picoseconds": "ps", "femtoseconds": "fs", "attoseconds": "as",
}  # fmt: skip


class NumpyParameterType(AbstractParameterType):
    def __init__(self, sample_input, enforce_column_type=True, enforce_shape=True):
        if not isinstance(sample_input, np.ndarray):
            raise TypeError("the sample of a NumpyParameterType is a numpy array, not %s" % type(sample_input).__name__)
        super().__init__(sample_input)
        self.enforce_column_type, self.enforce_shape = enforce_column_type, enforce_shape

    def deserialize_input(self, input_data):
        if isinstance(input_data, np.ndarray):
            return input_data
        if not isinstance(input_data, list):
            raise ValueError("an array is needed, written as nested lists, not %s" % type(input_data).__name__)
        sample = self.sample_input
        if self.enforce_column_type:
            array = np.array([_read(item, sample.dtype) for item in input_data], dtype=sample.dtype)
        else:
            array = np.array(input_data)
        if self.enforce_shape and (array.ndim, array.shape[1:]) != (sample.ndim, sample.shape[1:]):
            raise ValueError("an array of shape (%s) is needed, not %s" % (", ".join(["n", *map(str, sample.shape[1:])]), array.shape))
        return array

    def input_to_swagger(self):
        schema = _of_dtype(self.sample_input.dtype)
        for _ in range(max(1, self.sample_input.ndim)):
            schema = {"type": "array", "items": schema}
        return {**schema, "format": "numpy.ndarray", "example": [_example(item) for item in self.sample_input]}


def _read(item, dtype):
    """One item, or row of a structured array, as numpy takes it."""
    if dtype.names:
        fields = [item[name] for name in dtype.names] if isinstance(item, dict) else item
        return tuple(_read(field, dtype[name]) for field, name in zip(fields, dtype.names))
    if dtype.kind == "m" and isinstance(item, str):
        count, _, unit = item.partition(" ")
        if unit.strip().lower() not in UNITS:
            raise ValueError("a time span is written as '3 days', not %r" % item)
        return np.timedelta64(int(count), UNITS[unit.strip().lower()])
    return item


def _of_dtype(dtype):
    if dtype.names:
        return {"type": "object", "properties": {name: _of_dtype(dtype[name]) for name in dtype.names}}
    if dtype.subdtype is not None:
        schema = _of_dtype(dtype.subdtype[0])
        for _ in dtype.subdtype[1]:
            schema = {"type": "array", "items": schema}
        return schema
    schemas = {
        "i": {"type": "integer", "format": dtype.name}, "u": {"type": "integer", "format": dtype.name}, "b": {"type": "boolean"},
        "f": {"type": "number", "format": "double" if dtype.itemsize == 8 else "float"}, "O": {"type": "object"}, "U": {"type": "string"},
        "S": {"type": "string", "format": "binary"}, "V": {"type": "string", "format": "binary"},
        "M": {"type": "string", "format": "date-time"}, "m": {"type": "string", "format": "timedelta"},
    }  # fmt: skip
    if dtype.kind not in schemas:
        raise TypeError("an array of %s has no schema" % dtype.name)
    return schemas[dtype.kind]


def _example(item):
    if isinstance(item, np.void) and item.dtype.names:
        return {name: _example(item[name]) for name in item.dtype.names}
    if isinstance(item, np.ndarray):
        return [_example(part) for part in item]
    if isinstance(item, np.datetime64):
        return item.astype("datetime64[us]").astype(datetime.datetime).strftime("%Y-%m-%d %H:%M:%S,%f")
    if isinstance(item, (bytes, np.void)):
        return base64.b64encode(bytes(item)).decode()
    return item.item() if isinstance(item, (np.bool_, np.integer, np.floating)) else str(item)

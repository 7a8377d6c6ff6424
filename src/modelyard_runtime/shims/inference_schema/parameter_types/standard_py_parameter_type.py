"""Plain Python values; a list or dict may hold further types."""

import base64
import datetime

from .abstract_parameter_type import AbstractParameterType, schema_of


class StandardPythonParameterType(AbstractParameterType):
    def __init__(self, sample_input):
        super().__init__(type(sample_input), sample_input)

    def deserialize_input(self, input_data):
        return _read(self.sample_input, input_data)

    def input_to_swagger(self):
        return {**_schema(self.sample_input), "example": _example(self.sample_input)}


def _read(sample, value):
    if isinstance(sample, AbstractParameterType):
        return sample.deserialize_input(value)
    if isinstance(sample, dict) and isinstance(value, dict):
        return {name: _read(sample[name], item) if name in sample else item for name, item in value.items()}
    if isinstance(sample, (list, tuple)) and isinstance(value, list):
        kinds = list(sample)
        if any(isinstance(kind, AbstractParameterType) for kind in kinds):
            return [_read(kinds[min(index, len(kinds) - 1)], item) for index, item in enumerate(value)]
        return tuple(value) if isinstance(sample, tuple) else value
    if isinstance(sample, datetime.datetime) and isinstance(value, str):
        return datetime.datetime.fromisoformat(value.replace("Z", "+00:00"))
    if isinstance(sample, datetime.date) and isinstance(value, str):
        return datetime.date.fromisoformat(value)
    if isinstance(sample, (bytes, bytearray)) and isinstance(value, str):
        return type(sample)(base64.b64decode(value))
    if isinstance(sample, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if sample is not None and not isinstance(value, type(sample)):
        raise ValueError("a value of type %s is needed, not %s" % (type(sample).__name__, type(value).__name__))
    return value


def _schema(sample):
    if isinstance(sample, AbstractParameterType):
        return sample.input_to_swagger()
    if isinstance(sample, dict):
        return {"type": "object", "properties": {str(name): _schema(item) for name, item in sample.items()}}
    if isinstance(sample, (list, tuple)) and sample:
        return {"type": "array", "items": _schema(sample[0])}
    if isinstance(sample, datetime.datetime):
        return {"type": "string", "format": "date-time"}
    if isinstance(sample, datetime.date):
        return {"type": "string", "format": "date"}
    if isinstance(sample, (bytes, bytearray)):
        return {"type": "string", "format": "byte"}
    return schema_of(sample)


def _example(sample):
    if isinstance(sample, AbstractParameterType):
        return sample.input_to_swagger().get("example")
    if isinstance(sample, dict):
        return {str(name): _example(item) for name, item in sample.items()}
    if isinstance(sample, (list, tuple)):
        return [_example(item) for item in sample]
    if isinstance(sample, (datetime.date, datetime.datetime)):
        return sample.isoformat()
    if isinstance(sample, (bytes, bytearray)):
        return base64.b64encode(bytes(sample)).decode()
    return sample

"""The base of every type, from the JSON of a request to the argument of `run`; and what OpenAPI says of a sample."""

import abc
import base64
import datetime

UTC = datetime.timezone.utc


class AbstractParameterType(abc.ABC):
    """`deserialize_input` reads a JSON value, `input_to_swagger` describes it: an OpenAPI schema with an example."""

    def __init__(self, sample_input):
        self.sample_input = sample_input
        self.sample_data_type = type(sample_input)

    def supported_versions(self):
        """OpenAPI 2 has no arrays of mixed types."""
        return (["2.0"] if _uniform(self.input_to_swagger()["example"]) else []) + ["3.0", "3.1"]

    @abc.abstractmethod
    def deserialize_input(self, input_data): ...

    @abc.abstractmethod
    def input_to_swagger(self): ...


def _uniform(value):
    if isinstance(value, dict):
        return all(map(_uniform, value.values()))
    if isinstance(value, list):
        return len({type(item) for item in value}) < 2 and all(_uniform(item) for item in value if isinstance(item, list))
    return True


def described(sample):
    """The OpenAPI schema of a plain value, with the value as its example."""
    kind = type(sample)
    if isinstance(sample, AbstractParameterType):
        return sample.input_to_swagger()
    if kind is bool:
        return {"type": "boolean", "example": sample}
    if kind is int:
        return {"type": "integer", "format": "int64", "example": sample}
    if kind is float:
        return {"type": "number", "format": "double", "example": sample}
    if kind is str:
        return {"type": "string", "example": sample}
    if kind in (bytes, bytearray):
        return {"type": "string", "format": "byte", "example": base64.b64encode(sample).decode()}
    if kind is datetime.date:
        return {"type": "string", "format": "date", "example": sample.strftime("%Y-%m-%d")}
    if kind is datetime.datetime:
        zoned = sample if sample.tzinfo else sample.replace(tzinfo=UTC)
        return {"type": "string", "format": "date-time", "example": zoned.strftime("%Y-%m-%d %H:%M:%S.%f %z")}
    if kind is datetime.time:
        zoned = sample if sample.tzinfo else sample.replace(tzinfo=UTC)
        return {"type": "string", "format": "time", "example": zoned.strftime("%H:%M:%S.%f %z")}
    if kind in (list, tuple, range):
        items = [described(item) for item in sample]
        example = [item.pop("example") for item in items]
        return {"type": "array", "items": items[-1] if items else {"type": "object"}, "example": example}
    if kind is dict:
        entries = {name: described(item) for name, item in sample.items()}
        example = {name: entry.pop("example") for name, entry in entries.items()}
        return {"type": "object", "required": list(entries), "properties": entries, "example": example}
    return {"type": "object", "example": sample}

"""The base of every type: from the JSON of a request to the argument of `run`."""

import abc


class AbstractParameterType(abc.ABC):
    """`deserialize_input` reads a JSON value, `input_to_swagger` describes it (OpenAPI schema object)."""

    def __init__(self, deserialized_type, sample_input):
        self.deserialized_type = deserialized_type
        self.sample_input = sample_input

    def supported_versions(self):
        return ["2.0", "3.0", "3.1"]

    @abc.abstractmethod
    def deserialize_input(self, input_data): ...

    @abc.abstractmethod
    def input_to_swagger(self): ...


def schema_of(value):
    """The OpenAPI schema of a plain JSON value."""
    if isinstance(value, bool):
        return {"type": "boolean"}
    if isinstance(value, int):
        return {"type": "integer", "format": "int64"}
    if isinstance(value, float):
        return {"type": "number", "format": "double"}
    if isinstance(value, (list, tuple)):
        return {"type": "array", "items": schema_of(value[0]) if value else {"type": "object"}}
    if isinstance(value, dict):
        schema = {"type": "object", "properties": {str(name): schema_of(item) for name, item in value.items()}}
        if value:
            schema["required"] = [str(name) for name in value]
        return schema
    return {"type": "string"}

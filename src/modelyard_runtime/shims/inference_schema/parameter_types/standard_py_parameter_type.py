"""Plain Python values; a list or dict may hold further types."""

import base64
import datetime
import re

from .abstract_parameter_type import AbstractParameterType, described


class StandardPythonParameterType(AbstractParameterType):
    def deserialize_input(self, input_data):
        sample, kind, value = self.sample_input, self.sample_data_type, input_data
        if kind is dict and isinstance(value, dict):
            nested = {name: item for name, item in sample.items() if isinstance(item, AbstractParameterType)}
            return {name: nested[name].deserialize_input(item) if name in nested else item for name, item in value.items()}
        if kind in (list, tuple) and isinstance(value, list):
            item_type = next((item for item in sample if isinstance(item, AbstractParameterType)), None)
            return [item_type.deserialize_input(item) for item in value] if item_type is not None else value
        if isinstance(value, str) and kind in (datetime.date, datetime.datetime, datetime.time):
            return _moment(kind, value)
        if isinstance(value, str) and kind in (bytes, bytearray):
            return kind(base64.b64decode(value))
        if not (isinstance(value, kind) or kind is float and type(value) is int):
            raise ValueError("a value of type %s is needed, not %s" % (kind.__name__, type(value).__name__))
        return value

    def input_to_swagger(self):
        return described(self.sample_input)


def _moment(kind, text):
    """A date, a time, or both, in ISO 8601; zones as `+0000` and after a space too, as the examples of OpenAPI documents have them."""
    zoned = re.sub(r"\s*([+-]\d\d):?(\d\d)$", r"\1:\2", text.strip().replace("Z", "+00:00"))
    return kind.fromisoformat(text.strip() if kind is datetime.date else zoned)

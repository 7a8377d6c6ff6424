import datetime

from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema, output_schema


def init():
    pass


@input_schema("text", StandardPythonParameterType("some text"))
@input_schema("mixed", StandardPythonParameterType([1, "a", {"b": True}]))
@input_schema("raw", StandardPythonParameterType(b"bytes"))
@input_schema("moment", StandardPythonParameterType(datetime.datetime(2020, 2, 3, 4, 5, 6)))
@input_schema("settings", StandardPythonParameterType({"depth": 3, "rate": 0.5, "tags": ["a"]}), convert_to_provided_type=False)
@output_schema(StandardPythonParameterType("done"))
def run(text, mixed, raw, moment, settings, extra="nothing", request_headers=None):
    agent = {name.lower(): value for name, value in request_headers.items()}.get("x-client")
    return [text, mixed, raw.decode(), moment.isoformat(), settings, extra, agent]

import pandas as pd
from inference_schema.parameter_types.pandas_parameter_type import PandasParameterType
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema, output_schema

SAMPLE = pd.DataFrame(
    {"name": ["Sarah", "John"], "age": [25, 26], "score": [0.5, 1.5], "since": pd.to_datetime(["2020-01-01", "2021-02-03"])}
)


def init():
    pass


@input_schema("data", PandasParameterType(SAMPLE, enforce_shape=False))
@input_schema("by_column", PandasParameterType(SAMPLE[["age"]], orient="columns"), optional=True)
@input_schema("split", PandasParameterType(SAMPLE[["name", "age"]], orient="split"), optional=True)
@input_schema("method", StandardPythonParameterType("predict"), optional=True)
@output_schema(StandardPythonParameterType({"Results": StandardPythonParameterType([200.0, 300.0])}))
def run(data, by_column=None, split=None, method="predict"):
    frames = [frame for frame in (data, by_column, split) if frame is not None]
    return {"method": method, "frames": [{str(name): str(value) for name, value in frame.iloc[0].items()} for frame in frames]}

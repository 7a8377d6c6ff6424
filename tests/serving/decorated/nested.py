import numpy as np
import pandas as pd
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.parameter_types.pandas_parameter_type import PandasParameterType
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema, output_schema

INPUTS = StandardPythonParameterType(
    {
        "input1": NumpyParameterType(np.array([[1, 2], [3, 4]])),
        "input2": PandasParameterType(pd.DataFrame({"name": ["Sarah", "John"], "age": [25, 26]})),
        "input3": StandardPythonParameterType({"deep": StandardPythonParameterType([NumpyParameterType(np.array([1.5]))])}),
        "plain": 3,
    }
)


def init():
    pass


@input_schema("Inputs", INPUTS)
@input_schema("GlobalParameters", StandardPythonParameterType(1.0))
@output_schema(StandardPythonParameterType({"Results": StandardPythonParameterType([1.0])}))
def run(Inputs, GlobalParameters):
    return {
        "kinds": {name: type(value).__name__ for name, value in Inputs.items()},
        "deep": [type(item).__name__ for item in Inputs.get("input3", {}).get("deep", [])],
        "factor": GlobalParameters,
    }

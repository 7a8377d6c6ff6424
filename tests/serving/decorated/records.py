import numpy as np
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.schema_decorators import input_schema, output_schema

SAMPLE = np.array(
    [("Sarah", 8.25, 3, np.datetime64("2020-02-03"))], dtype=[("name", "U12"), ("grade", "f4"), ("rank", "u1"), ("day", "M8[D]")]
)


def init():
    pass


@input_schema("rows", NumpyParameterType(SAMPLE))
@output_schema(NumpyParameterType(np.array([["a", "b"]])))
def run(rows):
    return [list(map(str, row)) for row in rows]

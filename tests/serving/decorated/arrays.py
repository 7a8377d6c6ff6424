import numpy as np
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.schema_decorators import input_schema, output_schema


def init():
    pass


@input_schema("param1", NumpyParameterType(np.array([[1.0, 2.0, 3.0]])))
@input_schema("counts", NumpyParameterType(np.array([1, 2], dtype="int32"), enforce_shape=False))
@output_schema(NumpyParameterType(np.array([10.5])))
def run(param1, counts):
    return {"type": str(param1.dtype), "sum": param1.sum(axis=1).tolist(), "counts": (counts * 2).tolist(), "kind": str(counts.dtype)}

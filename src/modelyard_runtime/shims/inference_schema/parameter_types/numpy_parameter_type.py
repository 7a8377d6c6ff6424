"""An array with the sample's dtype and, but for its first dimension, its shape."""

import numpy as np

from .abstract_parameter_type import AbstractParameterType, schema_of


class NumpyParameterType(AbstractParameterType):
    def __init__(self, input_sample, enforce_column_type=True, enforce_shape=True):
        if not isinstance(input_sample, np.ndarray):
            raise TypeError("the sample of a NumpyParameterType is a numpy array, not %s" % type(input_sample).__name__)
        super().__init__(np.ndarray, input_sample)
        self.enforce_column_type, self.enforce_shape = enforce_column_type, enforce_shape

    def deserialize_input(self, input_data):
        if isinstance(input_data, np.ndarray):
            return input_data
        if not isinstance(input_data, (list, tuple)):
            raise ValueError("an array is needed, written as nested lists, not %s" % type(input_data).__name__)
        sample = self.sample_input
        if self.enforce_column_type and sample.dtype.names:
            array = np.array([tuple(row) if isinstance(row, (list, tuple)) else row for row in input_data], dtype=sample.dtype)
        else:
            array = np.array(input_data, dtype=sample.dtype if self.enforce_column_type else None)
        if self.enforce_shape and array.shape[1:] != sample.shape[1:]:
            raise ValueError("an array of shape (n, %s) is needed, not %s" % (", ".join(map(str, sample.shape[1:])), array.shape))
        return array

    def input_to_swagger(self):
        example = self.sample_input.tolist()
        return {**schema_of(example), "example": example, "format": "numpy.ndarray"}

"""A DataFrame with the sample's columns and their types, sent as `orient` says."""

import io
import json

import pandas as pd

from .abstract_parameter_type import AbstractParameterType, described

ORIENTS = ("split", "records", "index", "columns", "values", "table")


class PandasParameterType(AbstractParameterType):
    def __init__(self, sample_input, enforce_column_type=True, enforce_shape=True, apply_column_names=False, orient="records"):
        if not isinstance(sample_input, pd.DataFrame):
            raise TypeError("the sample of a PandasParameterType is a DataFrame, not %s" % type(sample_input).__name__)
        if orient not in ORIENTS:
            raise ValueError("orient %r is not one of %s" % (orient, ", ".join(ORIENTS)))
        super().__init__(sample_input)
        self.enforce_column_type, self.enforce_shape = enforce_column_type, enforce_shape
        self.apply_column_names, self.orient = apply_column_names, orient

    def deserialize_input(self, input_data):
        if isinstance(input_data, pd.DataFrame):
            return input_data
        if not isinstance(input_data, (list, dict)):
            raise ValueError("a frame is needed, written as its %s, not %s" % (self.orient, type(input_data).__name__))
        frame = pd.read_json(io.StringIO(json.dumps(input_data)), orient=self.orient, dtype=False)
        sample = self.sample_input
        if self.enforce_shape and frame.shape[1:] != sample.shape[1:]:
            raise ValueError("%d columns are needed (%s), not %d" % (sample.shape[1], ", ".join(map(str, sample.columns)), frame.shape[1]))
        if self.apply_column_names:
            frame.columns = sample.columns
        for name in frame.columns if self.enforce_column_type else ():
            kind = sample.dtypes.get(name, object)
            try:
                values = pd.to_timedelta(frame[name]) if str(kind).startswith("timedelta") else frame[name]
                frame[name] = values.astype(kind)
            except (ValueError, TypeError) as error:
                raise ValueError("column %s cannot be read as %s: %s" % (name, kind, error)) from None
        return frame

    def input_to_swagger(self):
        schema = described(json.loads(self.sample_input.to_json(orient=self.orient, date_format="iso")))
        for name, kind in self.sample_input.dtypes.astype(str).items():
            special = next(
                (word for prefix, word in (("datetime", "date-time"), ("timedelta", "timedelta")) if kind.startswith(prefix)), ""
            )
            for entry in self._entries(schema, str(name)) if special else ():
                entry["format"] = special
        return {**schema, "format": "pandas.DataFrame:%s" % self.orient}

    def _entries(self, schema, column):
        """The schemas of a column's values, wherever this orient has them."""
        if self.orient == "records":
            return [schema["items"]["properties"][column]]
        if self.orient == "index":
            return [row["properties"][column] for row in schema["properties"].values()]
        if self.orient == "columns":
            return list(schema["properties"][column]["properties"].values())
        return [schema["properties"]["data"]["items"]["properties"][column]] if self.orient == "table" else []

"""A DataFrame with the sample's columns and their types; sent as records or split."""

import pandas as pd

from .abstract_parameter_type import AbstractParameterType, schema_of

ORIENTS = ("records", "split", "columns", "index", "values")


class PandasParameterType(AbstractParameterType):
    def __init__(self, input_sample, enforce_column_type=True, enforce_shape=True, apply_column_names=False, orient="records"):
        if not isinstance(input_sample, pd.DataFrame):
            raise TypeError("the sample of a PandasParameterType is a DataFrame, not %s" % type(input_sample).__name__)
        if orient not in ORIENTS:
            raise ValueError("orient %r is not one of %s" % (orient, ", ".join(ORIENTS)))
        super().__init__(pd.DataFrame, input_sample)
        self.enforce_column_type, self.enforce_shape = enforce_column_type, enforce_shape
        self.apply_column_names, self.orient = apply_column_names, orient

    def deserialize_input(self, input_data):
        if isinstance(input_data, pd.DataFrame):
            return input_data
        if isinstance(input_data, dict) and "columns" in input_data and "data" in input_data:
            frame = pd.DataFrame(input_data["data"], index=input_data.get("index"), columns=input_data["columns"])
        elif isinstance(input_data, dict) and self.orient == "index":
            frame = pd.DataFrame.from_dict(input_data, orient="index")
        elif isinstance(input_data, (list, dict)):
            frame = pd.DataFrame(input_data)
        else:
            raise ValueError("a frame is needed: a list of records, or {columns, data}, not %s" % type(input_data).__name__)
        sample = self.sample_input
        if self.enforce_shape and frame.shape[1:] != sample.shape[1:]:
            raise ValueError("%d columns are needed (%s), not %d" % (sample.shape[1], ", ".join(map(str, sample.columns)), frame.shape[1]))
        if self.apply_column_names:
            frame.columns = sample.columns
        if self.enforce_column_type:
            kinds = {name: kind for name, kind in sample.dtypes.items() if name in frame.columns}
            for name, kind in kinds.items():
                try:
                    frame[name] = pd.to_datetime(frame[name]) if str(kind).startswith("datetime") else frame[name].astype(kind)
                except (ValueError, TypeError) as error:
                    raise ValueError("column %s cannot be read as %s: %s" % (name, kind, error)) from None
        return frame

    def input_to_swagger(self):
        import json

        example = json.loads(self.sample_input.to_json(orient=self.orient, date_format="iso"))
        return {**schema_of(example), "example": example, "format": "pandas.DataFrame:%s" % self.orient}

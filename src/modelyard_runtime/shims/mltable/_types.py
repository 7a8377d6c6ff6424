"""The value types of `convert_column_types`, and the enumerations of the readers."""

import enum


class MLTableHeaders(enum.Enum):
    no_header = "no_header"
    from_first_file = "from_first_file"
    all_files_different_headers = "all_files_different_headers"
    all_files_same_headers = "all_files_same_headers"


class MLTableFileEncoding(enum.Enum):
    utf8 = "utf8"
    iso88591 = "iso88591"
    latin1 = "latin1"
    utf16 = "utf16"
    windows1252 = "windows1252"
    ascii = "ascii"
    utf8bom = "utf8bom"


class DataType:
    """A type that a column is converted to; constructed by its `to_` methods."""

    def __init__(self, name, settings=None):
        self._name, self._settings = name, settings

    def document(self):
        return {self._name: self._settings} if self._settings else self._name

    @staticmethod
    def to_int():
        return DataType("int")

    @staticmethod
    def to_float():
        return DataType("float")

    @staticmethod
    def to_string():
        return DataType("string")

    @staticmethod
    def to_stream():
        return DataType("stream_info")

    @staticmethod
    def to_bool(true_values=None, false_values=None, mismatch_as=None):
        settings = {"true_values": true_values, "false_values": false_values, "mismatch_as": mismatch_as}
        return DataType("boolean", {key: value for key, value in settings.items() if value is not None})

    @staticmethod
    def to_datetime(formats, date_constant=None):
        settings = {"formats": [formats] if isinstance(formats, str) else list(formats), "date_constant": date_constant}
        return DataType("datetime", {key: value for key, value in settings.items() if value is not None})

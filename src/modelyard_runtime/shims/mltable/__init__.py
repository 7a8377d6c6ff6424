"""Tables described by an MLTable file, read by DuckDB: the names of Azure's `mltable` package.

An MLTable file lists `paths` and `transformations`; nothing is read before `to_pandas_dataframe`, `take(n).show()` and the like ask
for rows. Values that a conversion cannot read become nulls, as in Azure. Needs duckdb, pandas and pyyaml, which an environment
that lists `mltable` gets.
"""

import copy
import os
import random
import shutil

try:
    import yaml
except ImportError as error:
    raise ImportError("mltable needs duckdb, pandas and pyyaml: put `mltable` among the packages of the environment") from error

from . import _places, _query
from ._types import DataType, MLTableFileEncoding, MLTableHeaders

__all__ = [
    "DataType",
    "MLTable",
    "MLTableFileEncoding",
    "MLTableHeaders",
    "from_delimited_files",
    "from_delta_lake",
    "from_json_lines_files",
    "from_parquet_files",
    "from_paths",
    "load",
]

FILE = "MLTable"


class MLTable:
    """A table that is read when its rows are asked for. Every change gives a new table; this one stays."""

    def __init__(self, document=None, base=None):
        self._document = {"type": "mltable", "paths": [], "transformations": [], **(document or {})}
        self._base = base or os.getcwd()

    @property
    def paths(self):
        return copy.deepcopy(self._document["paths"])

    @property
    def partition_keys(self):
        return list((self._document.get("metadata") or {}).get("partition_keys") or [])

    def _with(self, name, settings):
        changed = copy.deepcopy(self._document)
        changed["transformations"] = [*(changed.get("transformations") or []), {name: settings}]
        return MLTable(changed, self._base)

    # Transformations

    def take(self, count=20):
        """The first `count` rows."""
        return self._with("take", _count("take", count))

    def skip(self, count):
        return self._with("skip", _count("skip", count))

    def take_random_sample(self, probability, seed=None):
        """Each row with this probability; the same rows for the same seed."""
        if not 0 < probability <= 1:
            raise ValueError("probability is more than 0 and at most 1, not %r" % probability)
        return self._with("take_random_sample", {"probability": probability, "seed": _seed(seed)})

    def drop_columns(self, columns):
        return self._with("drop_columns", _query.names(columns))

    def keep_columns(self, columns):
        return self._with("keep_columns", _query.names(columns))

    def convert_column_types(self, column_types):
        """`column_types` maps a column, or a tuple of columns, to a DataType."""
        steps = [
            {"columns": _query.names(columns), "column_type": kind.document() if isinstance(kind, DataType) else kind}
            for columns, kind in column_types.items()
        ]
        return self._with("convert_column_types", steps)

    def filter(self, expression):
        """Rows for which a Python expression over `col("name")` is true, such as `col("a") > 3 and col("b") == "x"`."""
        _query.condition(expression)
        return self._with("filter", expression)

    def extract_columns_from_partition_format(self, partition_format):
        """Columns from the paths of files: `/{region}/{day:yyyy/MM/dd}/`."""
        return self._with("extract_columns_from_partition_format", partition_format)

    def random_split(self, percent=0.5, seed=None):
        """Two tables: about `percent` of the rows, and the others."""
        if not 0 < percent < 1:
            raise ValueError("percent is between 0 and 1, not %r" % percent)
        seed = _seed(seed)
        return tuple(self._with("random_split", {"percent": percent, "seed": seed, "part": part}) for part in (0, 1))

    # Rows

    def to_pandas_dataframe(self):
        """All rows as a DataFrame."""
        return _query.run(self._document, self._base).df()

    def show(self, count=20):
        """The first `count` rows as a DataFrame."""
        return self.take(count).to_pandas_dataframe()

    def validate(self):
        """Raises ValueError or OSError for a table that cannot be read."""
        _query.run(self.take(1)._document, self._base).fetchall()

    # Files

    def save(self, path=None, overwrite=True, colocated=False, **ignored):
        """Write the MLTable file into the folder `path`; with `colocated` the files it names are copied beside it."""
        folder = os.path.abspath(path or os.getcwd())
        os.makedirs(folder, exist_ok=True)
        target = os.path.join(folder, FILE)
        if os.path.exists(target) and not overwrite:
            raise FileExistsError("%s is there already; pass overwrite=True" % target)
        document = copy.deepcopy(self._document)
        document["paths"] = [
            {kind: self._moved(text, folder, colocated and kind == "file")} for item in document["paths"] for kind, text in item.items()
        ]
        with open(target, "w", encoding="utf-8") as file:
            yaml.safe_dump({key: value for key, value in document.items() if value}, file, sort_keys=False)
        return MLTable(document, folder)

    def _moved(self, text, folder, copied):
        if _places.is_remote(text):
            return text
        path = os.path.normpath(os.path.join(self._base, _places.plain(text)))
        if copied:
            shutil.copy(path, folder)
            return "./" + os.path.basename(path)
        relative = os.path.relpath(path, folder)
        return path if relative.startswith("..") else "./" + relative

    def __repr__(self):
        return yaml.safe_dump({key: value for key, value in self._document.items() if value}, sort_keys=False)

    def __eq__(self, other):
        return isinstance(other, MLTable) and (self._document, self._base) == (other._document, other._base)

    __hash__ = None


def _count(what, count):
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise ValueError("%s needs a number of rows, not %r" % (what, count))
    return count


def _seed(seed):
    return random.randrange(2**31) if seed is None else int(seed)


def load(uri, storage_options=None, ml_client=None):
    """The table of a folder that holds an MLTable file, of the file itself, or of an `azureml:` address."""
    folder = _places.local(str(uri), os.getcwd())
    if os.path.basename(folder) == FILE and os.path.isfile(folder):
        folder = os.path.dirname(folder)
    path = os.path.join(folder, FILE)
    if not os.path.isfile(path):
        raise FileNotFoundError("%s holds no MLTable file" % uri)
    with open(path, encoding="utf-8") as file:
        document = yaml.safe_load(file)
    if not isinstance(document, dict) or not isinstance(document.get("paths"), list):
        raise ValueError("%s is not an MLTable file: it has a list `paths`" % path)
    table = MLTable(document, folder)
    _query.check(table._document)
    return table


def from_paths(paths):
    return MLTable({"paths": [dict(item) for item in paths]})


def _read_by(name, paths, **settings):
    return from_paths(paths)._with(name, {key: value for key, value in settings.items() if value is not None})


def from_delimited_files(
    paths,
    header="all_files_same_headers",
    delimiter=",",
    support_multi_line=False,
    empty_as_string=False,
    encoding="utf8",
    include_path_column=False,
    infer_column_types=True,
):
    return _read_by(
        "read_delimited",
        paths,
        header=getattr(header, "value", header),
        delimiter=delimiter,
        support_multi_line=support_multi_line,
        empty_as_string=empty_as_string,
        encoding=getattr(encoding, "value", encoding),
        include_path_column=include_path_column,
        infer_column_types=infer_column_types,
    )


def from_parquet_files(paths, include_path_column=False):
    return _read_by("read_parquet", paths, include_path_column=include_path_column)


def from_json_lines_files(paths, invalid_lines="error", encoding="utf8", include_path_column=False):
    encoding = getattr(encoding, "value", encoding)
    return _read_by("read_json_lines", paths, invalid_lines=invalid_lines, encoding=encoding, include_path_column=include_path_column)


def from_delta_lake(delta_table_uri, timestamp_as_of=None, version_as_of=None, include_path_column=False):
    return _read_by(
        "read_delta_lake",
        [{"folder": delta_table_uri}],
        timestamp_as_of=timestamp_as_of,
        version_as_of=version_as_of,
        include_path_column=include_path_column,
    )

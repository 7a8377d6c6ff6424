"""From the transformations of an MLTable to one query of DuckDB.

Each step wraps the query before it. The path of the file that a row comes from is carried along in a hidden column, for
`include_path_column` and for columns that are read from paths.
"""

import ast
import glob
import os
import re
import tempfile

from . import _places

PATH = "__path"
READERS = ("read_delimited", "read_parquet", "read_json_lines", "read_delta_lake")
STEPS = (
    "skip",
    "take",
    "take_random_sample",
    "random_split",
    "drop_columns",
    "keep_columns",
    "convert_column_types",
    "filter",
    "extract_columns_from_partition_format",
    "extract_partition_format_into_columns",
)
TYPES = {"int": "BIGINT", "integer": "BIGINT", "float": "DOUBLE", "string": "VARCHAR", "str": "VARCHAR", "stream_info": "VARCHAR"}
# DuckDB makes columns of folders such as `year=2024`, in place of a column of that name; a table has what its files hold.
NO_FOLDERS = "hive_partitioning = false"
_DUCKDB_READS = {"utf8": "utf-8", "utf-8": "utf-8", "ascii": "utf-8", "utf8bom": "utf-8"}
_PYTHON_READS = {"iso88591": "latin-1", "latin1": "latin-1", "windows1252": "cp1252", "utf16": "utf-16"}


def names(columns):
    if isinstance(columns, str):
        return [columns]
    listed = list(columns)
    if not listed or not all(isinstance(name, str) for name in listed):
        raise ValueError("columns are named by text, not %r" % (columns,))
    return listed


def check(document):
    """Raises ValueError naming the transformation that is not known."""
    for step in document.get("transformations") or []:
        name = next(iter(step)) if isinstance(step, dict) and len(step) == 1 else step
        if name not in READERS and name not in STEPS:
            raise ValueError("%r is not a transformation of an MLTable; there are %s" % (name, ", ".join(READERS + STEPS)))


def run(document, base):
    """The relation of all rows."""
    try:
        import duckdb
    except ImportError as error:
        raise ImportError("mltable needs duckdb: put `mltable` among the packages of the environment") from error

    check(document)
    connection = duckdb.connect(":memory:")
    connection.execute("SET preserve_insertion_order = true")
    steps = [_step(step) for step in document.get("transformations") or []]
    if steps and steps[0][0] in READERS:
        (name, settings), steps = steps[0], steps[1:]
    else:
        name, settings = "read_delimited" if _delimited(document, base) else "files", {}
    shown = bool(settings.get("include_path_column"))
    table = _Table(connection, _read(connection, name, settings, document, base), shown)
    for step, argument in steps:
        if step in READERS:
            raise ValueError("%s stands after another transformation; a table is read first, and once" % step)
        getattr(table, step)(argument)
    return connection.sql(table.shown())


def _step(step):
    if isinstance(step, str):
        return step, {}
    name, settings = next(iter(step.items()))
    return name, {} if settings is None else settings


def _paths(document, base):
    return [path for item in document["paths"] for path in _places.files(item, base)]


def _delimited(document, base):
    return all(path.lower().endswith((".csv", ".tsv", ".txt")) for path in _paths(document, base))


def text(value):
    return "'" + str(value).replace("'", "''") + "'"


def column(name):
    return '"' + name.replace('"', '""') + '"'


def _list(values):
    return "[" + ", ".join(text(value) for value in values) + "]"


def _files(paths):
    """Files for a reader of DuckDB, which takes brackets and stars in a name for a pattern."""
    return _list(glob.escape(path) for path in paths)


# Reading


def _converted_columns(document):
    """Columns that are converted by name: they are read as the text that they are."""
    converted = set()
    for step in document.get("transformations") or []:
        for part in step.get("convert_column_types") or [] if isinstance(step, dict) else []:
            converted.update(names(part["columns"]))
    return converted


def _read(connection, name, settings, document, base):
    if name == "read_delta_lake":
        return _read_delta(connection, settings, document, base)
    paths = _paths(document, base)
    if name == "files":
        rows = ", ".join("(%s)" % text(path) for path in paths)
        return 'SELECT "Path", "Path" AS %s FROM (VALUES %s) AS t("Path")' % (column(PATH), rows)
    if name == "read_parquet":
        return "SELECT * EXCLUDE (filename), filename AS %s FROM read_parquet(%s, union_by_name = true, filename = true, %s)" % (
            column(PATH),
            _files(paths),
            NO_FOLDERS,
        )
    if name == "read_json_lines":
        paths, origin = _decoded(paths, settings)
        drop = str(settings.get("invalid_lines", "error")) == "drop"
        query = "SELECT * FROM read_json(%s, format = 'newline_delimited', union_by_name = true, filename = true, %s%s)" % (
            _files(paths),
            NO_FOLDERS,
            ", ignore_errors = true" if drop else "",
        )
        # A line that is dropped leaves a row without any value.
        query = _with_path(query, origin)
        return query if not drop else _without_empty(connection, query)
    return _read_delimited(connection, paths, settings, _converted_columns(document))


def _without_empty(connection, query):
    columns = [name for name in connection.sql(query).columns if name != PATH]
    return "SELECT * FROM (%s) WHERE %s" % (query, " OR ".join("%s IS NOT NULL" % column(name) for name in columns))


def _with_path(query, origin):
    """The hidden column, with the names that files had before they were decoded."""
    if not origin:
        return "SELECT * EXCLUDE (filename), filename AS %s FROM (%s)" % (column(PATH), query)
    cases = " ".join("WHEN %s THEN %s" % (text(new), text(old)) for new, old in origin.items())
    return "SELECT * EXCLUDE (filename), CASE filename %s ELSE filename END AS %s FROM (%s)" % (cases, column(PATH), query)


def _decoded(paths, settings):
    """(paths in UTF-8, what each was before)"""
    encoding = str(settings.get("encoding") or "utf8").lower()
    if encoding in _DUCKDB_READS:
        return paths, {}
    if encoding not in _PYTHON_READS:
        raise ValueError("encoding %r is not one of %s" % (encoding, ", ".join([*_DUCKDB_READS, *_PYTHON_READS])))
    folder, origin = tempfile.mkdtemp(prefix="mltable-"), {}
    for index, path in enumerate(paths):
        target = os.path.join(folder, "%d-%s" % (index, os.path.basename(path)))
        with open(path, encoding=_PYTHON_READS[encoding], newline="") as source, open(target, "w", encoding="utf-8", newline="") as file:
            for chunk in iter(lambda source=source: source.read(1 << 20), ""):
                file.write(chunk)
        origin[target] = path
    return list(origin), origin


def _read_delimited(connection, paths, settings, as_text):
    header = settings.get("header", "all_files_same_headers")
    header = {True: "all_files_same_headers", False: "no_header"}.get(header, header)
    if header not in ("no_header", "from_first_file", "all_files_different_headers", "all_files_same_headers"):
        raise ValueError("header %r is not one of no_header, from_first_file, all_files_different_headers, all_files_same_headers" % header)
    paths, origin = _decoded(paths, settings)
    infer = bool(settings.get("infer_column_types", True))
    options = ["delim = %s" % text(settings.get("delimiter", ",")), "quote = '\"'", "filename = true", "null_padding = true"]
    options += ["sample_size = -1"] if infer else ["all_varchar = true"]
    options += ["parallel = false", "strict_mode = false", NO_FOLDERS]

    def is_text(index, name):
        return ("Column%d" % (index + 1) if header == "no_header" else name) in as_text

    def read(which, *more):
        query = "SELECT * FROM read_csv(%s, %s)"
        relation = connection.sql(query % (_files(which), ", ".join([*options, *more])))
        text_columns = [name for index, name in enumerate(relation.columns) if is_text(index, name)]
        # DuckDB takes yes and no, t and f for booleans; here only true and false are.
        text_columns += [
            name for name, kind in zip(relation.columns, relation.types) if str(kind) == "BOOLEAN" and not truths(which, name, more)
        ]
        typed = (
            ["types = {%s}" % ", ".join("%s: 'VARCHAR'" % text(name) for name in dict.fromkeys(text_columns))]
            if text_columns and infer
            else []
        )
        return query % (_files(which), ", ".join([*options, *more, *typed]))

    def truths(which, name, more):
        plain = ", ".join([*options, *more, "types = {%s: 'VARCHAR'}" % text(name)])
        check = "SELECT bool_and(lower(%s) IN ('true', 'false')) FROM read_csv(%s, %s)" % (column(name), _files(which), plain)
        return connection.sql(check).fetchone()[0] is not False

    if header == "no_header":
        query = read(paths, "header = false")
        columns = [name for name in connection.sql(query).columns if name != "filename"]
        renamed = ", ".join("%s AS %s" % (column(name), column("Column%d" % (index + 1))) for index, name in enumerate(columns))
        query = "SELECT %s, filename FROM (%s)" % (renamed, query)
    elif header == "from_first_file" and len(paths) > 1:
        first = read(paths[:1], "header = true")
        columns = [name for name in connection.sql(first).columns if name != "filename"]
        query = "%s UNION ALL BY NAME %s" % (first, read(paths[1:], "header = false", "names = %s" % _list(columns)))
    else:
        query = read(paths, "header = true", "union_by_name = true")
    query = _with_path(query, origin)
    if settings.get("empty_as_string"):
        relation = connection.sql(query)
        kinds = dict(zip(relation.columns, relation.types))
        filled = ", ".join("coalesce({0}, '') AS {0}".format(column(name)) for name, kind in kinds.items() if str(kind) == "VARCHAR")
        query = "SELECT * REPLACE (%s) FROM (%s)" % (filled, query) if filled else query
    return query


def _read_delta(connection, settings, document, base):
    try:
        from deltalake import DeltaTable
    except ImportError as error:
        raise ImportError("read_delta_lake needs the packages deltalake and pyarrow in the environment") from error
    tables = []
    for index, item in enumerate(document["paths"]):
        table = DeltaTable(_places.local(str(next(iter(item.values()))), base))
        version = settings.get("version_as_of")
        version = settings.get("timestamp_as_of") if version is None else int(version)
        if version is not None:
            table.load_as_version(version)
        name = "delta_%d" % index
        connection.register(name, table.to_pyarrow_table())
        tables.append("SELECT *, %s AS %s FROM %s" % (text(next(iter(item.values()))), column(PATH), name))
    return " UNION ALL BY NAME ".join(tables)


# Transformations


class _Table:
    def __init__(self, connection, query, with_path):
        self.connection, self.query = connection, query
        self.columns = [name for name in connection.sql(query).columns if name != PATH]
        if with_path and "Path" not in self.columns:  # a column like any other: it is filtered, dropped, kept
            self.query = 'SELECT %s AS "Path", * FROM (%s)' % (column(PATH), query)
            self.columns = ["Path", *self.columns]

    def shown(self):
        return "SELECT %s FROM (%s)" % (", ".join(column(name) for name in self.columns) or "1 LIMIT 0", self.query)

    def _known(self, columns):
        missing = [name for name in columns if name not in self.columns]
        if missing:
            raise ValueError("there is no column %s; there are %s" % (", ".join(missing), ", ".join(self.columns)))
        return columns

    def take(self, count):
        self.query = "SELECT * FROM (%s) LIMIT %d" % (self.query, int(count))

    def skip(self, count):
        self.query = "SELECT * FROM (%s) OFFSET %d" % (self.query, int(count))

    def take_random_sample(self, settings):
        self._chosen(float(settings["probability"]), int(settings.get("seed") or 0), "<")

    def random_split(self, settings):
        self._chosen(float(settings["percent"]), int(settings["seed"]), ">=" if settings["part"] else "<")

    def _chosen(self, share, seed, comparison):
        """By a hash of the row's number: the same rows for the same seed."""
        limit = int(share * 2**32)
        number = "row_number() OVER ()"
        self.query = "SELECT * EXCLUDE (__row) FROM (SELECT *, %s AS __row FROM (%s)) WHERE hash(__row, %d) %% 4294967296 %s %d" % (
            number,
            self.query,
            seed,
            comparison,
            limit,
        )

    def drop_columns(self, columns):
        dropped = set(self._known(names(columns)))
        self.columns = [name for name in self.columns if name not in dropped]

    def keep_columns(self, columns):
        self.columns = list(self._known(names(columns)))

    def filter(self, expression):
        self.query = "SELECT * FROM (%s) WHERE %s" % (self.query, condition(expression, self._known))

    def convert_column_types(self, steps):
        for step in steps:
            columns = self._known(names(step["columns"]))
            replaced = ", ".join("%s AS %s" % (_converted(name, step["column_type"]), column(name)) for name in columns)
            self.query = "SELECT * REPLACE (%s) FROM (%s)" % (replaced, self.query)

    def extract_columns_from_partition_format(self, settings):
        pattern = settings.get("partition_format") if isinstance(settings, dict) else settings
        regex, kinds = _partition_format(str(pattern))
        paths = [row[0] for row in self.connection.sql("SELECT DISTINCT %s FROM (%s)" % (column(PATH), self.query)).fetchall()]
        cases_of = {name: [] for name in kinds}
        for path in paths:
            match = regex.search(path.replace(os.sep, "/"))
            if match is None:
                raise ValueError("the path %s does not match the partition format %s" % (path, pattern))
            for name, moment in kinds.items():
                value = _moment(match, name) if moment else text(match.group(name))
                cases_of[name].append("WHEN %s THEN %s" % (text(path), value))
        # Not a join, which would not keep the order of the rows.
        added = [
            "CASE %s %s END AS %s" % (column(PATH), " ".join(cases or ["WHEN '' THEN ''"]), column(name))
            for name, cases in cases_of.items()
        ]
        # A column that has the name already, also one that was dropped before, gives way.
        replaced = [name for name in self.connection.sql(self.query).columns if name in kinds]
        kept = "* EXCLUDE (%s)" % ", ".join(map(column, replaced)) if replaced else "*"
        self.query = "SELECT %s, %s FROM (%s)" % (kept, ", ".join(added), self.query)
        self.columns = [name for name in self.columns if name not in kinds] + list(kinds)

    extract_partition_format_into_columns = extract_columns_from_partition_format  # its name in older files


def _converted(name, kind):
    settings = {}
    if isinstance(kind, dict):
        kind, settings = next(iter(kind.items()))
        settings = settings or {}
    quoted = column(name)
    if kind in TYPES:
        return "TRY_CAST(%s AS %s)" % (quoted, TYPES[kind])
    if kind in ("boolean", "bool"):
        return _boolean(quoted, settings)
    if kind == "datetime":
        formats = settings.get("formats") if isinstance(settings, dict) else settings
        formats = [formats] if isinstance(formats, str) else list(formats or [])
        tries = ["try_strptime(CAST(%s AS VARCHAR), %s)" % (quoted, text(item)) for item in formats]
        return "coalesce(%s)" % ", ".join([*tries, "TRY_CAST(%s AS TIMESTAMP)" % quoted] if not formats else tries)
    raise ValueError("column_type %r is not one of %s, boolean, datetime" % (kind, ", ".join(TYPES)))


def _boolean(quoted, settings):
    yes, no = settings.get("true_values"), settings.get("false_values")
    if not yes and not no:
        return "TRY_CAST(%s AS BOOLEAN)" % quoted
    words = "CAST(%s AS VARCHAR)" % quoted
    mismatch = {"true": "true", "false": "false"}.get(str(settings.get("mismatch_as", "error")).lower(), "NULL")
    chosen = [yes] if isinstance(yes, str) else list(yes or [])
    others = [no] if isinstance(no, str) else list(no or [])
    parts = [
        "WHEN %s IN (%s) THEN %s" % (words, ", ".join(text(v) for v in v_), b) for v_, b in ((chosen, "true"), (others, "false")) if v_
    ]
    return "CASE %s ELSE %s END" % (" ".join(parts), mismatch)


_MOMENT = {"yyyy": "Y", "MM": "m", "dd": "d", "HH": "H", "mm": "M", "ss": "S"}


def _partition_format(pattern):
    """(regular expression over a path, {column: whether it is a moment})"""
    regex, kinds = "", {}
    for part in re.split(r"(\{[^}]*\})", pattern):
        if not part.startswith("{"):
            regex += re.escape(part).replace(r"\*", "[^/]*")
            continue
        name, colon, layout = part[1:-1].partition(":")
        if name and not name.isidentifier():
            raise ValueError("%r in the partition format %r is not a name of letters, digits and _" % (name, pattern))
        if not name:
            regex += "[^/]*"
        elif colon:
            kinds[name] = True
            for piece in re.split("(yyyy|MM|dd|HH|mm|ss)", layout):
                digits = 4 if piece == "yyyy" else 2
                regex += "(?P<%s__%s>\\d{%d})" % (name, _MOMENT[piece], digits) if piece in _MOMENT else re.escape(piece)
        else:
            kinds[name] = False
            regex += "(?P<%s>[^/]+)" % name
    if not kinds:
        raise ValueError("the partition format %r names no column; write {name} or {name:yyyy/MM/dd}" % pattern)
    return re.compile(regex), kinds


def _moment(match, name):
    parts = {key.rpartition("__")[2]: value for key, value in match.groupdict().items() if key.startswith(name + "__")}
    return "TIMESTAMP '%s-%s-%s %s:%s:%s'" % tuple(
        parts.get(key) or other for key, other in zip("YmdHMS", ("1900", "01", "01", "00", "00", "00"))
    )


# Filters

_COMPARE = {ast.Eq: "=", ast.NotEq: "<>", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
_ARITHMETIC = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Mod: "%"}


def condition(expression, known=None):
    """A filter expression as SQL. Raises ValueError for anything but comparisons of `col("name")` and constants."""
    try:
        tree = ast.parse(str(expression), mode="eval").body
    except (SyntaxError, ValueError, RecursionError):
        raise ValueError("the filter %r is not an expression" % (expression,)) from None
    return _sql(tree, str(expression), known)


def _sql(node, whole, known):
    def inner(part):
        return _sql(part, whole, known)

    if isinstance(node, ast.BoolOp):
        word = " AND " if isinstance(node.op, ast.And) else " OR "
        return "(" + word.join(inner(part) for part in node.values) + ")"
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.BitAnd, ast.BitOr)):
        word = "AND" if isinstance(node.op, ast.BitAnd) else "OR"
        return "(%s %s %s)" % (inner(node.left), word, inner(node.right))
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        return "(%s %s %s)" % (inner(node.left), _ARITHMETIC[type(node.op)], inner(node.right))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.Invert)):
        return "(NOT %s)" % inner(node.operand)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return "(-%s)" % inner(node.operand)
    if isinstance(node, ast.Compare):
        return _comparison(node, whole, inner)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) == 1 and not node.keywords:
        if node.func.id == "col" and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
            name = node.args[0].value
            if known is not None:
                known([name])
            return column(name)
        if node.func.id in ("isnull", "is_null"):
            return "(%s IS NULL)" % inner(node.args[0])
    if isinstance(node, ast.Constant):
        if node.value is None:
            return "NULL"
        if isinstance(node.value, bool):
            return "true" if node.value else "false"
        if isinstance(node.value, (int, float)) and abs(node.value) < float("inf"):
            return repr(node.value)
        if isinstance(node.value, str):
            return text(node.value)
    raise ValueError('the filter %s has a part that is not known; write col("name") <= value, joined by and, or, not' % whole)


def _comparison(node, whole, inner):
    parts, left = [], node.left
    for operator, right in zip(node.ops, node.comparators):
        if isinstance(right, ast.Constant) and right.value is None and isinstance(operator, (ast.Eq, ast.Is, ast.NotEq, ast.IsNot)):
            parts.append("%s IS %sNULL" % (inner(left), "NOT " if isinstance(operator, (ast.NotEq, ast.IsNot)) else ""))
        elif isinstance(operator, (ast.In, ast.NotIn)) and isinstance(right, (ast.List, ast.Tuple, ast.Set)) and right.elts:
            word = "NOT IN" if isinstance(operator, ast.NotIn) else "IN"
            parts.append("%s %s (%s)" % (inner(left), word, ", ".join(inner(item) for item in right.elts)))
        elif type(operator) in _COMPARE:
            parts.append("%s %s %s" % (inner(left), _COMPARE[type(operator)], inner(right)))
        else:
            raise ValueError("the filter %s compares in a way that is not known" % whole)
        left = right
    return "(" + " AND ".join(parts) + ")"

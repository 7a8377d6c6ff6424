"""What differs between runs, or between versions of models, row by row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Document = dict[str, Any]


def differing(compared: Mapping[str, Mapping[str, Document]]) -> list[Document]:
    """Of {name: {part: {key: value}}} a row for each key whose values differ: {field: part.key, name: value, …}."""
    rows = []
    for part in dict.fromkeys(part for parts in compared.values() for part in parts):
        values = {name: parts.get(part) or {} for name, parts in compared.items()}
        for key in sorted({key for some in values.values() for key in some}):
            row = {name: some.get(key) for name, some in values.items()}
            if len({str(value) for value in row.values()}) > 1:
                rows.append({"field": f"{part}.{key}" if part else key, **row})
    return rows

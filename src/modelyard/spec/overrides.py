"""`--set a.b=VALUE`: fields of a document by their dotted names."""

from __future__ import annotations

import json
from typing import Any

from ..core.errors import Invalid
from .scalar import Scalar


def assign(data: dict[str, Any], name: str, value: Any) -> None:
    """Set `a.b.c` inside nested mappings and lists (an index is a list position), making mappings on the way."""
    *parents, last = name.split(".")
    current: Any = data
    for part in parents:
        if isinstance(current, list) and part.isdigit() and int(part) < len(current):
            current = current[int(part)]
        elif isinstance(current, dict):
            following = current.get(part)
            if not isinstance(following, (dict, list)):
                following = current[part] = {}
            current = following
        else:
            raise Invalid(f"--set {name}: {part!r} is not inside a mapping", code="invalid_override")
    if isinstance(current, list) and last.isdigit() and int(last) < len(current):
        current[int(last)] = value
    elif isinstance(current, dict):
        current[last] = value
    else:
        raise Invalid(f"--set {name}: {last!r} is not inside a mapping", code="invalid_override")


def override_value(text: str, as_text: bool = False) -> Any:
    """The value of `--set name=VALUE`: JSON where it reads as JSON, else the text itself. Numbers and truth values keep how they were written."""
    if as_text:
        return text
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return Scalar(value, text) if isinstance(value, (int, float, bool)) else value


def sent(value: Any) -> Any:
    """A value of `--set` in a document that is sent as it is: `1.10` and `1e3`, which JSON would write otherwise, as the text."""
    if isinstance(value, Scalar):
        return value.value if json.dumps(value.value) == value.text else value.text
    return value

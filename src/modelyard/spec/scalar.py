"""Numbers and truth values of YAML as they were written. Apart from the reader, whose library a command that reads no file has no use for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Scalar:
    """A number or truth value as it was written: `1.10`, `010`, `yes`. A spec takes the text where it means text, else the value."""

    value: int | float | bool
    text: str


def plain(data: Any) -> Any:
    """Without what was written: each scalar is its value."""
    if isinstance(data, Scalar):
        return data.value
    if isinstance(data, dict):
        return {key: plain(value) for key, value in data.items()}
    return [plain(value) for value in data] if isinstance(data, list) else data

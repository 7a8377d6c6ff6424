"""YAML read safely, with the position of every value.

Refused: documents over 1 MB, nesting deeper than 64, more than 100,000 values after alias expansion (so that
exponential alias documents end early), duplicate keys, tags beyond YAML's own scalars and collections.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from ..core.errors import Invalid, NotFound, Problem
from .scalar import Scalar, plain

MAX_BYTES = 1_000_000
MAX_DEPTH = 64
MAX_VALUES = 100_000

Positions = dict[tuple[Any, ...], tuple[int, int]]


@dataclass(frozen=True)
class Document:
    """`data` is dicts, lists and scalars; keys, and dates, are text. `positions` maps a path of keys to (line, column), from 1."""

    data: Any
    positions: Positions
    file: str = ""


def read(path: Path, *, as_written: bool = False) -> Document:
    """Read a YAML file; `as_written` with `Scalar`s. Raises NotFound when it is not there, Invalid with the position when it is not acceptable."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise Invalid(f"{path}: a YAML file may have {MAX_BYTES:,} bytes at most", code="invalid_yaml")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound(f"{path}: there is no such file", code="file_not_found") from None
    except IsADirectoryError:
        raise Invalid(f"{path} is a folder, not a YAML file", code="invalid_yaml") from None
    except UnicodeDecodeError:
        raise Invalid(f"{path}: this is not UTF-8 text", code="invalid_yaml") from None
    except OSError as error:
        raise Invalid(f"{path}: {error.strerror}", code="invalid_yaml") from None
    return loads(text, file=str(path), as_written=as_written)


def loads(text: str, file: str = "", *, as_written: bool = False) -> Document:
    """Parse one YAML document from `text`; `file` names it in errors."""
    if len(text) > MAX_BYTES:
        raise Invalid(f"{file}: a YAML document may have {MAX_BYTES:,} characters at most", code="invalid_yaml")
    try:
        # The event stream is checked first: composing a too deep document would exhaust the interpreter's stack.
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > MAX_DEPTH:
                    raise _refusal(file, event.start_mark, f"nested deeper than {MAX_DEPTH}")
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            builder = _Builder(loader, file)
            data = builder.build(node, (), 0) if node is not None else None
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _refusal(file, mark, error.problem or "not valid YAML") from None
    except yaml.YAMLError as error:
        raise Invalid(f"{file}: {str(error).splitlines()[0]}", code="invalid_yaml") from None
    except (ValueError, RecursionError) as error:
        raise Invalid(f"{file}: {error}", code="invalid_yaml") from None
    return Document(data if as_written else plain(data), builder.positions, file)


def _refusal(file: str, mark: Any, message: str) -> Invalid:
    line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    return Invalid("this is not acceptable YAML", code="invalid_yaml", problems=(Problem(message, "", file, line, column),))


class _Builder:
    def __init__(self, loader: yaml.SafeLoader, file: str) -> None:
        self.loader = loader
        self.file = file
        self.positions: Positions = {}
        self.values = 0

    def build(self, node: yaml.Node, path: tuple[Any, ...], depth: int) -> Any:
        self.values += 1
        if self.values > MAX_VALUES or depth > MAX_DEPTH:
            raise _refusal(self.file, node.start_mark, "too many values or too deep once its aliases are expanded")
        self.positions[path] = (node.start_mark.line + 1, node.start_mark.column + 1)
        if node.tag not in self.loader.yaml_constructors or not node.tag.startswith("tag:yaml.org,2002:"):
            raise _refusal(self.file, node.start_mark, f"the tag {node.tag} is not allowed")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(child, (*path, index), depth + 1) for index, child in enumerate(node.value)]
        value = self.loader.construct_object(node)
        if isinstance(value, (int, float)):
            return Scalar(value, node.value)
        return node.value if isinstance(value, date) else value  # a datetime is a date

    def _mapping(self, node: yaml.MappingNode, path: tuple[Any, ...], depth: int) -> dict[Any, Any]:
        written: set[Any] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise _refusal(self.file, key_node.start_mark, "a key must be a plain value")
            if key_node.value in written and key_node.value != "<<":
                raise _refusal(self.file, key_node.start_mark, f"the key {key_node.value!r} appears twice")
            written.add(key_node.value)
        self.loader.flatten_mapping(node)
        result: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            result[key] = self.build(value_node, (*path, key), depth + 1)
            self.positions[(*path, key)] = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
        return result

"""What the rest of the yard must know of a feature: its manifest, one `FEATURE` in each feature's `feature.py`.

`app/features.py` lists them, and a yard is composed of the list: its tables, routes, loops and checks come from there.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import ModuleType
from typing import Any, TypeVar

from fastapi import APIRouter
from prometheus_client import Metric

from ..core.actor import permission_of
from ..storage.tables import Table
from ..storage.unit import Unit
from .loops import Loop
from .yard import Yard

E = TypeVar("E")


@dataclass(frozen=True)
class Feature:
    name: str
    """`floor.folder`, such as `work.jobs`."""
    use_cases: tuple[ModuleType, ...] = ()
    """Modules whose public functions take a unit first; each states its permission, or that it is internal."""
    tables: tuple[Table, ...] = ()
    routes: APIRouter | None = None
    """Native routes, below `/api/v1`."""
    loops: Callable[[Yard], Sequence[Loop]] | None = None
    holds: Mapping[str, Table] = field(default_factory=dict)
    """Noun → table with a `workspace` column: a workspace with rows there is not empty and cannot be deleted."""
    extends: tuple[object, ...] = ()
    """What it adds to a feature below it, in that feature's own words: a `JobKind` adds a kind of job."""
    start: Callable[[Yard], Awaitable[None]] | None = None
    """What must run before the yard answers."""
    metrics: Callable[[Yard], Awaitable[Iterable[Metric]]] | None = None
    """What it adds to `/metrics`, now."""


class Composition:
    """The features that a process is composed of."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self.features = tuple(features)

    @cached_property
    def holders(self) -> dict[str, Table]:
        return {noun: table for feature in self.features for noun, table in feature.holds.items()}

    @cached_property
    def workspace_tables(self) -> list[Table]:
        """Tables whose rows belong to a workspace."""
        return [table for feature in self.features for table in feature.tables if "workspace" in table.c]

    def extensions(self, kind: type[E]) -> list[E]:
        """What features add of one kind, in the order of the list."""
        return [item for feature in self.features for item in feature.extends if isinstance(item, kind)]

    def check_permissions(self) -> None:
        """Raise RuntimeError for a use case that states neither a permission nor that it is internal."""
        for feature in self.features:
            for module in feature.use_cases:
                for name, function in _use_cases(module):
                    if permission_of(function) is None and not getattr(function, "internal", False):
                        raise RuntimeError(f"{module.__name__}.{name} states no permission")


def _use_cases(module: ModuleType) -> Iterator[tuple[str, Callable[..., Any]]]:
    for name, function in inspect.getmembers(module, inspect.isfunction):
        if function.__module__ == module.__name__ and not name.startswith("_") and takes_unit(function):
            yield name, function


def takes_unit(function: Callable[..., Any]) -> bool:
    """Whether the first argument is a unit of work, by its type."""
    first = next(iter(inspect.signature(function).parameters.values()), None)
    if first is None:
        return False
    annotation = typing.get_type_hints(inspect.unwrap(function)).get(first.name)
    if isinstance(annotation, TypeVar):
        annotation = annotation.__bound__
    return isinstance(annotation, type) and issubclass(annotation, Unit)


_composed = Composition(())


def compose(features: Sequence[Feature]) -> Composition:
    """Make a composition the one of this process: services of features below read what those above add."""
    global _composed
    _composed = Composition(features)
    return _composed


def composed() -> Composition:
    return _composed

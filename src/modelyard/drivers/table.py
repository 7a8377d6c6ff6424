"""Drivers that a setting chooses, by name. Each is imported when it is used."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from ..core.errors import Invalid
from ..core.home import Home
from ..core.names import nearest
from ..ports.builder import Builder
from ..ports.executor import Executor
from ..ports.objects import ObjectStore, TreeLayout
from ..settings import Settings
from .isolation import Isolation
from .supervisor_client import SupervisorClient


@dataclass(frozen=True)
class Parts:
    """What a driver is constructed from."""

    home: Home
    settings: Settings
    supervisor: SupervisorClient
    isolation: Isolation
    objects: ObjectStore
    layout: TreeLayout
    builder: Builder


EXECUTORS = {
    "local": "modelyard.drivers.executor.local.executor:make",
}
"""Setting `executor` → module and function: `Parts` → `Executor`. What a driver needs besides is the extra of its name in pyproject.toml."""


def make_executor(name: str, parts: Parts) -> Executor:
    """Raises Invalid for a name that is not in the table, and for a driver whose extra is not installed."""
    if name not in EXECUTORS:
        raise Invalid(f"setting executor: {name!r} is not one of {', '.join(EXECUTORS)}{nearest(name, EXECUTORS)}")
    module, _, function = EXECUTORS[name].partition(":")
    try:
        make: Callable[[Parts], Executor] = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        raise Invalid(
            f"the executor {name} needs {error.name}, which is not installed", code="missing_extra", hint=f"pip install 'modelyard[{name}]'"
        ) from None
    return make(parts)

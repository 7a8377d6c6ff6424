"""What a feature is given: the database, the drivers behind their ports, the home and the settings. Made in `app/compose.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..core.home import Home
from ..ports.builder import Builder
from ..ports.executor import Executor
from ..ports.objects import ResumableObjectStore, TreeLayout
from ..ports.replicas import Replicas
from ..ports.vault import Vault
from ..settings import Settings
from ..storage.database import Database

T = TypeVar("T")


@dataclass
class Yard:
    home: Home
    settings: Settings
    db: Database
    objects: ResumableObjectStore
    layout: TreeLayout
    executor: Executor
    replicas: Replicas
    builder: Builder
    vault: Vault
    node: str
    """This machine's share of the yard: jobs it claimed are found again under this name after a restart."""
    url: str = ""
    router_url: str = ""
    isolation: str = "none"
    """How user code is kept apart: `user`, `landlock`, `user+landlock`, or `none` (single user)."""
    notices: list[str] = field(default_factory=list)
    _shared: dict[Callable[[Yard], Any], Any] = field(default_factory=dict)

    def one(self, make: Callable[[Yard], T]) -> T:
        """The object of this yard that `make` makes: made when first asked for, then the same for every part of a feature."""
        if make not in self._shared:
            self._shared[make] = make(self)
        found: T = self._shared[make]
        return found

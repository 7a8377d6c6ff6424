"""The yard as features see it: the database, the drivers behind their ports, the home and the settings. Composed in `app/compose.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..core.addresses import AddressGuard
from ..core.home import Home
from ..ports.builder import Builder
from ..ports.executor import Executor
from ..ports.objects import ResumableObjectStore, TreeLayout
from ..ports.replicas import Replicas
from ..ports.vault import Vault
from ..settings import Settings
from ..storage.database import Database
from .alarms import Alarms

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
    """This machine's share of the yard: after a restart the server resumes the jobs that it claimed under this name."""
    url: str = ""
    router_url: str = ""
    isolation: str = "none"
    """How user code is isolated: `user`, `landlock`, `user+landlock`, or `none` (single user)."""
    notices: list[str] = field(default_factory=list)
    alarms: Alarms = field(default_factory=Alarms)
    addresses: AddressGuard = AddressGuard()
    """Judges every address that somebody else wrote, before it is connected to."""
    _shared: dict[Callable[[Yard], Any], Any] = field(default_factory=dict)

    def one(self, make: Callable[[Yard], T]) -> T:
        """The object of this yard that `make` makes: created on first use, then the same for every part of a feature."""
        if make not in self._shared:
            self._shared[make] = make(self)
        shared: T = self._shared[make]
        return shared

"""What a feature is given: the database, the drivers behind their ports, the home and the settings. Made in `app.py`."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..core.home import Home
from ..ports.builder import Builder
from ..ports.objects import ResumableObjectStore
from ..ports.processes import Executor, Replicas
from ..ports.vault import Vault
from ..settings import Settings
from ..storage.database import Database


@dataclass
class Yard:
    home: Home
    settings: Settings
    db: Database
    objects: ResumableObjectStore
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

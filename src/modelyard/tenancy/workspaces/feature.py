from __future__ import annotations

from ...engine.feature import Feature
from . import rest, service, store

FEATURE = Feature(
    "tenancy.workspaces",
    use_cases=(service,),
    tables=(store.workspaces, store.storage_use),
    routes=rest.router,
)

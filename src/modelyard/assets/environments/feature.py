from __future__ import annotations

from ...engine.feature import Feature
from . import rest, service, store
from .loop import EnvironmentsLoop

FEATURE = Feature(
    "assets.environments",
    use_cases=(service,),
    tables=(store.environment_locks,),
    routes=rest.router,
    loops=lambda yard: [EnvironmentsLoop(yard)],
)

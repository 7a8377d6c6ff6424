from __future__ import annotations

from ...engine.feature import Feature
from . import rest, service
from .loop import Emitter

FEATURE = Feature(
    "oversight.lineage",
    use_cases=(service,),
    routes=rest.router,
    loops=lambda yard: [Emitter(yard)],
)

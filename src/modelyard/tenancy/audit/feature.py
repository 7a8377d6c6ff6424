from __future__ import annotations

from ...engine.feature import Feature
from . import rest, service
from .loop import Sealer

FEATURE = Feature(
    "tenancy.audit",
    use_cases=(service,),
    routes=rest.router,
    loops=lambda yard: [Sealer(yard)],
)

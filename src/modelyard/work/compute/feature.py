from __future__ import annotations

from ...engine.feature import Feature
from . import rest, service, store

FEATURE = Feature(
    "work.compute",
    use_cases=(service,),
    tables=(store.computes,),
    routes=rest.router,
    holds={"computes": store.computes},
)

from __future__ import annotations

from ...engine.feature import Feature
from . import rest, service

FEATURE = Feature(
    "assets.data",
    use_cases=(service,),
    routes=rest.router,
)

from __future__ import annotations

from ...engine.feature import Feature
from . import service, store

FEATURE = Feature(
    "assets.references",
    use_cases=(service,),
    tables=(store.holds,),
)

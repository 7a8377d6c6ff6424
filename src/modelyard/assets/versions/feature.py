from __future__ import annotations

from ...engine.feature import Feature
from . import service, store

FEATURE = Feature(
    "assets.versions",
    use_cases=(service,),
    tables=(store.asset_versions,),
    holds={"data or environments": store.asset_versions},
)

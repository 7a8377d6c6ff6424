from __future__ import annotations

from ...engine.feature import Feature
from . import rest, service, store

FEATURE = Feature(
    "assets.files",
    use_cases=(service,),
    tables=(store.datastores, store.files, store.named_outputs),
    routes=rest.router,
    holds={"datastores": store.datastores},
)

from __future__ import annotations

from ...engine.feature import Feature
from . import rest, service, store
from .loop import ContentAlarm

FEATURE = Feature(
    "assets.files",
    use_cases=(service,),
    tables=(store.datastores, store.files, store.named_outputs, store.contents),
    loops=lambda yard: [ContentAlarm(yard)],
    routes=rest.router,
    holds={"datastores": store.datastores},
)

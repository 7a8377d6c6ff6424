from __future__ import annotations

from ...engine.feature import Feature
from . import rest, service, store
from .kinds_loop import KindsLoop
from .loop import JobsLoop

FEATURE = Feature(
    "work.jobs",
    use_cases=(service,),
    tables=(store.jobs,),
    routes=rest.router,
    loops=lambda yard: [JobsLoop(yard), KindsLoop(yard)],
    holds={"jobs": store.jobs},
)

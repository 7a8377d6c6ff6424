from __future__ import annotations

from ...engine.feature import Feature
from . import rest, service, store
from .loop import SchedulesLoop

FEATURE = Feature(
    "work.schedules",
    use_cases=(service,),
    tables=(store.schedules, store.schedule_firings),
    routes=rest.router,
    loops=lambda yard: [SchedulesLoop(yard)],
    holds={"schedules": store.schedules},
)

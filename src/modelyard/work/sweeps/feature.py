from __future__ import annotations

from ...engine.feature import Feature
from ..jobs.kinds import JobKind
from . import loop, service, store

FEATURE = Feature(
    "work.sweeps",
    use_cases=(service,),
    tables=(store.sweep_trials,),
    extends=(JobKind("sweep", service.submit, service.details, service.forget, loop.due, loop.advance),),
)

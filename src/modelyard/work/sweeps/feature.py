from __future__ import annotations

from ...engine.feature import Feature
from ...spec.sweep import SweepJob
from ..jobs.kinds import JobKind
from . import loop, service, store

FEATURE = Feature(
    "work.sweeps",
    use_cases=(service,),
    tables=(store.sweep_trials,),
    extends=(JobKind("sweep", SweepJob, service.submit, service.details, service.forget, loop.due, loop.advance),),
)

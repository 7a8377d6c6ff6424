from __future__ import annotations

from ...engine.feature import Feature
from ..jobs.kinds import Children, JobKind, StepKind
from . import loop, service, store
from .step import of_step

FEATURE = Feature(
    "work.sweeps",
    use_cases=(service,),
    tables=(store.sweep_trials,),
    extends=(
        JobKind("sweep", service.submit, children=Children(loop.due, loop.advance), details=service.details, forget=service.forget),
        StepKind("sweep", of_step),
    ),
)

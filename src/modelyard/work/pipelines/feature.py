from __future__ import annotations

from ...engine.feature import Feature
from ..jobs.kinds import JobKind
from . import loop, service, store

FEATURE = Feature(
    "work.pipelines",
    use_cases=(service,),
    tables=(store.pipeline_steps, store.step_results),
    extends=(JobKind("pipeline", service.submit, service.details, service.forget, loop.due, loop.advance, service.resume),),
)

from __future__ import annotations

from ...engine.feature import Feature
from ..jobs.kinds import Children, JobKind
from . import loop, service, store

FEATURE = Feature(
    "work.pipelines",
    use_cases=(service,),
    tables=(store.pipeline_steps, store.step_results),
    extends=(
        JobKind(
            "pipeline",
            service.submit,
            children=Children(loop.due, loop.advance),
            details=service.details,
            forget=service.forget,
            resume=service.resume,
        ),
    ),
)

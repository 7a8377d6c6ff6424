from __future__ import annotations

from ...engine.feature import Feature
from ..jobs.kinds import Children, JobKind, StepKind
from ..jobs.model import Program
from . import loop, service, store
from .parallel import parallel_job

FEATURE = Feature(
    "work.pipelines",
    use_cases=(service,),
    tables=(store.pipeline_steps, store.step_results, store.step_claims),
    extends=(
        JobKind(
            "pipeline",
            service.submit,
            children=Children(loop.due, loop.advance),
            details=service.details,
            forget=service.forget,
            resume=service.resume,
            ended=service.job_ended,
        ),
        StepKind("parallel", parallel_job, Program.PARALLEL),
    ),
)

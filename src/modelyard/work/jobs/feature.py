from __future__ import annotations

from ...engine.feature import Feature
from . import command, outputs, reruns, resolution, rest, service, store
from .kinds import JobKind, StepKind
from .loop import JobsLoop
from .orchestration_loop import OrchestrationLoop

FEATURE = Feature(
    "work.jobs",
    use_cases=(service, resolution, outputs, reruns),
    tables=(store.jobs,),
    routes=rest.router,
    loops=lambda yard: [JobsLoop(yard), OrchestrationLoop(yard)],
    holds={"jobs": store.jobs},
    extends=(JobKind("command", service.submit, run=command.execution), StepKind("command", command.of_step)),
)

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Metric

from ...engine.feature import Feature
from ...engine.yard import Yard
from . import rest, service, store
from .health import LivenessLoop, mark_unanswering
from .issuer import IssuerLoop
from .loop import DeploymentsLoop
from .metrics import families
from .replicas import RouterTable
from .scaling import RolloutsLoop, ScalingLoop


async def _start(yard: Yard) -> None:
    await mark_unanswering(yard)
    await yard.one(RouterTable).start()


async def _metrics(yard: Yard) -> Iterable[Metric]:
    return families(await yard.one(RouterTable).report())


FEATURE = Feature(
    "serving.online",
    use_cases=(service,),
    tables=(store.endpoints, store.deployments, store.rollouts),
    routes=rest.router,
    loops=lambda yard: [DeploymentsLoop(yard), ScalingLoop(yard), RolloutsLoop(yard), LivenessLoop(yard), IssuerLoop(yard)],
    holds={"endpoints": store.endpoints},
    start=_start,
    metrics=_metrics,
)

from __future__ import annotations

from ...engine.feature import Feature
from . import rest, service, store

FEATURE = Feature(
    "serving.batch",
    use_cases=(service,),
    tables=(store.batch_endpoints, store.batch_deployments, store.batch_jobs),
    routes=rest.router,
    holds={"batch endpoints": store.batch_endpoints},
)

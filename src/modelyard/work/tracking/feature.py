from __future__ import annotations

from ...engine.feature import Feature
from . import importing, rest, service, store

FEATURE = Feature(
    "work.tracking",
    use_cases=(service, importing),
    tables=(
        store.experiments,
        store.experiment_tags,
        store.runs,
        store.metrics,
        store.latest_metrics,
        store.params,
        store.tags,
        store.run_inputs,
        store.logged_models,
        store.logged_model_metrics,
    ),  # fmt: skip
    routes=rest.router,
)

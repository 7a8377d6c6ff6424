from __future__ import annotations

from ...engine.feature import Feature
from . import importing, rest, service, store

FEATURE = Feature(
    "assets.models",
    use_cases=(service, importing),
    tables=(
        store.registered_models,
        store.registered_model_tags,
        store.model_versions,
        store.model_version_tags,
        store.model_aliases,
    ),  # fmt: skip
    routes=rest.router,
    holds={"models": store.registered_models},
)

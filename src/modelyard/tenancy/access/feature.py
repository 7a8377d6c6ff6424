from __future__ import annotations

from ...engine.feature import Feature
from . import rest, service, store

FEATURE = Feature(
    "tenancy.access",
    use_cases=(service,),
    tables=(store.principals, store.custom_roles, store.role_assignments, store.tokens),
    routes=rest.router,
)

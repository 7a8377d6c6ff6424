from __future__ import annotations

from ...engine.feature import Feature
from . import rest, service, store
from .refusals import RefusalWriter

FEATURE = Feature(
    "tenancy.access",
    use_cases=(service,),
    tables=(store.principals, store.custom_roles, store.role_assignments, store.tokens),
    routes=rest.router,
    loops=lambda yard: [RefusalWriter(yard)],
)

from __future__ import annotations

from ...engine.feature import Feature
from . import service, store

FEATURE = Feature(
    "work.traces",
    use_cases=(service,),
    tables=(store.traces, store.trace_spans, store.trace_links, store.trace_assessments),
)

from __future__ import annotations

from ...engine.feature import Feature
from . import service

FEATURE = Feature("work.artifacts", use_cases=(service,))

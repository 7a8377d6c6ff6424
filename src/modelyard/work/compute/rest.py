from __future__ import annotations

from ...engine.resources import named_routes
from ...spec.nouns import NOUNS
from . import service

router = named_routes(NOUNS["compute"], service)

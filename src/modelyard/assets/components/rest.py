from __future__ import annotations

from ...spec.nouns import NOUNS
from ..versions.routes import asset_routes
from . import service

router = asset_routes(NOUNS["component"], service)

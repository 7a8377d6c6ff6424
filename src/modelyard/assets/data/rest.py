from __future__ import annotations

from ...spec.data import Data
from ..versions.routes import asset_routes
from . import service

router = asset_routes("data", Data, service)

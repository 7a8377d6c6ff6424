from __future__ import annotations

from ...engine.dialect import Dialect
from . import artifacts, registry, traces, tracking  # noqa: F401  (they register their routes)
from .app import claims, mlflow_app

DIALECT = Dialect("mlflow", claims, mlflow_app)

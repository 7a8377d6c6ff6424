"""modelyard: the whole Azure Machine Learning lifecycle as one Python program you run yourself.

`from modelyard import MLClient, command, Input, Output, load_job` gives the names of `azure.ai.ml`; each is imported
when it is first used, so that importing modelyard costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

from .spec.nouns import written

__version__ = "0.1.0"

_EXPORTS = {
    "MLClient": "sdk.client",
    "Input": "spec.inputs",
    "Output": "spec.inputs",
    **dict.fromkeys(("command", *(f"load_{noun.name}" for noun in written())), "sdk.builders"),
}
_ENTITIES = (
    "AmlCompute", "CodeConfiguration", "CommandJob", "Data", "Environment", "LocalCompute", "ManagedOnlineDeployment",
    "ManagedOnlineEndpoint", "Model", "OnlineRequestSettings", "ProbeSettings", "Workspace",
)  # fmt: skip
_EXPORTS.update(dict.fromkeys(_ENTITIES, "entities"))

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'modelyard' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_EXPORTS[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})

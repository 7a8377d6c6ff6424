"""modelyard: the whole Azure Machine Learning lifecycle as one Python program you run yourself.

`from modelyard import MLClient, command, Input, Output, load_job` gives the names of `azure.ai.ml`; each is imported
when it is first used, so that importing modelyard costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "MLClient": "sdk.client",
    "Input": "spec.inputs",
    "Output": "spec.inputs",
    "command": "sdk.builders",
    **dict.fromkeys(
        (
            "AmlCompute", "CodeConfiguration", "CommandJob", "Data", "Environment", "LocalCompute", "ManagedOnlineDeployment",
            "ManagedOnlineEndpoint", "Model", "OnlineRequestSettings", "ProbeSettings", "Workspace",
        ),
        "entities",
    ),
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return _names()
    module = _EXPORTS.get(name) or ("sdk.builders" if name.startswith("load_") else None)
    if module is None:
        raise AttributeError(f"module 'modelyard' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{module}", __name__), name)
    globals()[name] = value
    return value


def _names() -> list[str]:
    """What is exported: besides the names above, a loader for each noun that is written as YAML."""
    nouns = importlib.import_module(".spec.nouns", __name__)
    return sorted({*_EXPORTS, *(f"load_{noun.name}" for noun in nouns.written())})


def __dir__() -> list[str]:
    return sorted({*globals(), *_names()})

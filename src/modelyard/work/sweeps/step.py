"""The sweep job of a pipeline's step. Pure."""

from __future__ import annotations

from typing import Any

from ...spec.component import CommandComponent
from ...spec.step import SweepNode
from ...spec.sweep import SweepJob


def of_step(node: SweepNode, trial: CommandComponent, inputs: dict[str, Any], outputs: dict[str, Any]) -> SweepJob:
    fields = node.document()
    names = ("sampling_algorithm", "search_space", "objective", "early_termination", "limits", "resources")
    body = {key: fields[key] for key in names if key in fields}
    return SweepJob.model_validate(
        {**body, "type": "sweep", "trial": {**trial.document(), "name": "trial"}, "inputs": inputs, "outputs": outputs}
    )

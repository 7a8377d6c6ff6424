from __future__ import annotations

from typing import Any

from ...core.errors import Invalid
from ...spec.job import CommandJob
from .plan import Step


def parallel_job(step: Step, inputs: dict[str, Any], outputs: dict[str, Any]) -> CommandJob:
    raise Invalid("parallel steps are not run yet")

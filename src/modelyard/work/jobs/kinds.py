"""Kinds of jobs beside commands: each is a feature of its own, registered here by the composition root."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...spec.job import Job
from ...storage.unit import Unit
from ..compute.model import Share
from .model import JobRecord


@dataclass(frozen=True)
class JobKind:
    """A kind whose jobs are carried out by other jobs, their children."""

    model: type[Job]
    submit: Callable[[Unit, Any, Share], JobRecord]
    details: Callable[[Unit, JobRecord], dict[str, Any]]
    """What a job of this kind shows besides its record."""
    resume: Callable[[Unit, JobRecord, JobRecord], None] | None
    """Give a job, newly made, what an earlier one of the same spec has completed; None when the kind cannot."""
    forget: Callable[[Unit, str], None]
    """Drop the rows the kind keeps about a job."""


KINDS: dict[str, JobKind] = {}

"""Kinds of jobs beside commands: each is a feature of its own, whose manifest adds a `JobKind`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from ...engine.feature import composed
from ...engine.yard import Yard
from ...ports.executor import Share
from ...storage.unit import Unit
from .model import JobRecord


@dataclass(frozen=True)
class JobKind:
    """A kind whose jobs are carried out by other jobs, their children."""

    name: str
    """The `type` of its jobs."""
    submit: Callable[[Unit, Any, Share], JobRecord]
    details: Callable[[Unit, JobRecord], dict[str, Any]]
    """What a job of this kind shows besides its record."""
    forget: Callable[[Unit, str], None]
    """Drop the rows the kind keeps about a job."""
    due: Callable[[Unit], list[tuple[str, str]]]
    """(workspace, name) of the jobs to be looked at now."""
    advance: Callable[[Yard, Share, str, str], Awaitable[None]]
    """Take the job (workspace, name) as far as it goes."""
    resume: Callable[[Unit, JobRecord, JobRecord], None] | None = None
    """Give a job, newly made, what an earlier one of the same spec has completed; None when the kind cannot."""


def job_kinds() -> dict[str, JobKind]:
    """Every kind that this process knows, by name."""
    return {kind.name: kind for kind in composed().extensions(JobKind)}

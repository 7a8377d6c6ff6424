"""Rows as the use cases make them, without what they would need to run."""

from __future__ import annotations

from modelyard.spec.states import JobState
from modelyard.storage.unit import Unit
from modelyard.work.jobs import store
from modelyard.work.jobs.model import JobRecord
from modelyard.work.tracking import service as tracking


def queued(unit: Unit) -> JobRecord:
    """A job as `submit` makes one, without what it would need to run."""
    tracking.create_job_run(unit, "j", "states", "j", {}, unit.actor.name)
    spec = {"type": "command", "name": "j", "command": "true", "environment": {"pip": []}}
    record = JobRecord(
        "j",
        unit.workspace,
        spec,
        JobState.QUEUED,
        0,
        None,
        unit.now,
        "admin",
        None,
        None,
        None,
        False,
        False,
        "states",
        "local",
        None,
        1,
        0,
        0,
        "",
    )
    store.insert(unit, record)
    return found(unit)


def found(unit: Unit) -> JobRecord:
    record = store.get(unit, "j")
    assert record is not None
    return record

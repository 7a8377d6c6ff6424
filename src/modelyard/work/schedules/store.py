from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sqlalchemy as sa

from ...core.clock import iso
from ...spec.fields import from_row
from ...spec.properties import ScheduleProperties
from ...spec.schedule import Schedule
from ...storage.records import columns_of, fields_of
from ...storage.tables import Json, metadata
from ...storage.unit import Unit

schedules = sa.Table(
    "schedules",
    metadata,
    sa.Column("workspace", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("spec", Json, nullable=False),
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("next_ms", sa.BigInteger),
    sa.Column("last_ms", sa.BigInteger),
    sa.Column("last_job", sa.Text),
    sa.Column("mark", sa.Text, nullable=False),
    sa.Column("error", sa.Text),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("last_modified_by", sa.Text, nullable=False),
    sa.Column("planned_ms", sa.BigInteger),
    sa.Index("ix_schedules_next", "next_ms"),
)
schedule_firings = sa.Table(
    "schedule_firings",
    metadata,
    sa.Column("workspace", sa.Text, primary_key=True),
    sa.Column("schedule", sa.Text, primary_key=True),
    sa.Column("due_ms", sa.BigInteger, primary_key=True),
)
"""The due times that have fired: none fires twice, whatever the clock is set to."""
_T = schedules.c
_F = schedule_firings.c
KEPT_MS = 31 * 24 * 3600 * 1000
"""How long a due time is known to have fired; a clock that is set back further fires it again."""


@dataclass(frozen=True)
class ScheduleRecord:
    """`mark` is the last state that a change trigger compared, `planned_ms` when `next_ms` was found."""

    workspace: str
    name: str
    stored: dict[str, Any]
    enabled: bool
    next_ms: int | None
    last_ms: int | None
    last_job: str | None
    mark: str
    error: str | None
    created_ms: int
    created_by: str
    last_modified_by: str
    planned_ms: int | None = None

    @cached_property
    def spec(self) -> Schedule:
        return from_row(Schedule, self.stored, name=self.name)

    def document(self) -> dict[str, Any]:
        answer = {
            **self.stored, "name": self.name, "is_enabled": self.enabled, "next_run": iso(self.next_ms), "last_run": iso(self.last_ms),
            "last_job": self.last_job, "id": f"azureml://schedules/{self.name}",
            "creation_context": {
                "created_at": iso(self.created_ms), "created_by": self.created_by, "last_modified_by": self.last_modified_by,
            },
        }  # fmt: skip
        if self.error:
            answer["properties"] = ScheduleProperties(last_error=self.error).over(self.stored.get("properties", {}))
        return {key: value for key, value in answer.items() if value is not None}


def _record(row: Any) -> ScheduleRecord:
    return ScheduleRecord(**fields_of(row))


def get(unit: Unit, name: str) -> ScheduleRecord | None:
    row = unit.row(sa.select(schedules).where(_T.workspace == unit.workspace, _T.name == name))
    return _record(row) if row else None


def list_all(unit: Unit) -> list[ScheduleRecord]:
    return [_record(row) for row in unit.rows(sa.select(schedules).where(_T.workspace == unit.workspace).order_by(_T.name))]


def put(unit: Unit, record: ScheduleRecord) -> None:
    unit.upsert(schedules, columns_of(record, schedules))


def set_fields(unit: Unit, name: str, **values: Any) -> None:
    unit.run(sa.update(schedules).where(_T.workspace == unit.workspace, _T.name == name).values(**values))


def move_on(unit: Unit, record: ScheduleRecord, **values: Any) -> bool:
    """Set the next due time or mark, unless another server did so since `record` was read."""
    same = sa.and_(_T.workspace == unit.workspace, _T.name == record.name, _T.mark == record.mark)
    same = sa.and_(same, _T.next_ms == record.next_ms if record.next_ms is not None else _T.next_ms.is_(None))
    return unit.run(sa.update(schedules).where(same).values(**values)) == 1


def note_firing(unit: Unit, name: str, due_ms: int) -> bool:
    """Whether this due time fires now for the first time."""
    here = sa.and_(_F.workspace == unit.workspace, _F.schedule == name)
    unit.run(sa.delete(schedule_firings).where(here, _F.due_ms < unit.now - KEPT_MS))
    return unit.insert(schedule_firings, {"workspace": unit.workspace, "schedule": name, "due_ms": due_ms}, keep_existing=True) == 1


def planned_ahead(unit: Unit, now: int, skew_ms: int) -> list[tuple[str, str]]:
    """(workspace, name) of the enabled schedules that fire at times and were planned when the clock showed a later time."""
    waits = sa.or_(_T.next_ms.is_(None), _T.next_ms > now)
    ahead = sa.or_(_T.planned_ms.is_(None), _T.planned_ms > now + skew_ms)
    rows = unit.rows(sa.select(_T.workspace, _T.name).where(_T.enabled, _T.mark == "", waits, ahead))
    return [(row.workspace, row.name) for row in rows]


def delete(unit: Unit, name: str) -> None:
    unit.run(sa.delete(schedule_firings).where(_F.workspace == unit.workspace, _F.schedule == name))
    unit.run(sa.delete(schedules).where(_T.workspace == unit.workspace, _T.name == name))


def due(unit: Unit, now: int) -> list[tuple[str, str]]:
    """(workspace, name) of the enabled schedules that are due."""
    rows = unit.rows(sa.select(_T.workspace, _T.name).where(_T.enabled, _T.next_ms <= now).order_by(_T.next_ms))
    return [(row.workspace, row.name) for row in rows]


def watching(unit: Unit) -> list[tuple[str, str]]:
    """(workspace, name) of the enabled schedules with a change trigger."""
    rows = unit.rows(sa.select(_T.workspace, _T.name).where(_T.enabled, _T.next_ms.is_(None), _T.mark != ""))
    return [(row.workspace, row.name) for row in rows]

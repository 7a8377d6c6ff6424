"""Schedules: when a job is made again (reference `azure-v2-fields`, section 7.12)."""

from __future__ import annotations

import datetime
import functools
import tomllib
import zoneinfo
from collections.abc import Iterator
from importlib import resources
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, model_validator
from typing_extensions import TypedDict

from .fields import Entity, ReadFile, Spec, read_only
from .inputs import Inputs, Outputs
from .local import Inside, LocalPart, Unread
from .step import PipelineJobSettings

WEEK_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) or value is None else [value]


def _moment(value: Any) -> Any:
    """YAML reads an ISO time as a datetime; kept as text, checked to be one."""
    if isinstance(value, (datetime.datetime, datetime.date)):
        return value.isoformat()
    if isinstance(value, str):
        datetime.datetime.fromisoformat(value.replace("Z", "+00:00"))
    return value


Moment = Annotated[str | None, BeforeValidator(_moment)]


class RecurrencePattern(Spec):
    hours: Annotated[list[Annotated[int, Field(ge=0, le=23)]], BeforeValidator(_listed)]
    minutes: Annotated[list[Annotated[int, Field(ge=0, le=59)]], BeforeValidator(_listed)]
    week_days: Annotated[
        list[Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]] | None, BeforeValidator(_listed)
    ] = None
    month_days: Annotated[list[Annotated[int, Field(ge=-1, le=31)]] | None, BeforeValidator(_listed)] = None


class _Timed(Spec):
    start_time: Moment = None
    end_time: Moment = None
    time_zone: str = "UTC"
    missed_runs: Literal["skip", "once", "all"] = "once"
    """The yard's own: what is done about due times that passed while no server ran."""

    @model_validator(mode="after")
    def _zone(self) -> _Timed:
        zone_of(self.time_zone)
        return self


class CronTrigger(_Timed):
    type: Literal["cron"] = "cron"
    expression: str

    @model_validator(mode="after")
    def _readable(self) -> CronTrigger:
        from cronsim import CronSim, CronSimError

        if len(self.expression.split()) != 5:
            raise ValueError(f"{self.expression!r} is not a cron expression: it has minute, hour, day, month and weekday")
        try:
            CronSim(self.expression, datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC))
        except CronSimError as error:
            raise ValueError(f"{self.expression!r} is not a cron expression: {error}") from None
        return self


MOST_INTERVALS = {"minute": 5_256_000, "hour": 87_600, "day": 3_650, "week": 520, "month": 120}


class RecurrenceTrigger(_Timed):
    type: Literal["recurrence"] = "recurrence"
    frequency: Literal["minute", "hour", "day", "week", "month"]
    interval: int = Field(ge=1)
    schedule: RecurrencePattern | None = None

    @model_validator(mode="after")
    def _within_reason(self) -> RecurrenceTrigger:
        most = MOST_INTERVALS[self.frequency]
        if self.interval > most:
            raise ValueError(f"interval: every {self.interval:,} {self.frequency}s; {most:,} at most, which are ten years")
        return self


class ChangeTrigger(Spec):
    """The yard's own: a new version of a data asset, new content at a datastore path, or a job of an experiment that completes."""

    type: Literal["change"] = "change"
    data: str | None = None
    path: str | None = None
    experiment: str | None = None

    @model_validator(mode="after")
    def _one(self) -> ChangeTrigger:
        if sum(value is not None for value in (self.data, self.path, self.experiment)) != 1:
            raise ValueError("a change trigger names one of data (an asset), path (azureml://datastores/…) or experiment")
        return self


Trigger = Annotated[CronTrigger | RecurrenceTrigger | ChangeTrigger, Field(discriminator="type")]


class CreateJob(Spec):
    """A job to make, whole under `job` or by name, with what differs."""

    job: str | dict[str, Any]
    type: str | None = None
    name: str | None = None
    display_name: str | None = None
    description: str | None = None
    experiment_name: str | None = None
    compute: str | None = None
    tags: dict[str, Any] | None = None
    properties: dict[str, Any] | None = None
    identity: dict[str, Any] | None = None
    inputs: Inputs | None = None
    outputs: Outputs | None = None
    settings: PipelineJobSettings | None = None
    environment: Any = None
    environment_variables: dict[str, Any] | None = None
    resources: dict[str, Any] | None = None
    limits: dict[str, Any] | None = None


def _create_job(value: Any) -> Any:
    """A bare reference, or a job written out in place."""
    if isinstance(value, str) or (isinstance(value, dict) and "job" not in value):
        return {"job": value}
    return value


class Schedule(Entity):
    display_name: str | None = None
    trigger: Trigger
    create_job: Annotated[CreateJob, BeforeValidator(_create_job)]

    _job: Any = PrivateAttr(default=None)
    """The job read from the file that `create_job` names: its parts know which files they stand in."""

    is_enabled: bool | None = read_only()
    next_run: str | None = read_only()
    last_run: str | None = read_only()
    last_job: str | None = read_only()

    def local_parts(self) -> Iterator[LocalPart]:
        at = ("create_job", "job")
        if self._job is not None:
            yield Inside(at, self._job)
        elif isinstance(self.create_job.job, dict):
            yield Unread(at, "job")

    def read_files(self, read: ReadFile) -> None:
        """`create_job: ./pipeline.yml`, or `job: ./pipeline.yml` in it: the job is read now, relative to the schedule's file."""
        if (job := read("job", self.create_job.job)) is not None:
            self._job, self.create_job.job = job, job.document()


def zone_of(name: str) -> zoneinfo.ZoneInfo:
    """An IANA zone, or one of Windows' names that Azure uses, in any case. Raises ValueError."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        known = _zones().get(name.lower())
    if known is None:
        raise ValueError(f"{name!r} is not a time zone; write one such as UTC or Europe/Berlin")
    return zoneinfo.ZoneInfo(known)


@functools.cache
def _zones() -> dict[str, str]:
    """Small letters → IANA zone."""
    windows = tomllib.loads(resources.files(__package__).joinpath("windows_zones.toml").read_text())
    zones = {name.lower(): zone for name, zone in windows.items()}
    return zones | {zone.lower(): zone for zone in zoneinfo.available_timezones()}


class FiredJob(TypedDict):
    """The job that a schedule made."""

    job_name: str

"""`yard schedule`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .options import client, file_option, generic_update, name_option, noun, overrides, set_option, uploading_client, verb, yes_option
from .output import say_notes

schedule = noun("schedule", "Schedules: jobs made at due times, or when something changed.")


@verb(schedule, "create", help="Create or replace a schedule.")
@file_option
@click.option("-n", "--name", help="Name, instead of the file's.")
@set_option
def create(file: str, name: str | None, assignments: Any) -> Any:
    from ..spec.loading import load

    with uploading_client() as made:
        spec: Any = load("schedule", Path(file), overrides(assignments, name=name))
        found = made.schedules.begin_create_or_update(spec).result()
    say_notes(found)
    return found


@verb(schedule, "show", help="Show a schedule with its next due time and its last job.")
@name_option
def show(name: str) -> Any:
    return client().schedules.get(name)


@verb(schedule, "list", columns=("name", "is_enabled", "next_run", "last_run", "last_job"), help="List the enabled schedules.")
@click.option("--disabled-only", is_flag=True)
@click.option("--include-disabled", is_flag=True)
@click.option("-r", "--max-results", type=int)
def list_(disabled_only: bool, include_disabled: bool, max_results: int | None) -> Any:
    enabled = False if disabled_only else None if include_disabled else True
    return list(client().schedules.list(enabled=enabled))[:max_results]


@verb(schedule, "update", help="Change a schedule.")
@name_option
@generic_update
def update(name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    from ..spec.fields import parse
    from ..spec.schedule import Schedule

    made = client()
    document = made.schedules.get(name).document()
    found = made.schedules.begin_create_or_update(parse(Schedule, {**document, **change(document)}, what="schedule")).result()
    say_notes(found)
    return found


@verb(schedule, "delete", help="Delete a schedule; the jobs it made stay.")
@name_option
@yes_option
def delete(name: str) -> None:
    client().schedules.begin_delete(name)


@verb(schedule, "enable", help="Go on with the next due time.")
@name_option
def enable(name: str) -> Any:
    return client().schedules.begin_enable(name).result()


@verb(schedule, "disable", help="Make no more jobs for now.")
@name_option
def disable(name: str) -> Any:
    return client().schedules.begin_disable(name).result()


@verb(schedule, "trigger", help="Make the job now.")
@name_option
def trigger(name: str) -> Any:
    return client().schedules.trigger(name)

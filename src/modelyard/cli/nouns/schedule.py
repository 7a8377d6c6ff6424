from __future__ import annotations

from typing import Any

import click

from ...spec.nouns import NOUNS
from ..options import client, name_option, verb
from ..standard import max_results, standard

NOUN = NOUNS["schedule"]
group = standard(
    NOUN,
    help={
        "create": "Create or replace a schedule.",
        "show": "Show a schedule with its next due time and its last job.",
        "delete": "Delete a schedule; the jobs it made stay.",
    },
    without=("list",),
)


@verb(group, "list", columns=NOUN.columns, help="List the enabled schedules.")
@click.option("--disabled-only", is_flag=True)
@click.option("--include-disabled", is_flag=True)
@max_results
def list_(disabled_only: bool, include_disabled: bool, max_results: int | None) -> Any:
    enabled = False if disabled_only else None if include_disabled else True
    return list(client().schedules.list(enabled=enabled))[:max_results]


@verb(group, "enable", help="Go on with the next due time.")
@name_option
def enable(name: str) -> Any:
    return client().schedules.begin_enable(name).result()


@verb(group, "disable", help="Make no more jobs for now.")
@name_option
def disable(name: str) -> Any:
    return client().schedules.begin_disable(name).result()


@verb(group, "trigger", help="Make the job now.")
@name_option
def trigger(name: str) -> Any:
    return client().schedules.trigger(name)

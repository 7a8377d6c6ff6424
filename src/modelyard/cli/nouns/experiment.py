from __future__ import annotations

from typing import Any

import click

from ...spec.nouns import NOUNS
from ..options import client, name_option, noun_group, verb, yes_option

NOUN = NOUNS["experiment"]
group = noun_group(NOUN)


@verb(group, "list", columns=NOUN.columns, help="List experiments, newest first.")
@click.option("--deleted-only", is_flag=True)
def list_(deleted_only: bool) -> Any:
    return list(client().experiments.list(view="DELETED_ONLY" if deleted_only else "ACTIVE_ONLY"))


@verb(group, "delete", help="Delete an experiment and its runs; its name is free at once.")
@name_option
@yes_option
def delete(name: str) -> None:
    client().experiments.delete(name)


@verb(group, "restore", help="Bring a deleted experiment back, by its id.")
@click.option("--id", "id", required=True, help="Id, from `yard experiment list --deleted-only`.")
def restore(id: str) -> None:
    client().experiments.restore(id)

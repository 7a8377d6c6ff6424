from __future__ import annotations

from typing import Any

import click

from ...spec.nouns import NOUNS
from ..options import client, noun_group, verb
from ..output import say

group = noun_group(NOUNS["lineage"])


@verb(group, "show", help="Show what a model, job or data version was made of, and what was made of it.")
@click.option("-n", "--name", required=True, help="Name; with :VERSION for models and data, else the newest.")
@click.option("--kind", type=click.Choice(["model", "job", "data", "environment", "deployment"]), default="model", show_default=True)
@click.option("--depth", type=int, default=10, show_default=True, help="Steps in each direction.")
@click.option("--openlineage", is_flag=True, help="Print OpenLineage events instead.")
def show(name: str, kind: str, depth: int, openlineage: bool) -> Any:
    ml_client = client()
    if openlineage:
        return ml_client.lineage.openlineage(kind, name, depth=depth)
    lineage = ml_client.lineage.show(kind, name, depth=depth)
    say(f"{lineage['thing']['kind']} {lineage['thing']['name']}")
    return [{"direction": way, **step} for way in ("upstream", "downstream") for step in lineage[way]]

from __future__ import annotations

from typing import Any

import click

from ...spec.nouns import NOUNS
from ..options import client, noun_group, verb

NOUN = NOUNS["token"]
group = noun_group(NOUN)


@verb(group, "create", help="Make a token; it is shown this one time.")
@click.option("-n", "--name", help="For this user instead of yourself.")
@click.option("--scope", help="Only for this workspace.")
@click.option("--hours", type=float, help="How long it works; 12, or as long as your own.")
@click.option("--description", default="")
def create(name: str | None, scope: str | None, hours: float | None, description: str) -> Any:
    return client().tokens.create(user=name, workspace=scope, hours=hours, description=description)


@verb(group, "list", columns=NOUN.columns, help="List your tokens.")
def list_() -> Any:
    return client().tokens.list()


@verb(group, "revoke", help="End a token; it stops working within a second.")
@click.option("--id", "id_", required=True)
def revoke(id_: str) -> None:
    client().tokens.revoke(id_)

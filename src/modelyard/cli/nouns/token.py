from __future__ import annotations

from typing import Any

import click

from ...spec.nouns import NOUNS
from ..options import client_of_yard, noun_group, verb

NOUN = NOUNS["token"]
group = noun_group(NOUN)


@verb(group, "create", help="Make a token; it is shown this one time.")
@click.option("-n", "--name", help="For this user instead of yourself.")
@click.option("--scope", help="Only for this workspace.")
@click.option("--hours", type=float, help="How long it works; 12, or as long as your own.")
@click.option("--description", default="")
def create(name: str | None, scope: str | None, hours: float | None, description: str) -> Any:
    return client_of_yard().tokens.create(user=name, workspace=scope, hours=hours, description=description)


@verb(group, "list", columns=NOUN.columns, help="List your tokens, or those of a user.")
@click.option("-n", "--name", help="Of this user instead of yourself.")
def list_(name: str | None) -> Any:
    return client_of_yard().tokens.list(user=name)


@verb(group, "revoke", help="End a token, or all of a user; they stop working within a second.")
@click.option("--id", "id_", help="This one.")
@click.option("-n", "--name", help="All tokens of this user, with those of the user's running jobs.")
def revoke(id_: str | None, name: str | None) -> Any:
    if (id_ is None) == (name is None):
        raise click.UsageError("say which token ends by --id, or whose tokens all end by --name")
    if name is not None:
        return {"revoked": client_of_yard().tokens.revoke_all(name)}
    client_of_yard().tokens.revoke(str(id_))
    return None

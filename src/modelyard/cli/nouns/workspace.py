from __future__ import annotations

from typing import Any

import click

from ...spec.nouns import NOUNS
from ..options import client, verb
from ..standard import standard

texts = (click.option("--display-name"), click.option("--description"))
az_flags = (
    click.option("--all-resources", is_flag=True, hidden=True),
    click.option("-p", "--permanently-delete", is_flag=True, hidden=True),
)
group = standard(
    NOUNS["workspace"],
    options={"create": (*texts, click.option("-l", "--location")), "update": texts, "delete": az_flags},
    help={"list": "List the workspaces you can see.", "delete": "Delete an empty workspace."},
)


@verb(group, "show", help="Show a workspace.")
@click.option("-n", "--name")
def show(name: str | None) -> Any:
    """The client's own when none is named."""
    return client().workspaces.get(name)

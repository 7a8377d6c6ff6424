from __future__ import annotations

import click

from ...spec.nouns import NOUNS
from ..standard import standard

group = standard(
    NOUNS["registry"],
    options={"create": (click.option("--description"), click.option("-l", "--location"))},
    help={"list": "List the registries you can see.", "delete": "Delete an empty registry."},
    without=("update",),
)

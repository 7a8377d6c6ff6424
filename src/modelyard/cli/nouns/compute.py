from __future__ import annotations

import click

from ...spec.nouns import NOUNS
from ..standard import standard

scale = (
    click.option("--min-instances", type=int),
    click.option("--max-instances", type=int),
    click.option("--idle-time-before-scale-down", type=int),
)
group = standard(
    NOUNS["compute"],
    options={
        "create": (
            click.option("-t", "--type", "type_"), click.option("-s", "--size"), *scale, click.option("--tier"), click.option("--description"),
            click.option("-l", "--location"),
        ),
        "list": (click.option("-t", "--type", "compute_type"),),
        "update": scale,
    },
)  # fmt: skip

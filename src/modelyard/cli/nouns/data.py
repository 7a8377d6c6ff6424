from __future__ import annotations

import click

from ...spec.nouns import NOUNS
from ..standard import standard

group = standard(
    NOUNS["data"],
    options={
        "create": (
            click.option("--path", help="Local path or address."),
            click.option("--type", "type_", help="uri_file, uri_folder or mltable."),
            click.option("--description"),
            click.option("--datastore"),
        )
    },
    help={"create": "Create a data asset from YAML or flags."},
)

"""`yard schema`."""

from __future__ import annotations

import json

import click

from ..spec.nouns import written


@click.command("schema", help="Print the JSON Schema of a noun's YAML, for editors.")
@click.argument("noun", type=click.Choice([noun.command for noun in written()]))
def schema(noun: str) -> None:
    from ..spec.loading import json_schema

    click.echo(json.dumps(json_schema(noun.replace("-", "_")), indent=2, ensure_ascii=False))

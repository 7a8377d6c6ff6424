from __future__ import annotations

from typing import Any

import click

from ...spec.nouns import NOUNS
from ..options import client, name_option, verb
from ..output import say, waiting
from ..standard import standard, version_option


def _tags(context: click.Context, option: click.Parameter, text: str | None) -> dict[str, str] | None:
    """`"team=blue stage=test"` → {team: blue, stage: test}"""
    return dict(part.split("=", 1) for part in text.split() if "=" in part) if text else None


group = standard(
    NOUNS["environment"],
    options={
        "create": (
            click.option("-i", "--image"),
            click.option("-c", "--conda-file"),
            click.option("-b", "--build-context", "build__path"),
            click.option("-d", "--dockerfile-path", "build__dockerfile_path"),
            click.option("--os-type"),
            click.option("--description"),
            click.option("--datastore"),
            click.option("--tags", callback=_tags),
        )
    },
    help={"create": "Create an environment from YAML or flags."},
)


@verb(group, "build", help="Build an environment now, instead of with the first job.")
@name_option
@version_option
def build(name: str, version: str | None) -> Any:
    ml_client = client()
    if ":" in name and version is None:
        name, _, version = name.partition(":")
    with waiting(f"building environment {name}"):
        key = ml_client.environments.build(name, version, say)
    return {"name": name, "version": version or "latest", "key": key}

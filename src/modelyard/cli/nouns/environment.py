from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from ...core.errors import Invalid
from ...core.terminal import harmless
from ...spec.nouns import NOUNS
from ..options import client, name_option, printed_form, queried, verb
from ..output import say
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
    from ..progress import waiting

    ml_client = client()
    if ":" in name and version is None:
        name, _, version = name.partition(":")
    with waiting(f"building environment {name}") as line:

        def log(text: str) -> None:
            line.clear()
            say(text)
            line.show(f"building environment {name}")

        try:
            key = ml_client.environments.build(name, version, log)
        except Invalid as error:
            if error.code != "build_failed":
                raise
            line.clear()
            say(f"error: {error}")
            return 1
    return {"name": name, "version": version or "latest", "key": key}


@verb(group, "lock", help="Resolve an environment without building it, and print its packages, each at its version.")
@click.option(
    "-f",
    "--file",
    required=True,
    type=click.Path(dir_okay=False),
    help="An environment's YAML file, a conda file, or a requirements file (.txt).",
)
def lock(file: str) -> Any:
    """Without `-o`, a requirements file; what there is to know about it stands on top as comments."""
    from ...sdk.environment_files import read_definition
    from ..progress import waiting

    silent = printed_form() == "none"
    with nullcontext() if silent else waiting(f"resolving {file}"):
        found = client().environments.lock(read_definition(Path(file)), lambda line: None)
    if printed_form() is not None or queried():
        return found
    comments = [f"Python {found['python']}, {len(found['packages'])} packages", *found["notes"]]
    for line in (*(f"# {comment}" for comment in comments), *found["packages"]):
        click.echo(harmless(line))
    return None

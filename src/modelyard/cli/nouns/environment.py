from __future__ import annotations

from typing import Any

import click

from ...spec.nouns import NOUNS
from ..options import client, name_option, overrides, set_option, uploading_client, verb
from ..output import say, waiting
from ..standard import optional_file, put, read, standard, version_option

NOUN = NOUNS["environment"]
group = standard(NOUN, without=("create",))


@verb(group, "create", help="Create an environment from YAML or flags.")
@optional_file
@click.option("-n", "--name", help="Name.")
@version_option
@click.option("-i", "--image")
@click.option("-c", "--conda-file")
@click.option("-b", "--build-context")
@click.option("-d", "--dockerfile-path")
@click.option("--os-type")
@click.option("--description")
@click.option("--datastore")
@click.option("--tags", cls=None)
@set_option
def create(
    file: str | None, build_context: str | None, dockerfile_path: str | None, tags: str | None, assignments: Any, **fields: str | None
) -> Any:
    """Of its flags, three make up a field together or need to be read."""
    given = overrides(assignments, **fields)
    if build_context:
        given["build"] = {"path": build_context, **({"dockerfile_path": dockerfile_path} if dockerfile_path else {})}
    if tags:
        given["tags"] = dict(part.split("=", 1) for part in tags.split() if "=" in part)
    with uploading_client() as made:
        return put(made, NOUN, read(NOUN, file, given))


@verb(group, "build", help="Build an environment now, instead of with the first job.")
@name_option
@version_option
def build(name: str, version: str | None) -> Any:
    made = client()
    if ":" in name and version is None:
        name, _, version = name.partition(":")
    with waiting(f"building environment {name}"):
        key = made.environments.build(name, version, say)
    return {"name": name, "version": version or "latest", "key": key}

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ...spec.nouns import NOUNS
from ..options import client_of_yard, name_option, noun_group, verb

NOUN = NOUNS["user"]
group = noun_group(NOUN)


@verb(group, "create", help="Create a user or service.")
@name_option
@click.option("--kind", type=click.Choice(["user", "service"]), default="user")
def create(name: str, kind: str) -> Any:
    return client_of_yard().users.create(name, kind=kind)


@verb(group, "list", columns=NOUN.columns, help="List users with their roles.")
def list_() -> Any:
    return client_of_yard().users.list()


@verb(group, "delete", help="Delete a user with its tokens and roles.")
@name_option
def delete(name: str) -> None:
    client_of_yard().users.delete(name)


@verb(group, "assign-role", help="Give a role, in one workspace or (without --scope) in all.")
@name_option
@click.option("--role", required=True)
@click.option("--scope", default="*", help="Workspace.")
def assign(name: str, role: str, scope: str) -> Any:
    return client_of_yard().users.assign_role(name, role, scope=scope)


@verb(group, "remove-role", help="Take a role away.")
@name_option
@click.option("--role", required=True)
@click.option("--scope", default="*", help="Workspace.")
def remove(name: str, role: str, scope: str) -> None:
    client_of_yard().users.remove_role(name, role, scope=scope)


@verb(group, "list-roles", columns=("name", "description"), help="List the roles there are.")
def list_roles() -> Any:
    return client_of_yard().roles.list()


@verb(group, "define-role", help="Load a custom role from Azure's role JSON.")
@click.option("-f", "--file", "file", required=True, type=click.Path(exists=True, dir_okay=False))
def define_role(file: str) -> Any:
    return client_of_yard().roles.define(json.loads(Path(file).read_text()))

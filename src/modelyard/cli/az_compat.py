"""az commands that scripts call around `az ml`: accepted, with one line on stderr where nothing is done."""

from __future__ import annotations

from typing import Any

import click

from .options import Multi, verb
from .options import group as command_group
from .output import say

account = command_group("account", "Accepted for scripts written for az.")
group = command_group("group", "Accepted for scripts written for az.")
extension = command_group("extension", "Accepted for scripts written for az.")


@verb(account, "show", help="The account as az shows it.")
def account_show() -> Any:
    from ..sdk.connection import connect

    connection = connect()
    return {
        "id": "00000000-0000-0000-0000-000000000000",
        "name": "modelyard",
        "tenantId": "00000000-0000-0000-0000-000000000000",
        "environmentName": connection.url,
    }


@verb(account, "set", help="Does nothing: a yard has no subscriptions.")
@click.option("-s", "-n", "--name", "name")
def account_set(name: str | None) -> None:
    say("account set: a yard has no subscriptions; nothing to do")


@verb(group, "create", help="Does nothing: a yard has no resource groups.")
@click.option("-n", "--name")
@click.option("-l", "--location")
@click.option("--tags")
def group_create(name: str | None, **_: Any) -> Any:
    say("group create: a yard has no resource groups; nothing to do")
    return {"name": name, "properties": {"provisioningState": "Succeeded"}}


@verb(group, "delete", help="Does nothing: a yard has no resource groups.")
@click.option("-n", "--name")
@click.option("-y", "--yes", is_flag=True)
def group_delete(**_: Any) -> None:
    say("group delete: a yard has no resource groups; nothing to do")


for word in ("add", "update", "remove"):

    def _extension(name: str | None, yes: bool, word: str = word) -> None:
        say(f"extension {word}: modelyard needs no extensions; nothing to do")

    verb(extension, word, help="Does nothing.")(click.option("-n", "--name")(click.option("-y", "--yes", is_flag=True)(_extension)))


@click.command("configure", help="Set defaults: -d workspace=NAME; group and location are accepted and not used.")
@click.option("-d", "--defaults", cls=Multi, metavar="NAME=VALUE")
@click.option("-l", "--list-defaults", is_flag=True)
def configure(defaults: tuple[str, ...], list_defaults: bool) -> None:
    from ..sdk.connection import read_profile, write_profile

    for text in defaults:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.UsageError(f"{text!r} is not NAME=VALUE")
        if name == "workspace":
            write_profile({"workspace": value or None})
        elif name not in ("group", "location", "subscription"):
            raise click.UsageError(f"{name!r} is not a default; workspace, group and location are")
    if list_defaults:
        click.echo(f"workspace={read_profile().get('workspace', 'default')}")

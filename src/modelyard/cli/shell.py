"""Commands that set up a shell: environment variables, a stored sign-in, completion."""

from __future__ import annotations

import shlex
import sys
from typing import Any

import click

from .options import Verb
from .output import say


@click.command("env", cls=Verb, help='Print exports for a shell: eval "$(yard env)".')
@click.option("--hours", type=float, help="How long the printed token works; 12, or as long as your own.")
@click.option("-w", "--workspace-name", "workspace", help="Make the token for this workspace only.")
def env(hours: float | None, workspace: str | None) -> Any:
    from ..sdk.client import MLClient

    client = MLClient(workspace_name=workspace)
    connection = client.connection
    token = client.tokens.create(workspace=workspace, hours=hours, description="made by `yard env`")["token"]
    tracking = connection.url if connection.workspace == "default" else f"{connection.url}/ws/{connection.workspace}"
    values = {
        "YARD_URL": connection.url,
        "YARD_TOKEN": token,
        "YARD_WORKSPACE": connection.workspace,
        "MLFLOW_TRACKING_URI": tracking,
        "MLFLOW_TRACKING_TOKEN": token,
    }
    form = click.get_current_context().meta.get("modelyard.form")
    if form in (None, "none"):
        for name, value in values.items():
            click.echo(f"export {name}={shlex.quote(str(value))}")
        return 0
    return values


@click.command("login", help="Remember a yard's address and your token. Without options: those of the yard of this machine.")
@click.option("--url")
@click.option("--token", help="Better left out: it is asked for, or read from standard input.")
@click.option("--workspace", help="Workspace to use when none is named.")
@click.option("--service-principal", is_flag=True, hidden=True)
@click.option("-u", "--username", hidden=True)
@click.option("-p", "--password", hidden=True)
@click.option("-t", "--tenant", hidden=True)
@click.option("--identity", is_flag=True, hidden=True)
def login(url: str | None, token: str | None, workspace: str | None, **az: Any) -> int:
    from ..sdk.client import MLClient
    from ..sdk.connection import profile_path, write_profile

    if any(az.values()):
        say("login: the cloud's accounts are not used; the yard's own token is")
        return 0
    if url is not None and token is None:
        token = click.prompt("Token", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline().strip()
    client = MLClient(url=url, token=token, workspace_name=workspace, as_documents=True)
    list(client.workspaces.list())
    connection = client.connection
    write_profile({"url": connection.url, "token": connection.token, "workspace": connection.workspace})
    say(f"signed in to {connection.url}; kept in {profile_path()}")
    return 0


@click.command("completion", help='Print the completion script: eval "$(yard completion bash)".')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    from click.shell_completion import get_completion_class

    from .main import yard

    completion_class = get_completion_class(shell)
    assert completion_class is not None
    click.echo(completion_class(yard, {}, "yard", "_YARD_COMPLETE").source())
    return 0

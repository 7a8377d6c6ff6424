from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ...sdk.documents import as_entity
from ...spec.nouns import NOUNS
from .. import output
from ..options import (
    client,
    file_option,
    generic_update,
    name_option,
    no_wait,
    overrides,
    set_option,
    uploading_client,
    verb,
    yes_option,
)
from ..output import say, say_log
from ..standard import endpoint_option, optional_file, standard
from .online_endpoint import local_option, web_option

NOUN = NOUNS["online_deployment"]
group = standard(NOUN, options={"show": (local_option, web_option), "list": (local_option,)}, without=("create", "update", "delete"))


@verb(group, "create", help="Deploy a model to an endpoint.")
@file_option
@click.option("-n", "--name")
@click.option("-e", "--endpoint-name")
@click.option("--all-traffic", is_flag=True, help="Send it all traffic once it is ready.")
@local_option
@click.option("--skip-script-validation", is_flag=True, hidden=True)
@click.option("--package-model", is_flag=True, hidden=True)
@click.option("--vscode-debug", is_flag=True, hidden=True)
@click.option("--local-enable-gpu", is_flag=True, hidden=True)
@web_option
@set_option
def create(file: str, name: str | None, endpoint_name: str | None, all_traffic: bool, assignments: Any, **_: Any) -> Any:
    from ...spec.loading import load

    return _deploy(load("online_deployment", Path(file), overrides(assignments, name=name, endpoint_name=endpoint_name)), all_traffic)


@verb(group, "test", help="Try a deployment on sample requests, at an endpoint of its own that goes away again.")
@file_option
@click.option(
    "-r", "--request-file", "requests", multiple=True, required=True, type=click.Path(exists=True, dir_okay=False), help="A request body."
)
@local_option
@set_option
def try_out(file: str, requests: tuple[str, ...], assignments: Any) -> int:
    """Exits with 1 when an answer is an error."""
    from ...spec.loading import load

    with uploading_client() as ml_client:
        spec: Any = load("online_deployment", Path(file), overrides(assignments, endpoint_name="test"))
        from ..progress import waiting

        with waiting(f"trying {spec.name}"):
            answers = ml_client.online_deployments.try_out(spec, requests)
    output.show(list(answers), None, None, ("request", "status", "ms", "answer"))
    return int(max((answer["status"] for answer in answers), default=0) >= 400)


def _deploy(spec: Any, all_traffic: bool = False) -> Any:
    with uploading_client() as ml_client:
        poller = ml_client.online_deployments.begin_create_or_update(spec)
    if no_wait() and not all_traffic:
        return ml_client.online_deployments.get(spec.name, spec.endpoint_name)
    from ..deploy import wait_for

    deployed = wait_for(ml_client, poller, spec.name, spec.endpoint_name)
    if deployed is None:
        return 1
    for warning in deployed.warnings or ():
        say(f"note: {warning}")
    if all_traffic:
        target = as_entity(ml_client.online_endpoints.get(spec.endpoint_name))
        target.traffic = {spec.name: 100}
        ml_client.online_endpoints.begin_create_or_update(target).result()
    return deployed


@verb(group, "update", help="Change a deployment; the old one serves until the new one is ready.")
@click.option("-n", "--name")
@click.option("-e", "--endpoint-name")
@optional_file
@local_option
@click.option("--skip-script-validation", is_flag=True, hidden=True)
@click.option("--vscode-debug", is_flag=True, hidden=True)
@click.option("--local-enable-gpu", is_flag=True, hidden=True)
@web_option
@generic_update
def update(
    name: str | None, endpoint_name: str | None, file: str | None, change: Callable[[dict[str, Any]], dict[str, Any]], **_: Any
) -> Any:
    from ...spec.fields import parse
    from ...spec.loading import load
    from ...spec.online import OnlineDeployment

    if file is not None:
        names = {key: value for key, value in (("name", name), ("endpoint_name", endpoint_name)) if value}
        base: Any = load("online_deployment", Path(file), names)
        document = base.document()
        spec = parse(OnlineDeployment, {**document, **change(document)}).settled(base.base_path)
        return _deploy(spec)
    if not name or not endpoint_name:
        raise click.UsageError("give --file, or --name and --endpoint-name")
    document = as_entity(client().online_deployments.get(name, endpoint_name)).document()
    return _deploy(parse(OnlineDeployment, {**document, **change(document)}))


@verb(group, "delete", help="Delete a deployment that takes no traffic.")
@name_option
@endpoint_option
@local_option
@yes_option
def delete(name: str, endpoint_name: str) -> None:
    poller = client().online_deployments.begin_delete(name, endpoint_name)
    if not no_wait():
        poller.result()


@verb(group, "get-logs", help="Print the log of the model server, or of its environment's build.")
@name_option
@endpoint_option
@click.option("-l", "--lines", type=int, default=5000, show_default=True)
@click.option("-c", "--container", type=click.Choice(["inference-server", "storage-initializer"]), default="inference-server")
@local_option
def get_logs(name: str, endpoint_name: str, lines: int, container: str) -> int:
    say_log(client().online_deployments.get_logs(name, endpoint_name, lines=lines, container_type=container))
    return 0

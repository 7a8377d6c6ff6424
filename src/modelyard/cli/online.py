"""`yard online-endpoint` and `yard online-deployment`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..spec.states import RolloutState
from .options import (
    client,
    file_option,
    generic_update,
    name_option,
    no_wait,
    noun,
    overrides,
    set_option,
    uploading_client,
    verb,
    yes_option,
)
from .output import say, say_notes, waiting

endpoint = noun("online-endpoint", "Online endpoints: addresses that models answer at.")
deployment = noun("online-deployment", "Online deployments: models behind an endpoint.")

endpoint_option = click.option("-e", "--endpoint-name", required=True, help="Name of the endpoint.")


def _local(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        from .local import enter

        enter()


local_option = click.option(
    "--local", is_flag=True, expose_value=False, is_eager=True, callback=_local, help="In a yard of its own, beside this machine's."
)


def _shares(text: str, what: str) -> dict[str, int]:
    """`"blue=90 green=10"` → {blue: 90, green: 10}"""
    found: dict[str, int] = {}
    for part in text.replace(",", " ").split():
        name, equals, share = part.partition("=")
        if not equals or not share.strip().lstrip("-").isdigit():
            raise click.UsageError(f"{what} takes NAME=PERCENT, not {part!r}")
        found[name] = int(share)
    return found


@verb(endpoint, "create", help="Create an endpoint.")
@click.option("-f", "--file", "file", type=click.Path(dir_okay=False))
@click.option("-n", "--name")
@click.option("--auth-mode")
@local_option
@click.option("--web", is_flag=True, hidden=True)
@set_option
def create(file: str | None, name: str | None, auth_mode: str | None, web: bool, assignments: Any) -> Any:
    from ..spec.fields import parse
    from ..spec.loading import load
    from ..spec.online import OnlineEndpoint

    given = overrides(assignments, name=name, auth_mode=auth_mode)
    if file is None and not name:
        raise click.UsageError("give --file or --name")
    spec: Any = load("online_endpoint", Path(file), given) if file else parse(OnlineEndpoint, given, what="online endpoint")
    made = client().online_endpoints.begin_create_or_update(spec).result()
    say_notes(made)
    return made


@verb(endpoint, "show", help="Show an endpoint.")
@name_option
@local_option
@click.option("--web", is_flag=True, hidden=True)
def show(name: str, web: bool) -> Any:
    return client().online_endpoints.get(name)


@verb(endpoint, "list", columns=("name", "auth_mode", "scoring_uri", "provisioning_state"), help="List endpoints.")
@local_option
def list_() -> Any:
    return list(client().online_endpoints.list())


@verb(endpoint, "update", help="Change an endpoint, its traffic above all.")
@click.option("-n", "--name")
@click.option("-f", "--file", "file", type=click.Path(dir_okay=False))
@click.option("-r", "--traffic", help='Shares in percent: "blue=90 green=10".')
@click.option("-m", "--mirror-traffic", help='Copy a share to a deployment: "green=10".')
@local_option
@click.option("--web", is_flag=True, hidden=True)
@generic_update
def update(
    name: str | None,
    file: str | None,
    traffic: str | None,
    mirror_traffic: str | None,
    web: bool,
    change: Callable[[dict[str, Any]], dict[str, Any]],
) -> Any:
    from ..spec.fields import parse
    from ..spec.loading import load
    from ..spec.online import OnlineEndpoint

    made = client()
    if file is not None:
        base: Any = load("online_endpoint", Path(file), {"name": name} if name else {})
        document = base.document()
    elif name is not None:
        document = made.online_endpoints.get(name).document()
    else:
        raise click.UsageError("give --name or --file")
    document = {**document, **change(document)}
    if traffic is not None:
        document["traffic"] = {**{other: 0 for other in document.get("traffic", {})}, **_shares(traffic, "--traffic")}
    if mirror_traffic is not None:
        document["mirror_traffic"] = _shares(mirror_traffic, "--mirror-traffic")
    found = made.online_endpoints.begin_create_or_update(parse(OnlineEndpoint, document, what="online endpoint")).result()
    say_notes(found)
    return found


def _bound(metric: str | None, run: str | None) -> dict[str, Any] | None:
    if metric is None and run is None:
        return None
    parts = re.fullmatch(r"(.+?)\s*(>=|<=)\s*(.+)", metric or "")
    if parts is None or run is None:
        raise click.UsageError("give both --metric, such as conversion>=0.02, and --metric-run")
    name, sign, value = parts.groups()
    return {"run_id": run, "name": name, "at_least" if sign == ">=" else "at_most": value}


@verb(endpoint, "rollout", help="Move the traffic to a deployment step by step, as long as it answers well.")
@name_option
@click.option("--to", help="The deployment that is to have all traffic.")
@click.option("--steps", default="10,50,100", show_default=True, help="Percent after each step.")
@click.option("--bake-time", type=float, default=60, show_default=True, help="Seconds that each step is watched.")
@click.option("--min-requests", type=int, default=20, show_default=True, help="Requests that each step needs.")
@click.option("--max-error-rate", type=float, default=0.01, show_default=True, help="Share of requests that may fail.")
@click.option("--max-p99", type=float, help="Milliseconds that 99 percent of the requests may take.")
@click.option("--metric", help="A metric that has to be logged in each step and stay there: conversion>=0.02, loss<=1.")
@click.option("--metric-run", help="Id of the run that the metric is logged to.")
@click.option("--abort", is_flag=True, help="Stop the rollout and give the traffic back.")
@click.option("--no-wait", "at_once", is_flag=True, help="Do not wait for its end.")
def rollout(
    name: str, to: str | None, steps: str, bake_time: float, min_requests: int, max_error_rate: float, max_p99: float | None,
    metric: str | None, metric_run: str | None, abort: bool, at_once: bool,
) -> Any:  # fmt: skip
    from ..spec.fields import parse
    from ..spec.online import Rollout

    if abort:
        return client().online_endpoints.abort_rollout(name)
    if to is None:
        raise click.UsageError("give --to DEPLOYMENT, or --abort")
    if not all(part.strip().isdigit() for part in steps.split(",")):
        raise click.UsageError(f"--steps takes percents such as 10,50,100, not {steps!r}")
    given = {
        "to": to, "steps": [int(part) for part in steps.split(",")], "bake_time_s": bake_time, "min_requests": min_requests,
        "max_error_rate": max_error_rate, "max_p99_ms": max_p99, "metric": _bound(metric, metric_run),
    }  # fmt: skip
    poller = client().online_endpoints.begin_rollout(name, parse(Rollout, given, what="rollout"))
    if at_once:
        return client().online_endpoints.get(name).rollout
    with waiting(f"rolling out {to}"):
        ended = poller.result().rollout or {}
    say(f"rollout of {to}: {ended['status']}: {ended['reason']}")
    return 0 if ended["status"] == RolloutState.COMPLETED else 1


@verb(endpoint, "delete", help="Delete an endpoint with its deployments.")
@name_option
@local_option
@yes_option
def delete(name: str) -> None:
    client().online_endpoints.begin_delete(name).result()
    if not list(client().online_endpoints.list()):
        from .local import leave

        leave()


@verb(endpoint, "get-credentials", help="Show the keys.")
@name_option
def get_credentials(name: str) -> Any:
    from ..spec.online import EndpointToken

    keys = client().online_endpoints.get_keys(name)
    if isinstance(keys, EndpointToken):
        return {"accessToken": keys.access_token, "expiryTimeUtc": keys.expiry_time_utc, "refreshAfterTimeUtc": keys.refresh_after_time_utc}
    return {"primaryKey": keys.primary_key, "secondaryKey": keys.secondary_key}


@verb(endpoint, "regenerate-keys", help="Replace one key; the other goes on working.")
@name_option
@click.option("--key-type", type=click.Choice(["primary", "secondary"]), default="primary", show_default=True)
def regenerate_keys(name: str, key_type: str) -> None:
    client().online_endpoints.begin_regenerate_keys(name, key_type=key_type).result()


@verb(
    endpoint, "requests", columns=("time", "deployment", "status", "ms", "prediction_id"),
    help="Show what an endpoint answered, the newest first.",
)  # fmt: skip
@name_option
@click.option("-d", "--deployment-name", help="Only what this deployment answered.")
@click.option("--failed", is_flag=True, help="Only errors.")
@click.option("--prediction-id", help="Only this one: an answer tells it in the header x-yard-prediction-id.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True)
@local_option
def requests(name: str, deployment_name: str | None, failed: bool, prediction_id: str | None, limit: int) -> Any:
    list_requests = client().online_endpoints.list_requests
    return list_requests(name, deployment_name=deployment_name, failed=failed, prediction_id=prediction_id, limit=limit)


@verb(endpoint, "invoke", help="Send a request file and print the answer.")
@name_option
@click.option("-r", "--request-file", required=True, type=click.Path(dir_okay=False))
@click.option("-d", "--deployment-name", help="Send it to this deployment, whatever the traffic.")
@local_option
def invoke(name: str, request_file: str, deployment_name: str | None) -> int:
    text = client().online_endpoints.invoke(name, request_file=request_file, deployment_name=deployment_name)
    click.echo(text)
    return 0


@verb(deployment, "create", help="Deploy a model to an endpoint.")
@file_option
@click.option("-n", "--name")
@click.option("-e", "--endpoint-name")
@click.option("--all-traffic", is_flag=True, help="Send it all traffic once it is ready.")
@local_option
@click.option("--skip-script-validation", is_flag=True, hidden=True)
@click.option("--package-model", is_flag=True, hidden=True)
@click.option("--vscode-debug", is_flag=True, hidden=True)
@click.option("--local-enable-gpu", is_flag=True, hidden=True)
@click.option("--web", is_flag=True, hidden=True)
@set_option
def deploy(file: str, name: str | None, endpoint_name: str | None, all_traffic: bool, assignments: Any, **_: Any) -> Any:
    from ..spec.loading import load

    return _deploy(load("online_deployment", Path(file), overrides(assignments, name=name, endpoint_name=endpoint_name)), all_traffic)


@verb(deployment, "test", help="Try a deployment on sample requests, at an endpoint of its own that goes away again.")
@file_option
@click.option(
    "-r", "--request-file", "requests", multiple=True, required=True, type=click.Path(exists=True, dir_okay=False), help="A request body."
)
@local_option
@set_option
def try_out(file: str, requests: tuple[str, ...], assignments: Any) -> int:
    """Exits with 1 when an answer is an error."""
    from ..spec.loading import load
    from . import output

    with uploading_client() as made:
        spec: Any = load("online_deployment", Path(file), overrides(assignments, endpoint_name="test"))
        with waiting(f"trying {spec.name}"):
            answers = made.online_deployments.try_out(spec, requests)
    output.show(list(answers), None, None, ("request", "status", "ms", "answer"))
    return int(max((answer["status"] for answer in answers), default=0) >= 400)


def _deploy(spec: Any, all_traffic: bool = False) -> Any:
    with uploading_client() as made:
        poller = made.online_deployments.begin_create_or_update(spec)
    if no_wait() and not all_traffic:
        return made.online_deployments.get(spec.name, spec.endpoint_name)
    with waiting(f"deploying {spec.name} to {spec.endpoint_name}"):
        found = poller.result()
    for warning in found.warnings or ():
        say(f"note: {warning}")
    if all_traffic:
        target = made.online_endpoints.get(spec.endpoint_name)
        target.traffic = {spec.name: 100}
        made.online_endpoints.begin_create_or_update(target).result()
    return found


@verb(deployment, "update", help="Change a deployment; the old one serves until the new one is ready.")
@click.option("-n", "--name")
@click.option("-e", "--endpoint-name")
@click.option("-f", "--file", "file", type=click.Path(dir_okay=False))
@local_option
@click.option("--skip-script-validation", is_flag=True, hidden=True)
@click.option("--vscode-debug", is_flag=True, hidden=True)
@click.option("--local-enable-gpu", is_flag=True, hidden=True)
@click.option("--web", is_flag=True, hidden=True)
@generic_update
def update_deployment(
    name: str | None, endpoint_name: str | None, file: str | None, change: Callable[[dict[str, Any]], dict[str, Any]], **_: Any
) -> Any:
    from ..spec.fields import parse
    from ..spec.loading import load
    from ..spec.online import OnlineDeployment

    if file is not None:
        given = {key: value for key, value in (("name", name), ("endpoint_name", endpoint_name)) if value}
        base: Any = load("online_deployment", Path(file), given)
        document = base.document()
        spec = parse(OnlineDeployment, {**document, **change(document)}).settled(base.base_path)
        return _deploy(spec)
    if not name or not endpoint_name:
        raise click.UsageError("give --file, or --name and --endpoint-name")
    document = client().online_deployments.get(name, endpoint_name).document()
    return _deploy(parse(OnlineDeployment, {**document, **change(document)}))


@verb(deployment, "show", help="Show a deployment.")
@name_option
@endpoint_option
@local_option
@click.option("--web", is_flag=True, hidden=True)
def show_deployment(name: str, endpoint_name: str, web: bool) -> Any:
    return client().online_deployments.get(name, endpoint_name)


@verb(deployment, "list", columns=("name", "model", "instance_count", "provisioning_state"), help="List the deployments of an endpoint.")
@endpoint_option
@local_option
def list_deployments(endpoint_name: str) -> Any:
    return list(client().online_deployments.list(endpoint_name))


@verb(deployment, "delete", help="Delete a deployment that takes no traffic.")
@name_option
@endpoint_option
@local_option
@yes_option
def delete_deployment(name: str, endpoint_name: str) -> None:
    poller = client().online_deployments.begin_delete(name, endpoint_name)
    if not no_wait():
        poller.result()


@verb(deployment, "get-logs", help="Print the log of the model server, or of its environment's build.")
@name_option
@endpoint_option
@click.option("-l", "--lines", type=int, default=5000, show_default=True)
@click.option("-c", "--container", type=click.Choice(["inference-server", "storage-initializer"]), default="inference-server")
@local_option
def get_logs(name: str, endpoint_name: str, lines: int, container: str) -> int:
    click.echo(client().online_deployments.get_logs(name, endpoint_name, lines=lines, container_type=container), nl=False)
    return 0

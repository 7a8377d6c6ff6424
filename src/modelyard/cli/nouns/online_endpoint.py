from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ...sdk.documents import as_entity
from ...spec.nouns import NOUNS
from ...spec.states import RolloutState
from ..options import client, generic_update, name_option, verb, yes_option
from ..output import say, say_log
from ..standard import optional_file, put, standard

NOUN = NOUNS["online_endpoint"]


def _local(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    """Everything that this command does from here on, it does in the local yard."""
    if value:
        from ...sdk import local

        home = local.start()
        for name in ("YARD_URL", "YARD_TOKEN", "YARD_WORKSPACE"):
            os.environ.pop(name, None)
        os.environ["YARD_HOME"] = str(home.root)


local_option = click.option(
    "--local", is_flag=True, expose_value=False, is_eager=True, callback=_local, help="In a yard of its own, beside this machine's."
)


web_option = click.option("--web", is_flag=True, hidden=True, expose_value=False)
group = standard(
    NOUN,
    options={
        "create": (click.option("--auth-mode"), local_option, web_option),
        "show": (local_option, web_option),
        "list": (local_option,),
    },
    without=("update", "delete"),
)


def _shares(text: str, what: str) -> dict[str, int]:
    """`"blue=90 green=10"` → {blue: 90, green: 10}"""
    shares: dict[str, int] = {}
    for part in text.replace(",", " ").split():
        name, equals, share = part.partition("=")
        if not equals or not share.strip().lstrip("-").isdigit():
            raise click.UsageError(f"{what} takes NAME=PERCENT, not {part!r}")
        shares[name] = int(share)
    return shares


@verb(group, "update", help="Change an endpoint, its traffic above all.")
@click.option("-n", "--name")
@optional_file
@click.option("-r", "--traffic", help='Shares in percent: "blue=90 green=10".')
@click.option("-m", "--mirror-traffic", help='Copy a share to a deployment: "green=10".')
@local_option
@web_option
@generic_update
def update(
    name: str | None,
    file: str | None,
    traffic: str | None,
    mirror_traffic: str | None,
    change: Callable[[dict[str, Any]], dict[str, Any]],
) -> Any:
    from ...spec.fields import parse
    from ...spec.loading import load
    from ...spec.online import OnlineEndpoint

    ml_client = client()
    if file is not None:
        base: Any = load("online_endpoint", Path(file), {"name": name} if name else {})
        document = base.document()
    elif name is not None:
        document = as_entity(ml_client.online_endpoints.get(name)).document()
    else:
        raise click.UsageError("give --name or --file")
    document = {**document, **change(document)}
    if traffic is not None:
        document["traffic"] = {**{other: 0 for other in document.get("traffic", {})}, **_shares(traffic, "--traffic")}
    if mirror_traffic is not None:
        document["mirror_traffic"] = _shares(mirror_traffic, "--mirror-traffic")
    return put(ml_client, NOUN, parse(OnlineEndpoint, document, what=NOUN.title))


def _bound(metric: str | None, run: str | None) -> dict[str, Any] | None:
    if metric is None and run is None:
        return None
    parts = re.fullmatch(r"(.+?)\s*(>=|<=)\s*(.+)", metric or "")
    if parts is None or run is None:
        raise click.UsageError("give both --metric, such as conversion>=0.02, and --metric-run")
    name, sign, value = parts.groups()
    return {"run_id": run, "name": name, "at_least" if sign == ">=" else "at_most": value}


@verb(group, "rollout", help="Move the traffic to a deployment step by step, as long as it answers well.")
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
    from ...spec.fields import parse
    from ...spec.online import Rollout

    if abort:
        return client().online_endpoints.abort_rollout(name)
    if to is None:
        raise click.UsageError("give --to DEPLOYMENT, or --abort")
    if not all(part.strip().isdigit() for part in steps.split(",")):
        raise click.UsageError(f"--steps takes percents such as 10,50,100, not {steps!r}")
    document = {
        "to": to, "steps": [int(part) for part in steps.split(",")], "bake_time_s": bake_time, "min_requests": min_requests,
        "max_error_rate": max_error_rate, "max_p99_ms": max_p99, "metric": _bound(metric, metric_run),
    }  # fmt: skip
    endpoints = client().online_endpoints
    poller = endpoints.begin_rollout(name, parse(Rollout, document, what="rollout"))
    if at_once:
        return endpoints.get(name).rollout
    from ..progress import waiting
    from ..rollout import Steps

    on = f"the rollout of {to} goes on; `yard online-endpoint rollout -n {name} --abort` stops it and gives the traffic back"
    with waiting(f"rolling out {to}", on) as line:
        progress = Steps(endpoints, name)
        ended = poller.result(seen=lambda endpoint: line.show(*progress.seen(endpoint.rollout))).rollout or {}
    say(f"rollout of {to}: {ended['status']}: {ended['reason']}")
    return 0 if ended["status"] == RolloutState.COMPLETED else 1


@verb(group, "delete", help="Delete an endpoint with its deployments.")
@name_option
@local_option
@yes_option
def delete(name: str) -> None:
    client().online_endpoints.begin_delete(name).result()
    from ...sdk import local

    if local.is_here() and not local.runs():
        say("the local yard has no endpoint left and is stopped")


@verb(group, "get-credentials", help="Show the keys.")
@name_option
def get_credentials(name: str) -> Any:
    from ...spec.online import EndpointToken

    keys = client().online_endpoints.get_keys(name)
    if isinstance(keys, EndpointToken):
        return {"accessToken": keys.access_token, "expiryTimeUtc": keys.expiry_time_utc, "refreshAfterTimeUtc": keys.refresh_after_time_utc}
    return {"primaryKey": keys.primary_key, "secondaryKey": keys.secondary_key}


@verb(group, "regenerate-keys", help="Replace one key; the other goes on working.")
@name_option
@click.option("--key-type", type=click.Choice(["primary", "secondary"]), default="primary", show_default=True)
def regenerate_keys(name: str, key_type: str) -> None:
    client().online_endpoints.begin_regenerate_keys(name, key_type=key_type).result()


@verb(
    group, "requests", columns=("time", "deployment", "status", "ms", "prediction_id"),
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


@verb(group, "invoke", help="Send a request file and print the answer.")
@name_option
@click.option("-r", "--request-file", required=True, type=click.Path(dir_okay=False))
@click.option("-d", "--deployment-name", help="Send it to this deployment, whatever the traffic.")
@local_option
def invoke(name: str, request_file: str, deployment_name: str | None) -> int:
    text = client().online_endpoints.invoke(name, request_file=request_file, deployment_name=deployment_name)
    say_log(text + "\n")
    return 0

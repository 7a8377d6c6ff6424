from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ...sdk.documents import as_entity
from ...spec.nouns import NOUNS
from ..options import Multi, client, generic_update, name_option, overrides, set_option, uploading_client, verb
from ..standard import optional_file, put, standard

NOUN = NOUNS["batch_endpoint"]
RUNS = ("name", "properties.batch_deployment", "status", "display_name", "start_time", "end_time")
group = standard(
    NOUN,
    options={"create": (click.option("--auth-mode", help="`key` gives it keys of its own."),)},
    help={"delete": "Delete an endpoint with its deployments; the jobs it ran stay."},
    without=("update",),
)


@verb(group, "update", help="Change an endpoint, its default deployment above all.")
@click.option("-n", "--name")
@optional_file
@click.option("--defaults", cls=Multi, metavar="deployment_name=NAME", help="The deployment that runs when none is named.")
@generic_update
def update(name: str | None, file: str | None, defaults: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    from ...spec.batch import BatchEndpoint
    from ...spec.fields import parse
    from ...spec.loading import load

    ml_client = client()
    if file is not None:
        document = load("batch_endpoint", Path(file), {"name": name} if name else {}).document()
    elif name is not None:
        document = as_entity(ml_client.batch_endpoints.get(name)).document()
    else:
        raise click.UsageError("give --name or --file")
    document = {**document, **change(document)}
    if defaults:
        document["defaults"] = _pairs(defaults, "--defaults")
    return put(ml_client, NOUN, parse(BatchEndpoint, document, what=NOUN.title))


@verb(group, "get-credentials", help="Show the keys of an endpoint with auth_mode key.")
@name_option
def get_credentials(name: str) -> Any:
    keys = client().batch_endpoints.get_keys(name)
    return {"primaryKey": keys.primary_key, "secondaryKey": keys.secondary_key}


@verb(group, "regenerate-keys", help="Replace one key; the other goes on working.")
@name_option
@click.option("--key-type", type=click.Choice(["primary", "secondary"]), default="primary", show_default=True)
def regenerate_keys(name: str, key_type: str) -> None:
    client().batch_endpoints.begin_regenerate_keys(name, key_type=key_type)


@verb(group, "invoke", help="Run the pipeline of the default deployment, or of another; prints the job.")
@name_option
@click.option("-d", "--deployment-name", help="Run this deployment instead of the default.")
@click.option("-f", "--file", "file", type=click.Path(dir_okay=False), help="YAML file with `inputs` and `outputs`.")
@click.option("--inputs", "inputs", cls=Multi, metavar="NAME=VALUE", help="Parameters: values, local paths or references.")
@click.option("--input", "single", help="The only data input: a local path or a reference.")
@click.option(
    "--input-type", type=click.Choice(["uri_file", "uri_folder", "mltable"]), help="Type of --input, where it is not the parameter's."
)
@click.option("--outputs", "outputs", cls=Multi, metavar="NAME=PATH", help="Where outputs go.")
@click.option("--job-name", help="Name of the job.")
@click.option("--experiment-name", help="Experiment of the job; the endpoint's name by default.")
@set_option
def invoke(
    name: str, deployment_name: str | None, file: str | None, inputs: Any, single: str | None, input_type: str | None, outputs: Any,
    job_name: str | None, experiment_name: str | None, assignments: Any,
) -> Any:  # fmt: skip
    from ...spec import yamlfile
    from ...spec.overrides import assign, sent

    document: dict[str, Any] = {}
    if file is not None:
        read = yamlfile.read(Path(file)).data
        if not isinstance(read, dict):
            raise click.UsageError(f"{file} holds a mapping with `inputs` and `outputs`")
        document = read
    for path, value in overrides(assignments).items():
        assign(document, path, sent(value))
    values = {**(document.get("inputs") or {}), **_pairs(inputs, "--inputs")}
    base = Path(file).parent if file else Path()
    values = {key: _beside(base, value) for key, value in values.items()}
    sole: Any = {"path": single, "type": input_type} if single and input_type else single
    with uploading_client() as ml_client:
        return ml_client.batch_endpoints.invoke(
            name, deployment_name=deployment_name, inputs=values, input=sole,
            outputs={**(document.get("outputs") or {}), **_pairs(outputs, "--outputs")}, job_name=job_name,
            experiment_name=experiment_name or document.get("experiment_name"),
        )  # fmt: skip


def _beside(base: Path, value: Any) -> Any:
    """A path of a file is meant from where the file lies."""
    path = value.get("path") if isinstance(value, dict) else value
    if not isinstance(path, str) or not (base / path).exists() or ":" in path:
        return value
    return {**value, "path": str(base / path)} if isinstance(value, dict) else str(base / path)


def _pairs(texts: Any, flag: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts or ():
        name, equals, value = str(text).partition("=")
        if not equals or not name:
            raise click.UsageError(f"{flag} takes NAME=VALUE, not {text!r}")
        pairs[name] = value
    return pairs


@verb(group, "list-jobs", columns=RUNS, help="List the runs of an endpoint, the newest first.")
@name_option
def list_jobs(name: str) -> Any:
    return list(client().batch_endpoints.list_jobs(name))

from __future__ import annotations

from typing import Any

import click

from ...sdk.documents import as_entity
from ...spec.nouns import NOUNS
from ..options import client, file_option, name_option, overrides, set_option, uploading_client, verb
from ..standard import endpoint_option, put, read, standard
from .batch_endpoint import RUNS

NOUN = NOUNS["batch_deployment"]
group = standard(
    NOUN,
    help={"show": "Show a deployment with its parameters.", "delete": "Delete a deployment that is not the default."},
    without=("create", "update"),
)


@verb(group, "create", help="Publish a pipeline under an endpoint.")
@file_option
@click.option("-n", "--name")
@click.option("-e", "--endpoint-name")
@click.option("--set-default", is_flag=True, help="Make it what the endpoint runs when no deployment is named.")
@click.option("--skip-script-validation", is_flag=True, hidden=True)
@set_option
def create(
    file: str, name: str | None, endpoint_name: str | None, set_default: bool, skip_script_validation: bool, assignments: Any
) -> Any:
    return _deploy(file, overrides(assignments, name=name, endpoint_name=endpoint_name), set_default)


def _deploy(file: str, fields: dict[str, Any], set_default: bool = False) -> Any:
    with uploading_client() as ml_client:
        spec = read(NOUN, file, fields)
        deployed = put(ml_client, NOUN, spec)
    if set_default:
        target = as_entity(ml_client.batch_endpoints.get(spec.endpoint_name))
        target.defaults.deployment_name = spec.name
        ml_client.batch_endpoints.begin_create_or_update(target).result()
    return deployed


@verb(group, "update", help="Change a deployment from its file.")
@file_option
@click.option("-n", "--name")
@click.option("-e", "--endpoint-name")
@set_option
def update(file: str, name: str | None, endpoint_name: str | None, assignments: Any) -> Any:
    return _deploy(file, overrides(assignments, name=name, endpoint_name=endpoint_name))


@verb(group, "list-jobs", columns=RUNS, help="List the runs of a deployment, the newest first.")
@name_option
@endpoint_option
def list_jobs(name: str, endpoint_name: str) -> Any:
    return list(client().batch_deployments.list_jobs(name, endpoint_name))

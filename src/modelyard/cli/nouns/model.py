from __future__ import annotations

from typing import Any

import click

from ...spec.nouns import NOUNS
from ..options import client, differences, name_option, uploading_client, verb
from ..output import say_log
from ..standard import standard, version_option

group = standard(
    NOUNS["model"],
    options={
        "create": (
            click.option("--path", help="Local path, azureml://jobs/…, runs:/… or another address."),
            click.option("--type", "type_", help="custom_model or mlflow_model."),
            click.option("--description"),
            click.option("--stage"),
            click.option("--datastore"),
        )
    },
    help={"create": "Register a model from YAML or flags."},
)


@verb(group, "download", help="Fetch a model's files.")
@name_option
@click.option("-v", "--version", required=True)
@click.option("-p", "--download-path", default=".", help="Folder; the model's name is added.")
def download(name: str, version: str, download_path: str) -> None:
    with uploading_client() as ml_client:
        ml_client.models.download(name, version, download_path)


@verb(group, "compare", draw=differences, help="Show in what versions differ, side by side: metrics, params, signature, data, code.")
@click.argument("versions", nargs=-1, required=True, metavar="NAME:VERSION…")
def compare(versions: tuple[str, ...]) -> Any:
    return client().models.compare(versions)


@verb(group, "card", help="Print the card of a version: Markdown, or with -o the record it is made of.")
@name_option
@click.option("-v", "--version", required=True)
def card(name: str, version: str) -> Any:
    if click.get_current_context().meta["modelyard.form"] is not None:
        return client().models.card(name, version)
    say_log(client().models.card_text(name, version) + "\n")
    return None


@verb(group, "delete", help="Delete a version that nothing uses, or a whole model.")
@name_option
@version_option
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def delete(name: str, version: str | None, yes: bool) -> None:
    if not yes:
        click.confirm(f"Delete model {name}{':' + version if version else ' with all its versions'}?", abort=True, err=True)
    client().models.delete(name, version)

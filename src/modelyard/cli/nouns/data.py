from __future__ import annotations

import click

from ...spec.nouns import NOUNS
from ..options import name_option, uploading_client, verb
from ..standard import label_option, standard, version_option

group = standard(
    NOUNS["data"],
    options={
        "create": (
            click.option("--path", help="Local path or address."),
            click.option("--type", "type_", help="uri_file, uri_folder or mltable."),
            click.option("--description"),
            click.option("--datastore"),
        )
    },
    help={"create": "Create a data asset from YAML or flags."},
)


@verb(group, "download", help="Fetch the files of a version, as they were when it was made; az ml has no such verb.")
@name_option
@version_option
@label_option
@click.option("-p", "--download-path", default=".", help="Folder; the name of the data is added.")
def download(name: str, version: str | None, label: str | None, download_path: str) -> None:
    with uploading_client() as ml_client:
        ml_client.data.download(name, version, label=label, download_path=download_path)

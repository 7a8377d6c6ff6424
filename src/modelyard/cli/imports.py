"""`yard import`."""

from __future__ import annotations

from typing import Any

import click

from .options import group, uploading_client, verb
from .output import say

import_ = group("import", "Take over what another tracking system holds.")


@verb(import_, "mlflow", help="Take over an MLflow store: experiments, runs, metrics, artifacts, models. May be repeated.")
@click.option("--from", "address", required=True, help="http address of a tracking server, SQLite file, or mlruns folder.")
@click.option("--artifacts", type=click.Path(file_okay=False), help="Folder where the server kept its mlflow-artifacts:/ files.")
@click.option("--deleted", is_flag=True, help="What was deleted there, too.")
def mlflow(address: str, artifacts: str | None, deleted: bool) -> Any:
    with uploading_client(of_bytes=False) as ml_client:
        counts = ml_client.import_mlflow(address, deleted=deleted, artifacts=artifacts)
    for note in counts.pop("notes"):
        say(f"note: {note}")
    return counts

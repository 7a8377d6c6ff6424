"""`yard schema`: what an editor needs to complete and check YAML."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ..spec.nouns import written
from .output import say

_NAMES = {
    "job": ("job", "pipeline", "sweep"), "online-endpoint": ("endpoint", "online-endpoint"),
    "online-deployment": ("deployment", "online-deployment"),
}  # fmt: skip
"""Noun → how files with one are called, where that is not its own name."""
_TAKEN = ("environment.yml", "environment.yaml")
"""Names that conda's files have as well, which are no environments of ours."""


@click.command(
    "schema", help="Print the JSON Schema of a noun's YAML, or with --vscode the settings that bind all of them to files by name."
)
@click.argument("noun", required=False, type=click.Choice([noun.command for noun in written()]))
@click.option("--vscode", is_flag=True, help="Print settings for VS Code's YAML extension; the schemas are written beside your profile.")
def schema(noun: str | None, vscode: bool) -> None:
    if vscode == (noun is not None):
        raise click.UsageError("name a noun, or give --vscode")
    click.echo(json.dumps(_vscode() if noun is None else _schema(noun), indent=2, ensure_ascii=False))


def _schema(noun: str) -> dict[str, Any]:
    from ..spec.loading import json_schema

    return json_schema(noun.replace("-", "_"))


def _vscode() -> dict[str, Any]:
    """The settings; the schemas that they name are written now."""
    from ..sdk.connection import profile_path

    folder = profile_path().parent / "schemas"
    folder.mkdir(parents=True, exist_ok=True)
    bound = {}
    for noun in (noun.command for noun in written()):
        file = folder / f"{noun}.json"
        file.write_text(json.dumps(_schema(noun)))
        bound[file.as_uri()] = _globs(noun)
    say(f"the schemas are in {folder}; what is printed belongs into .vscode/settings.json, for the extension redhat.vscode-yaml")
    return {"yaml.schemas": bound}


def _globs(noun: str) -> list[str]:
    """`job.yml`, `job-train.yaml`, `train.job.yml` and the like, of each name that such files have. No file has two nouns."""
    names = _NAMES.get(noun, (noun,))
    globs = [f"**/{pattern}.{ending}" for name in names for pattern in (name, f"{name}[-_.]*", f"*.{name}") for ending in ("yml", "yaml")]
    return [glob for glob in globs if Path(glob).name not in _TAKEN]

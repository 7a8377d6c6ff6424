"""`yard data`, `yard environment`, `yard model`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from .options import client, generic_update, name_option, noun, overrides, set_option, uploading_client, verb
from .output import say, say_notes, waiting

data = noun("data", "Data assets: named, versioned files, folders and tables.")
environment = noun("environment", "Environments: the Python and packages that jobs and deployments run with.")
component = noun("component", "Components: steps with typed inputs and outputs, for pipelines and sweeps.")
model = noun("model", "Models: named, versioned files that can be deployed.")

version_option = click.option("-v", "--version", help="Version.")
label_option = click.option("-l", "--label", help="Label, such as latest.")
archived_options = (
    click.option("--archived-only", is_flag=True, help="Only archived ones."),
    click.option("--include-archived", is_flag=True, help="Archived ones too."),
    click.option("-r", "--max-results", type=int, help="How many at most."),
)


def _view(archived_only: bool, include_archived: bool) -> str:
    return "ARCHIVED_ONLY" if archived_only else "ALL" if include_archived else "ACTIVE_ONLY"


def _common(group: click.Group, operations: Callable[[Any], Any], columns: tuple[str, ...]) -> None:
    """show, list, update, archive and restore of a kind of asset."""

    @verb(group, "show", help="Show one version; the newest without --version.")
    @name_option
    @version_option
    @label_option
    def show(name: str, version: str | None, label: str | None) -> Any:
        return operations(client()).get(name, version, label)

    @verb(group, "list", columns=columns, help="List names, or the versions of one.")
    @click.option("-n", "--name", help="List the versions of this name.")
    @archived_options[0]
    @archived_options[1]
    @archived_options[2]
    def list_(name: str | None, archived_only: bool, include_archived: bool, max_results: int | None) -> Any:
        view = _view(archived_only, include_archived)
        return list(operations(client()).list(name, list_view_type=view, max_results=max_results))

    @verb(group, "update", help="Change description, tags or properties.")
    @name_option
    @version_option
    @label_option
    @click.option("--stage", help="Stage (models).")
    @generic_update
    def update(
        name: str, version: str | None, label: str | None, stage: str | None, change: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> Any:
        kind = operations(client())
        found = kind.get(name, version, label)
        changes = change(found.document())
        return kind.update(name, found.version, {**changes, **({"stage": stage} if stage else {})})

    @verb(group, "share", help="Make the same version in a registry, for every workspace.")
    @name_option
    @click.option("-v", "--version", required=True)
    @click.option("--registry-name", required=True, help="The registry.")
    @click.option("--share-with-name", help="Name there; default: the same.")
    @click.option("--share-with-version", help="Version there; default: the same.")
    def share(name: str, version: str, registry_name: str, share_with_name: str | None, share_with_version: str | None) -> Any:
        return operations(client()).share(
            name, version, registry_name=registry_name, share_with_name=share_with_name, share_with_version=share_with_version
        )

    for word, text in (("archive", "Hide from lists."), ("restore", "Bring back what was archived.")):

        def act(name: str, version: str | None, label: str | None, word: str = word) -> None:
            getattr(operations(client()), word)(name, version, label)

        verb(group, word, help=text)(name_option(version_option(label_option(act))))


_common(data, lambda made: made.data, ("name", "version", "type", "creation_context.created_at"))
_common(environment, lambda made: made.environments, ("name", "version", "image", "creation_context.created_at"))
_common(component, lambda made: made.components, ("name", "version", "type", "display_name", "creation_context.created_at"))
_common(model, lambda made: made.models, ("name", "version", "type", "stage", "job_name", "creation_context.created_at"))


def _create(kind: str, file: str | None, given: dict[str, Any]) -> Any:
    """Load the YAML with overrides, or build the entity from flags alone."""
    from pathlib import Path

    from ..spec.fields import parse
    from ..spec.loading import load
    from ..spec.nouns import NOUNS

    if file is not None:
        return load(kind, Path(file), given)
    if not given:
        raise click.UsageError("give --file, or at least --name and what it is made of")
    return parse(NOUNS[kind].specs[""], given, what=kind).settled(Path.cwd())


@verb(component, "create", help="Create a component from YAML.")
@click.option("-f", "--file", "file", required=True, type=click.Path(dir_okay=False), help="YAML file.")
@click.option("-n", "--name", help="Name, instead of the file's.")
@version_option
@set_option
def create_component(file: str, name: str | None, version: str | None, assignments: Any) -> Any:
    with uploading_client() as made:
        return made.components.create_or_update(_create("component", file, overrides(assignments, name=name, version=version)))


optional_file = click.option("-f", "--file", "file", type=click.Path(dir_okay=False), help="YAML file.")


@verb(data, "create", help="Create a data asset from YAML or flags.")
@optional_file
@click.option("-n", "--name")
@version_option
@click.option("--path", help="Local path or address.")
@click.option("--type", "type_", help="uri_file, uri_folder or mltable.")
@click.option("--description")
@click.option("--datastore")
@set_option
def create_data(
    file: str | None,
    name: str | None,
    version: str | None,
    path: str | None,
    type_: str | None,
    description: str | None,
    datastore: str | None,
    assignments: Any,
) -> Any:
    given = overrides(assignments, name=name, version=version, path=path, type=type_, description=description, datastore=datastore)
    with uploading_client() as made:
        found = made.data.create_or_update(_create("data", file, given))
    say_notes(found)
    return found


@verb(model, "create", help="Register a model from YAML or flags.")
@optional_file
@click.option("-n", "--name")
@version_option
@click.option("--path", help="Local path, azureml://jobs/…, runs:/… or another address.")
@click.option("--type", "type_", help="custom_model or mlflow_model.")
@click.option("--description")
@click.option("--stage")
@click.option("--datastore")
@set_option
def create_model(
    file: str | None,
    name: str | None,
    version: str | None,
    path: str | None,
    type_: str | None,
    description: str | None,
    stage: str | None,
    datastore: str | None,
    assignments: Any,
) -> Any:
    given = overrides(
        assignments, name=name, version=version, path=path, type=type_, description=description, stage=stage, datastore=datastore
    )
    with uploading_client() as made:
        found = made.models.create_or_update(_create("model", file, given))
    say_notes(found)
    return found


@verb(model, "download", help="Fetch a model's files.")
@name_option
@click.option("-v", "--version", required=True)
@click.option("-p", "--download-path", default=".", help="Folder; the model's name is added.")
def download_model(name: str, version: str, download_path: str) -> None:
    with uploading_client() as made:
        made.models.download(name, version, download_path)


@verb(model, "compare", help="Show in what versions differ, side by side: metrics, params, signature, data, code.")
@click.argument("versions", nargs=-1, required=True, metavar="NAME:VERSION…")
def compare_models(versions: tuple[str, ...]) -> Any:
    return client().models.compare(versions)


@verb(model, "card", help="Print the card of a version: Markdown, or with -o the record it is made of.")
@name_option
@click.option("-v", "--version", required=True)
def card(name: str, version: str) -> Any:
    if click.get_current_context().meta["modelyard.form"] is not None:
        return client().models.card(name, version)
    click.echo(client().models.card_text(name, version))
    return None


@verb(model, "delete", help="Delete a version that nothing uses, or a whole model.")
@name_option
@version_option
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def delete_model(name: str, version: str | None, yes: bool) -> None:
    if not yes:
        click.confirm(f"Delete model {name}{':' + version if version else ' with all its versions'}?", abort=True, err=True)
    client().models.delete(name, version)


@verb(environment, "create", help="Create an environment from YAML or flags.")
@optional_file
@click.option("-n", "--name")
@version_option
@click.option("-i", "--image")
@click.option("-c", "--conda-file")
@click.option("-b", "--build-context")
@click.option("-d", "--dockerfile-path")
@click.option("--os-type")
@click.option("--description")
@click.option("--datastore")
@click.option("--tags", cls=None)
@set_option
def create_environment(
    file: str | None,
    name: str | None,
    version: str | None,
    image: str | None,
    conda_file: str | None,
    build_context: str | None,
    dockerfile_path: str | None,
    os_type: str | None,
    description: str | None,
    datastore: str | None,
    tags: str | None,
    assignments: Any,
) -> Any:
    given = overrides(
        assignments,
        name=name,
        version=version,
        image=image,
        conda_file=conda_file,
        os_type=os_type,
        description=description,
        datastore=datastore,
    )
    if build_context:
        given["build"] = {"path": build_context, **({"dockerfile_path": dockerfile_path} if dockerfile_path else {})}
    if tags:
        given["tags"] = dict(part.split("=", 1) for part in tags.split() if "=" in part)
    with uploading_client() as made:
        found = made.environments.create_or_update(_create("environment", file, given))
    say_notes(found)
    return found


@verb(environment, "build", help="Build an environment now, instead of with the first job.")
@name_option
@version_option
def build_environment(name: str, version: str | None) -> Any:
    made = client()
    if ":" in name and version is None:
        name, _, version = name.partition(":")
    with waiting(f"building environment {name}"):
        key = made.environments.build(name, version, say)
    return {"name": name, "version": version or "latest", "key": key}

"""`yard workspace`, `yard datastore`, `yard compute`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .options import client, file_option, generic_update, name_option, noun, overrides, set_option, verb, yes_option

workspace = noun("workspace", "Workspaces: the border around a team's things.")
registry = noun("registry", "Registries: assets that workspaces share, as azureml://registries/NAME/…")
datastore = noun("datastore", "Datastores: named places for files.")
compute = noun("compute", "Compute: where jobs run.")

optional_file = click.option("-f", "--file", "file", type=click.Path(dir_okay=False))


def _read(kind: str, file: str | None, given: dict[str, Any]) -> Any:
    from ..spec.fields import parse
    from ..spec.loading import load, spec_class

    if file is not None:
        return load(kind, Path(file), given)
    if "name" not in given:
        raise click.UsageError("give --file or --name")
    return parse(spec_class(kind, given), given, what=kind)


def _changed(found: Any, change: Callable[[dict[str, Any]], dict[str, Any]], **fields: Any) -> Any:
    from ..spec.fields import parse

    document = found.document()
    given = {name: value for name, value in fields.items() if value is not None}
    return parse(type(found), {**document, **change(document), **given})


@verb(workspace, "create", help="Create a workspace.")
@optional_file
@click.option("-n", "--name")
@click.option("--display-name")
@click.option("--description")
@click.option("-l", "--location")
@set_option
def create_workspace(file: str | None, assignments: Any, **flags: str | None) -> Any:
    return client().workspaces.begin_create(_read("workspace", file, overrides(assignments, **flags))).result()


@verb(workspace, "show", help="Show a workspace.")
@click.option("-n", "--name")
def show_workspace(name: str | None) -> Any:
    return client().workspaces.get(name)


@verb(workspace, "list", columns=("name", "display_name", "description"), help="List the workspaces you can see.")
@click.option("-r", "--max-results", type=int)
def list_workspaces(max_results: int | None) -> Any:
    return list(client().workspaces.list())[:max_results]


@verb(workspace, "update", help="Change a workspace.")
@name_option
@click.option("--display-name")
@click.option("--description")
@generic_update
def update_workspace(name: str, display_name: str | None, description: str | None, change: Any) -> Any:
    made = client()
    return made.workspaces.begin_update(
        _changed(made.workspaces.get(name), change, display_name=display_name, description=description)
    ).result()


@verb(workspace, "delete", help="Delete an empty workspace.")
@name_option
@click.option("--all-resources", is_flag=True, hidden=True)
@click.option("-p", "--permanently-delete", is_flag=True, hidden=True)
@yes_option
def delete_workspace(name: str, **_: Any) -> None:
    client().workspaces.begin_delete(name).result()


@verb(registry, "create", help="Create a registry.")
@optional_file
@click.option("-n", "--name")
@click.option("--description")
@click.option("-l", "--location")
@set_option
def create_registry(file: str | None, assignments: Any, **flags: str | None) -> Any:
    return client().registries.begin_create(_read("registry", file, overrides(assignments, **flags))).result()


@verb(registry, "show", help="Show a registry.")
@name_option
def show_registry(name: str) -> Any:
    return client().registries.get(name)


@verb(registry, "list", columns=("name", "description"), help="List the registries you can see.")
def list_registries() -> Any:
    return list(client().registries.list())


@verb(registry, "delete", help="Delete an empty registry.")
@name_option
@yes_option
def delete_registry(name: str) -> None:
    client().registries.begin_delete(name)


@verb(datastore, "create", help="Create a datastore.")
@file_option
@click.option("-n", "--name")
@set_option
def create_datastore(file: str, name: str | None, assignments: Any) -> Any:
    return client().datastores.create_or_update(_read("datastore", file, overrides(assignments, name=name)))


@verb(datastore, "show", help="Show a datastore.")
@name_option
def show_datastore(name: str) -> Any:
    return client().datastores.get(name)


@verb(datastore, "list", columns=("name", "type", "is_default", "description"), help="List datastores.")
@click.option("-r", "--max-results", type=int)
def list_datastores(max_results: int | None) -> Any:
    return list(client().datastores.list())[:max_results]


@verb(datastore, "update", help="Change a datastore.")
@name_option
@generic_update
def update_datastore(name: str, change: Any) -> Any:
    made = client()
    return made.datastores.create_or_update(_changed(made.datastores.get(name), change))


@verb(datastore, "delete", help="Forget a datastore; what it holds stays where it is.")
@name_option
@yes_option
def delete_datastore(name: str) -> None:
    client().datastores.delete(name)


@verb(compute, "create", help="Create a compute.")
@optional_file
@click.option("-n", "--name")
@click.option("-t", "--type", "type_")
@click.option("-s", "--size")
@click.option("--min-instances", type=int)
@click.option("--max-instances", type=int)
@click.option("--idle-time-before-scale-down", type=int)
@click.option("--tier")
@click.option("--description")
@click.option("-l", "--location")
@set_option
def create_compute(file: str | None, type_: str | None, assignments: Any, **flags: Any) -> Any:
    return client().compute.begin_create_or_update(_read("compute", file, overrides(assignments, type=type_, **flags))).result()


@verb(compute, "show", help="Show a compute.")
@name_option
def show_compute(name: str) -> Any:
    return client().compute.get(name)


@verb(compute, "list", columns=("name", "type", "size", "max_instances", "provisioning_state"), help="List computes.")
@click.option("-t", "--type", "type_")
@click.option("-r", "--max-results", type=int)
def list_computes(type_: str | None, max_results: int | None) -> Any:
    return list(client().compute.list(compute_type=type_))[:max_results]


@verb(compute, "update", help="Change a compute.")
@name_option
@click.option("--min-instances", type=int)
@click.option("--max-instances", type=int)
@click.option("--idle-time-before-scale-down", type=int)
@generic_update
def update_compute(name: str, change: Any, **flags: Any) -> Any:
    made = client()
    return made.compute.begin_update(_changed(made.compute.get(name), change, **flags)).result()


@verb(compute, "delete", help="Delete a compute.")
@name_option
@yes_option
def delete_compute(name: str) -> None:
    client().compute.begin_delete(name).result()

"""The verbs that nouns have in common, as a noun's row says: create, show, list, update and delete; archive, restore and share of assets.

A noun's own file (`nouns/`) says what it has besides. A verb that it registers replaces the standard one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..sdk.documents import as_entity
from ..spec.nouns import Noun
from .options import client, file_option, generic_update, name_option, noun_group, overrides, set_option, uploading_client, verb, yes_option
from .output import say_notes

if TYPE_CHECKING:
    from ..sdk.client import MLClient

Options = Sequence[Callable[[Any], Any]]
Function = Callable[..., Any]

endpoint_option = click.option("-e", "--endpoint-name", required=True, help="Name of the endpoint.")
version_option = click.option("-v", "--version", help="Version.")
label_option = click.option("-l", "--label", help="Label, such as latest.")
optional_file = click.option("-f", "--file", "file", type=click.Path(dir_okay=False), help="YAML file.")
max_results = click.option("-r", "--max-results", type=int, help="How many at most.")


def standard(
    noun: Noun, *, options: Mapping[str, Options] | None = None, help: Mapping[str, str] | None = None, without: Sequence[str] = ()
) -> click.Group:
    """The commands of a noun. By verb: further options, which `create` and `update` take as fields, and what `--help` says of it."""
    group = noun_group(noun)
    for name, make in (_OF_VERSIONS if noun.versioned else _OF_NAMES).items():
        if name not in without:
            make(group, noun, (options or {}).get(name, ()), (help or {}).get(name, ""))
    return group


def with_options(function: Function, options: Options) -> Function:
    """As if the options stood over the function, in this order."""
    for option in reversed(options):
        function = option(function)
    return function


def operations(ml_client: MLClient, noun: Noun) -> Any:
    return getattr(ml_client, noun.attribute)


def read(noun: Noun, file: str | None, fields: dict[str, Any]) -> Any:
    """The spec of a file, overridden by `fields`, or of the fields alone. Raises UsageError when neither names the resource."""
    from ..spec.fields import parse
    from ..spec.loading import load, spec_class
    from ..spec.overrides import assign

    if file is not None:
        return load(noun.name, Path(file), fields)
    if noun.versioned and not fields:
        raise click.UsageError("give --file, or at least --name and what it is made of")
    if not noun.versioned and "name" not in fields:
        raise click.UsageError("give --file or --name")
    document: dict[str, Any] = {}
    for name, value in fields.items():
        assign(document, name, value)
    return parse(spec_class(noun.name, document), document, what=noun.title, as_written=True).settled(Path.cwd())


def put(ml_client: MLClient, noun: Noun, spec: Any) -> Any:
    """Create or replace, and print the yard's notes."""
    of = operations(ml_client, noun)
    stored = of.create_or_update(spec) if hasattr(of, "create_or_update") else of.begin_create_or_update(spec).result()
    say_notes(stored)
    return stored


def _a(noun: Noun) -> str:
    return f"{'an' if noun.word[0] in 'aeiou' else 'a'} {noun.word}"


def _scope(noun: Noun) -> Options:
    return (endpoint_option,) if noun.within else ()


# Of every noun


def _create(group: click.Group, noun: Noun, fields: Options, help: str) -> None:
    """With a file, or where fields can be flags, without one. A flag is called as its field, `__` standing for a dot."""

    def create(file: str | None, assignments: Any, **flags: Any) -> Any:
        fields_set = overrides(assignments, **{name.rstrip("_").replace("__", "."): value for name, value in flags.items()})
        with uploading_client() as ml_client:
            return put(ml_client, noun, read(noun, file, fields_set))

    name = click.option("-n", "--name", help="Name." if fields else "Name, instead of the file's.")
    version = (version_option,) if noun.versioned else ()
    every = (optional_file if fields else file_option, name, *version, *fields, set_option)
    verb(group, "create", help=help or f"Create {_a(noun)}.")(with_options(create, every))


# Of nouns with names


def _show(group: click.Group, noun: Noun, options: Options, help: str) -> None:
    def show(name: str, endpoint_name: str | None = None, **_: Any) -> Any:
        return operations(client(), noun).get(*_named(name, endpoint_name))

    verb(group, "show", help=help or f"Show {_a(noun)}.")(with_options(show, (name_option, *_scope(noun), *options)))


def _named(name: str, endpoint: str | None) -> tuple[str, ...]:
    return (name,) if endpoint is None else (name, endpoint)


def _list(group: click.Group, noun: Noun, options: Options, help: str) -> None:
    def list_(max_results: int | None, endpoint_name: str | None = None, **filters: Any) -> Any:
        scope = () if endpoint_name is None else (endpoint_name,)
        return list(islice(operations(client(), noun).list(*scope, **filters), max_results))

    text = f"List the {noun.word}s of an endpoint." if noun.within else f"List {noun.word}s."
    every = (*_scope(noun), *options, max_results)
    verb(group, "list", columns=noun.columns, help=help or text)(with_options(list_, every))


def _update(group: click.Group, noun: Noun, fields: Options, help: str) -> None:
    def update(name: str, change: Callable[[dict[str, Any]], dict[str, Any]], endpoint_name: str | None = None, **flags: Any) -> Any:
        from ..spec.fields import parse

        ml_client = client()
        earlier = as_entity(operations(ml_client, noun).get(*_named(name, endpoint_name)))
        document = earlier.document()
        changed = {field: value for field, value in flags.items() if value is not None}
        return put(ml_client, noun, parse(type(earlier), {**document, **change(document), **changed}, what=noun.title))

    every = (name_option, *_scope(noun), *fields, generic_update)
    verb(group, "update", help=help or f"Change {_a(noun)}.")(with_options(update, every))


def _delete(group: click.Group, noun: Noun, options: Options, help: str) -> None:
    def delete(name: str, endpoint_name: str | None = None, **_: Any) -> None:
        operations(client(), noun).begin_delete(*_named(name, endpoint_name)).result()

    every = (name_option, *_scope(noun), *options, yes_option)
    verb(group, "delete", help=help or f"Delete {_a(noun)}.")(with_options(delete, every))


# Of assets


def _show_version(group: click.Group, noun: Noun, options: Options, help: str) -> None:
    def show(name: str, version: str | None, label: str | None) -> Any:
        return operations(client(), noun).get(name, version, label)

    every = (name_option, version_option, label_option, *options)
    verb(group, "show", help=help or "Show one version; the newest without --version.")(with_options(show, every))


def _list_versions(group: click.Group, noun: Noun, options: Options, help: str) -> None:
    def list_(name: str | None, archived_only: bool, include_archived: bool, max_results: int | None) -> Any:
        view = "ARCHIVED_ONLY" if archived_only else "ALL" if include_archived else "ACTIVE_ONLY"
        return list(operations(client(), noun).list(name, list_view_type=view, max_results=max_results))

    every = (
        click.option("-n", "--name", help="List the versions of this name."),
        click.option("--archived-only", is_flag=True, help="Only archived ones."),
        click.option("--include-archived", is_flag=True, help="Archived ones too."),
        *options,
        max_results,
    )
    verb(group, "list", columns=noun.columns, help=help or "List names, or the versions of one.")(with_options(list_, every))


def _update_version(group: click.Group, noun: Noun, options: Options, help: str) -> None:
    def update(
        name: str, version: str | None, label: str | None, stage: str | None, change: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> Any:
        of = operations(client(), noun)
        earlier = of.get(name, version, label)
        changes = change(earlier.document())
        return of.update(name, earlier.version, {**changes, **({"stage": stage} if stage else {})})

    stage = click.option("--stage", help="Stage (models).")
    every = (name_option, version_option, label_option, stage, *options, generic_update)
    verb(group, "update", help=help or "Change description, tags or properties.")(with_options(update, every))


def _share(group: click.Group, noun: Noun, options: Options, help: str) -> None:
    def share(name: str, version: str, **registry: str | None) -> Any:
        return operations(client(), noun).share(name, version, **registry)

    every = (
        name_option,
        click.option("-v", "--version", required=True),
        click.option("--registry-name", required=True, help="The registry."),
        click.option("--share-with-name", help="Name there; default: the same."),
        click.option("--share-with-version", help="Version there; default: the same."),
        *options,
    )
    verb(group, "share", help=help or "Make the same version in a registry, for every workspace.")(with_options(share, every))


def _archive(group: click.Group, noun: Noun, options: Options, help: str) -> None:
    def archive(name: str, version: str | None, label: str | None) -> None:
        operations(client(), noun).archive(name, version, label)

    every = (name_option, version_option, label_option, *options)
    verb(group, "archive", help=help or "Hide from lists.")(with_options(archive, every))


def _restore(group: click.Group, noun: Noun, options: Options, help: str) -> None:
    def restore(name: str, version: str | None, label: str | None) -> None:
        operations(client(), noun).restore(name, version, label)

    every = (name_option, version_option, label_option, *options)
    verb(group, "restore", help=help or "Bring back what was archived.")(with_options(restore, every))


_OF_NAMES = {"create": _create, "show": _show, "list": _list, "update": _update, "delete": _delete}
_OF_VERSIONS = {
    "create": _create, "show": _show_version, "list": _list_versions, "update": _update_version, "share": _share, "archive": _archive,
    "restore": _restore,
}  # fmt: skip

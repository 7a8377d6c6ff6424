"""The options that every command takes, as az does, and the client that they configure."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from .output import FORMS, Drawing, Summary, show

if TYPE_CHECKING:
    from ..sdk.client import MLClient
    from ..spec.nouns import Noun

_IGNORED = ("--resource-group", "-g"), ("--subscription",), ("--change-reference",)
_FLAGS = ("--only-show-errors",), ("--debug",), ("--verbose",), ("--acquire-policy-token",), ("--no-wait",), ("--skip-validation",)


class Verb(click.Command):
    """A command with az's global options. What it returns is printed in the asked form."""

    def __init__(
        self, *args: Any, columns: tuple[str, ...] = (), draw: Drawing | None = None, summary: Summary | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.columns, self.draw, self.summary = columns, draw, summary
        self.own = {parameter.name for parameter in self.params}
        own = {option for parameter in self.params for option in parameter.opts}
        extra: list[click.Parameter] = [
            click.Option(["-o", "--output"], type=click.Choice(FORMS), help="How to print: a table on a terminal, else JSON."),
            click.Option(["--query"], help="JMESPath over the result."),
            click.Option(["-w", "--workspace-name"], help="Workspace; default: the profile's."),
            click.Option(["--registry-name"], help="A registry, instead of a workspace."),
        ]
        extra += [click.Option(list(names), hidden=True) for names in _IGNORED]
        extra += [click.Option(list(names), is_flag=True, hidden=True) for names in _FLAGS]
        self.params += [parameter for parameter in extra if not own.intersection(parameter.opts)]

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """As az: a long option may be shortened to any beginning that only one option has, such as `--endpoint`."""
        known = {option for parameter in self.params for option in parameter.opts if option.startswith("--")} | {"--help"}
        expanded = []
        for index, word in enumerate(args):
            if word == "--":
                expanded += args[index:]
                break
            name, equals, value = word.partition("=")
            if name.startswith("--") and name not in known:
                meant = [option for option in known if option.startswith(name)]
                word = meant[0] + equals + value if len(meant) == 1 else word
            expanded.append(word)
        return super().parse_args(context, expanded)

    def invoke(self, context: click.Context) -> Any:
        values = context.params
        form, query = values.pop("output", None), values.pop("query", None)
        context.meta["modelyard.form"], context.meta["modelyard.query"] = form, query
        workspace, registry = values.pop("workspace_name", None), None if "registry_name" in self.own else values.pop("registry_name", None)
        context.meta["modelyard.workspace"] = registry or workspace
        own = self.own
        context.meta["modelyard.no_wait"] = values.get("no_wait", False)
        for name in list(values):
            if name not in own:
                values.pop(name)
        result = super().invoke(context)
        if result is None or isinstance(result, int):
            return result
        show(result, form, query, context.meta.get("modelyard.columns", self.columns), self.draw, self.summary)
        return context.meta.get("modelyard.exit_code", 0)


def verb(group: click.Group, name: str, *, columns: tuple[str, ...] = (), **kwargs: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """Register a function as `yard NOUN name`."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        command = click.command(name, cls=Verb, columns=columns, **kwargs)(function)
        group.add_command(command)
        return command

    return decorate


def noun_group(noun: Noun) -> click.Group:
    return group(noun.command, noun.about)


class Verbs(click.Group):
    """The verbs of a noun. One that only az has is refused by name, and not as if it were misspelt."""

    def resolve_command(self, context: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(context, args)
        except click.UsageError as error:
            from ..core.names import nearest
            from .absent import VERBS

            said = f"there is no command {args[0]!r}{nearest(args[0], self.commands)}"
            if args[0] in VERBS.get(str(self.name), ()):
                said = f"`{self.name} {args[0]}` is a command of az ml that this version of modelyard does not have"
            raise click.UsageError(said, context) from error


def group(name: str, help: str) -> click.Group:
    return Verbs(name, help=help, context_settings={"help_option_names": ["-h", "--help"]})


def client(*, as_documents: bool = True, **options: Any) -> MLClient:
    """A client whose answers are documents, for a command that reads no more of them than it prints; else they are specs."""
    from ..sdk.client import MLClient

    return MLClient(workspace_name=click.get_current_context().meta.get("modelyard.workspace"), as_documents=as_documents, **options)


def client_of_yard() -> MLClient:
    """Of nouns that are in no workspace. One that is named all the same has to be there: raises NotFound."""
    ml_client = client()
    if click.get_current_context().meta.get("modelyard.workspace"):
        ml_client.workspaces.get()
    return ml_client


@contextmanager
def uploading_client(*, of_bytes: bool = True) -> Iterator[MLClient]:
    """A client whose uploads and downloads show how far they are."""
    from .progress import transfers

    with transfers(of_bytes=of_bytes) as progress:
        yield client(progress=progress)


def printed_form() -> str | None:
    """What `-o` asks for; None without it."""
    form: str | None = click.get_current_context().meta.get("modelyard.form")
    return form


def differences(rows: Any) -> Iterator[str]:
    """How comparisons are drawn."""
    from .summary import differences

    return differences(rows)


def show_columns(*names: str) -> None:
    """The columns of what this call prints as a table, instead of those of its command."""
    click.get_current_context().meta["modelyard.columns"] = names


def exit_with(code: int) -> None:
    """What the command ends with after its result was printed."""
    click.get_current_context().meta["modelyard.exit_code"] = code


def queried() -> bool:
    return bool(click.get_current_context().meta.get("modelyard.query"))


def no_wait() -> bool:
    return bool(click.get_current_context().meta.get("modelyard.no_wait"))


name_option = click.option("-n", "--name", required=True, help="Name.")
file_option = click.option("-f", "--file", "file", required=True, type=click.Path(dir_okay=False), help="YAML file.")


def yes_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--yes`: without it, deletion asks on a terminal and refuses elsewhere."""

    @click.option("-y", "--yes", is_flag=True, help="Do not ask.")
    @functools.wraps(function)
    def wrapped(*args: Any, yes: bool, **kwargs: Any) -> Any:
        if not yes:
            if not sys.stdin.isatty():
                raise click.UsageError(f"{click.get_current_context().command_path} asks before it deletes; without a terminal, pass --yes")
            click.confirm(f"Delete {kwargs.get('name', '')}?", abort=True, err=True)
        return function(*args, **kwargs)

    return wrapped


def overrides(assignments: tuple[str, ...], **fields: Any) -> dict[str, Any]:
    """`--set` assignments and flags that stand for a field, as overrides of the YAML."""
    from ..spec.overrides import override_value

    assigned: dict[str, Any] = {}
    for text in split_assignments(assignments):
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.UsageError(f"--set takes NAME=VALUE, not {text!r}")
        assigned[name] = override_value(value)
    assigned.update({name: value for name, value in fields.items() if value is not None})
    return assigned


def split_assignments(assignments: tuple[str, ...]) -> list[str]:
    return [text for text in assignments if text]


class Multi(click.Option):
    """An option that takes several values, as az does: `--set a=1 b=2`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["multiple"] = True
        super().__init__(*args, **kwargs)

    def add_to_parser(self, parser: Any, context: click.Context) -> None:
        super().add_to_parser(parser, context)
        for option in self.opts:
            known = parser._long_opt.get(option) or parser._short_opt.get(option)
            if known is None:
                continue
            original = known.process

            def process(value: Any, state: Any, original: Any = original) -> None:
                original(value, state)
                while state.rargs and not state.rargs[0].startswith("-"):
                    original(state.rargs.pop(0), state)

            known.process = process


set_option = click.option("--set", "assignments", cls=Multi, metavar="A.B=VALUE", help="Change a field; several may follow.")


def generic_update(function: Callable[..., Any]) -> Callable[..., Any]:
    """az's generic update flags: `--set`, `--add`, `--remove`, `--force-string`, collected as a dict of changes."""

    @click.option("--force-string", is_flag=True, help="Take values of --set as text.")
    @click.option("--remove", "removed", cls=Multi, metavar="A.B", help="Remove a key.")
    @click.option("--add", "added", cls=Multi, metavar="A.B=VALUE", help="Add to a list or mapping.")
    @set_option
    @functools.wraps(function)
    def wrapped(*args: Any, assignments: Any, added: Any, removed: Any, force_string: bool, **kwargs: Any) -> Any:
        return function(*args, change=lambda document: _changed(document, assignments, added, removed, force_string), **kwargs)

    return wrapped


def _changed(document: dict[str, Any], assignments: Any, added: Any, removed: Any, as_text: bool) -> dict[str, Any]:
    import copy

    from ..spec.overrides import assign, override_value, sent

    new = copy.deepcopy(document)
    for text in (*split_assignments(assignments), *split_assignments(added)):
        name, equals, value = text.partition("=")
        if not equals:
            raise click.UsageError(f"{text!r} is not NAME=VALUE")
        assign(new, name, sent(override_value(value, as_text)))
    for name in removed:
        *parents, last = name.split(".")
        current: Any = new
        for part in parents:
            current = current.get(part, {}) if isinstance(current, dict) else {}
        if not isinstance(current, dict) or last not in current:
            raise click.UsageError(f"--remove {name}: there is no such key")
        del current[last]
    return {key: value for key, value in new.items() if document.get(key) != value} | {
        key: {} for key in document if key not in new and isinstance(document[key], dict)
    }

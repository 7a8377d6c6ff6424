"""The tree of commands. Nouns are imported when they are used, so that `yard --help` answers at once."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from types import ModuleType
from typing import Any

import click

from .. import __version__
from ..spec.nouns import NOT_HERE, NOUNS, Noun

YARD = {
    # name → (module:attribute, summary). The summaries stand here so that help imports no command.
    "up": ("server:up", "Start the yard in the background."),
    "status": ("server:status", "Show whether the yard runs, and where."),
    "logs": ("server:logs", "Print the log of the server."),
    "down": ("server:down", "Stop the yard; jobs and endpoints go on unless --all."),
    "env": ("shell:env", "Print the exports that a shell or a client needs."),
    "login": ("shell:login", "Remember a yard and a token for this user."),
    "doctor": ("maintenance:doctor", "Name what is wrong with this machine, and how it is mended."),
    "backup": ("maintenance:backup", "Copy the whole yard into one file."),
    "restore": ("maintenance:restore", "Make a yard of a backup."),
    "key": ("maintenance:key", "Rotate the keys of the yard."),
    "fsck": ("maintenance:fsck", "Check the database and the stored content."),
    "gc": ("maintenance:gc", "Remove content that nothing refers to any more."),
    "import": ("imports:import_", "Take over what another tracking system holds."),
    "schema": ("schema:schema", "Print the JSON Schema of a noun's YAML."),
    "completion": ("shell:completion", "Print the completion script of a shell."),
}
AZ = {
    "account": ("az_compat:account", "Accepted for scripts written for az."),
    "group": ("az_compat:group", "Accepted for scripts written for az."),
    "extension": ("az_compat:extension", "Accepted for scripts written for az."),
    "configure": ("az_compat:configure", "Set defaults, such as workspace=NAME."),
}


def sections() -> dict[str, dict[str, str]]:
    """Title → command → summary, in the order of `yard --help`."""
    return {
        "The yard": {name: summary for name, (_, summary) in YARD.items()},
        "Machine learning": {noun.command: noun.summary for noun in NOUNS.values() if not noun.access},
        "Access": {noun.command: noun.summary for noun in NOUNS.values() if noun.access},
        "az neighbours": {name: summary for name, (_, summary) in AZ.items()},
    }


def command_of(name: str) -> click.Command | None:
    """The command of this name, imported now: of a noun from its file, or where it has none the standard ones."""
    if name in YARD or name in AZ:
        module, _, attribute = {**YARD, **AZ}[name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(f"modelyard.cli.{module}"), attribute)
        return command
    noun = NOUNS.get(name.replace("-", "_")) if "_" not in name else None
    return group_of(noun) if noun is not None else None


def group_of(noun: Noun) -> click.Group:
    if importlib.util.find_spec(f"modelyard.cli.nouns.{noun.name}") is None:
        from .standard import standard

        return standard(noun)
    group: click.Group = importlib.import_module(f"modelyard.cli.nouns.{noun.name}").group
    return group


class Tree(click.Group):
    def list_commands(self, context: click.Context) -> list[str]:
        return [name for commands in sections().values() for name in commands]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name == "ml":
            return Tree(name="ml", help="As in az: `yard ml NOUN VERB` is `yard NOUN VERB`.")
        return command_of(name)

    def resolve_command(self, context: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(context, args)
        except click.UsageError as error:
            from ..core.names import nearest

            said = f"there is no command {args[0]!r}{nearest(args[0], self.list_commands(context))}"
            if args[0].replace("-", "_") in NOT_HERE:
                said = f"`{args[0]}` is a noun of az ml that this version of modelyard does not have"
            raise click.UsageError(said, context) from error

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in sections().items():
            with formatter.section(title):
                formatter.write_dl(list(commands.items()))


@click.group(cls=Tree, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="yard")
def yard() -> None:
    """modelyard: the whole machine-learning lifecycle on your own machines, with the commands of `az ml`."""


def main(arguments: list[str] | None = None) -> None:
    _without_plugins()
    sys.exit(run(arguments))


def _without_plugins() -> None:
    """pydantic asks every installed distribution whether it has a plugin for it: a tenth of the time of a command that reads a file."""
    loader = ModuleType("pydantic.plugin._loader")
    loader.get_plugins = lambda: ()  # type: ignore[attr-defined]
    sys.modules[loader.__name__] = loader


def run(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code: 0 ok, 1 failed, 2 usage, 3 not found, 4 not allowed, 5 conflict, 6 unreachable, 130 interrupted."""
    try:
        outcome: Any = yard.main(arguments, prog_name="yard", standalone_mode=False)
        return outcome if isinstance(outcome, int) else 0
    except click.exceptions.Abort:
        return 130
    except KeyboardInterrupt:
        return 130
    except click.ClickException as error:
        error.show(sys.stderr)
        return 2
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123
        return 0
    except Exception as error:
        from ..core.errors import YardError, exit_code
        from ..core.terminal import harmless

        if not isinstance(error, YardError):
            if os.environ.get("YARD_DEBUG") or "--debug" in sys.argv:
                raise
            print(f"error: {type(error).__name__}: {harmless(str(error))}", file=sys.stderr)  # noqa: T201
            print("This is a fault of modelyard; --debug shows where it happened.", file=sys.stderr)  # noqa: T201
            return 1
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return exit_code(error)

"""The tree of commands. Nouns are imported when they are used, so that `yard --help` answers at once."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

from .. import __version__

NOUNS: dict[str, tuple[str, str]] = {
    # name → (module:attribute, summary). The summaries stand here so that help imports nothing.
    "up": ("life:up", "Start the yard in the background."),
    "status": ("life:status", "Show whether the yard runs, and where."),
    "down": ("life:down", "Stop the yard; jobs and endpoints go on unless --all."),
    "env": ("life:env", "Print the exports that a shell or a client needs."),
    "login": ("life:login", "Remember a yard and a token for this user."),
    "doctor": ("life:doctor", "Look for what could go wrong on this machine."),
    "backup": ("life:backup", "Copy the whole yard into one file."),
    "restore": ("life:restore", "Make a yard of a backup."),
    "fsck": ("life:fsck", "Check the database and the stored content."),
    "gc": ("life:gc", "Remove content that nothing refers to any more."),
    "completion": ("life:completion", "Print the completion script of a shell."),
    "workspace": ("things:workspace", "Workspaces."),
    "registry": ("things:registry", "Registries: assets that workspaces share."),
    "datastore": ("things:datastore", "Datastores."),
    "compute": ("things:compute", "Compute."),
    "data": ("assets:data", "Data assets."),
    "environment": ("assets:environment", "Environments."),
    "component": ("assets:component", "Components."),
    "model": ("assets:model", "Models."),
    "job": ("jobs:job", "Jobs."),
    "schedule": ("schedules:schedule", "Schedules."),
    "run": ("runs:run", "Runs: what was tracked."),
    "experiment": ("runs:experiment", "Experiments."),
    "import": ("imports:import_", "Take over what another tracking system holds."),
    "lineage": ("runs:lineage", "What things were made of."),
    "online-endpoint": ("online:endpoint", "Online endpoints."),
    "online-deployment": ("online:deployment", "Online deployments."),
    "batch-endpoint": ("batch:endpoint", "Batch endpoints: pipelines behind an address."),
    "batch-deployment": ("batch:deployment", "Batch deployments."),
    "user": ("access:user", "Users, their roles and tokens."),
    "token": ("access:token", "API tokens."),
    "audit": ("access:audit", "The audit log."),
    "account": ("neighbours:account", "Accepted for scripts written for az."),
    "group": ("neighbours:group", "Accepted for scripts written for az."),
    "extension": ("neighbours:extension", "Accepted for scripts written for az."),
    "configure": ("neighbours:configure", "Set defaults, such as workspace=NAME."),
}


class Tree(click.Group):
    def list_commands(self, context: click.Context) -> list[str]:
        return list(NOUNS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name == "ml":
            return Tree(name="ml", help="As in az: `yard ml NOUN VERB` is `yard NOUN VERB`.")
        if name not in NOUNS:
            return None
        module, _, attribute = NOUNS[name][0].partition(":")
        found: click.Command = getattr(importlib.import_module(f"modelyard.cli.{module}"), attribute)
        return found

    def resolve_command(self, context: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        from ..core.names import nearest

        try:
            return super().resolve_command(context, args)
        except click.UsageError as error:
            raise click.UsageError(f"there is no command {args[0]!r}{nearest(args[0], NOUNS)}", context) from error

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        groups = {
            "The yard": _between("up", "workspace"),
            "Machine learning": _between("workspace", "user"),
            "Access": _between("user", "account"),
            "az neighbours": _between("account", None),
        }
        for title, names in groups.items():
            with formatter.section(title):
                formatter.write_dl([(name, NOUNS[name][1]) for name in names])


def _between(first: str, end: str | None) -> list[str]:
    names = list(NOUNS)
    return names[names.index(first) : names.index(end) if end else None]


@click.group(cls=Tree, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="yard")
def yard() -> None:
    """modelyard: the whole machine-learning lifecycle on your own machines, with the commands of `az ml`."""


def main(arguments: list[str] | None = None) -> None:
    # httpx imports rich and pygments for a command line of its own, and does without when it cannot: a third of our start.
    sys.modules["httpx._main"] = None  # type: ignore[assignment]
    sys.exit(run(arguments))


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

        if not isinstance(error, YardError):
            if os.environ.get("YARD_DEBUG") or "--debug" in sys.argv:
                raise
            print(f"error: {type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201
            print("This is a fault of modelyard; --debug shows where it happened.", file=sys.stderr)  # noqa: T201
            return 1
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return exit_code(error)

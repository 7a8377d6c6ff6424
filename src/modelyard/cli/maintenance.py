"""Looking after a home: doctor, backup, restore, fsck, gc."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from ..core.errors import Conflict, Invalid
from ..core.home import Home
from .options import Verb, client, exit_with
from .output import say
from .server import app_command, app_environment, running_server


def drawn(checks: Any) -> Iterator[str]:
    from .doctor import drawn

    return drawn(checks)


@click.command("doctor", cls=Verb, draw=drawn, help="Name what is wrong with this machine, and how it is mended.")
def doctor() -> Any:
    """Exits with 1 when something is wrong."""
    from .doctor import examined

    checks = examined(Home.default())
    if all(check["ok"] for check in checks):
        say("everything looks well")
        return checks
    wrong = [str(check["check"]) for check in checks if not check["ok"]]
    exit_with(1)
    say(f"{len(wrong)} of {len(checks)} checks found something wrong: {', '.join(wrong)}")
    return checks


def _offline(name: str, *arguments: str, database_url: str | None = None) -> int:
    """Run a command that needs the home for itself. Raises Conflict while the yard runs."""
    home = Home.default()
    if running_server(home) is not None and (name in ("restore", "gc") or arguments == ("master",)):
        raise Conflict(f"the yard at {home.root} is running", hint="Stop it first: yard down. Then the same command again.")
    return subprocess.call(app_command(name, *arguments), env=app_environment(database_url))


@click.command("backup", help="Copy database, content and keys into one file; the yard may run meanwhile.")
@click.argument("file", type=click.Path(dir_okay=False))
def backup(file: str) -> int:
    return _offline("backup", str(Path(file).absolute()))


@click.command("restore", help="Make a yard of a backup, in an empty YARD_HOME (or --force).")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--force", is_flag=True, help="Replace what is there.")
@click.option("--database-url", help="The empty database that the backup of a yard on PostgreSQL goes into.")
def restore(file: str, force: bool, database_url: str | None) -> int:
    return _offline("restore", str(Path(file).absolute()), *(["--force"] if force else []), database_url=database_url)


@click.command("fsck", help="Check the database, and that everything it refers to is stored.")
@click.option("--read-data", is_flag=True, help="Read every byte and compare digests.")
@click.option("--repair", is_flag=True, help="Read every byte; take what is missing or damaged from --from, and move damaged bytes aside.")
@click.option(
    "--from", "sources", multiple=True, type=click.Path(exists=True), metavar="PATH",
    help="Another copy: a backup, a folder of backups, or the home of another yard. Can be given several times.",
)  # fmt: skip
def fsck(read_data: bool, repair: bool, sources: tuple[str, ...]) -> int:
    if sources and not repair:
        raise Invalid("--from names where --repair takes content from, and --repair is not given")
    flags = [*(["--read-data"] if read_data else []), *(["--repair"] if repair else [])]
    return _offline("fsck", *flags, *(word for source in sources for word in ("--from", str(Path(source).absolute()))))


@click.group("key", help="Keys of the yard.")
def key() -> None: ...


@key.command(
    "rotate",
    help="Put a new key in place of one: master (the yard must be stopped), audit (at any time), signing (of an endpoint; the yard runs).",
)
@click.argument("name", type=click.Choice(["master", "audit", "signing"]))
@click.option(
    "-e", "--endpoint", help="The online endpoint whose signing key is meant; tokens by its old one are accepted until they expire."
)
def rotate(name: str, endpoint: str | None) -> int:
    if (name == "signing") != (endpoint is not None):
        raise Invalid("a signing key is an endpoint's: yard key rotate signing --endpoint NAME")
    if endpoint is None:
        return _offline("rotate-key", name)
    client().online_endpoints.begin_regenerate_keys(endpoint, key_type="signing").result()
    click.echo(f"tokens of {endpoint} are signed with a new key; those by the old one are accepted until they expire", err=True)
    return 0


@click.command("gc", help="Remove stored content that nothing refers to.")
@click.option("--older-than", type=float, default=24.0, show_default=True, metavar="HOURS", help="Keep what is younger: uploads under way.")
@click.option("--deleted-days", type=float, metavar="DAYS", help="Remove what was deleted before; default: the setting deleted_days (30).")
@click.option("--force", is_flag=True, help="Even when that is more than half of all content.")
def gc(older_than: float, deleted_days: float | None, force: bool) -> int:
    days = [] if deleted_days is None else ["--deleted-days", str(deleted_days)]
    return _offline("gc", "--older-than", str(older_than), *days, *(["--force"] if force else []))

"""Looking after a home: doctor, backup, restore, fsck, gc."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from ..core.errors import Conflict, Invalid
from ..core.home import Home
from .options import Verb, client
from .output import say
from .server import alarms, app_command, app_environment, is_ready, running_server


@click.command("doctor", cls=Verb, columns=("check", "ok", "found"), help="Look for what could go wrong on this machine.")
def doctor() -> Any:
    import shutil

    home = Home.default()
    checks: list[dict[str, Any]] = []

    def note(check: str, ok: bool, found: str) -> None:
        checks.append({"check": check, "ok": ok, "found": found})

    note("python", sys.version_info >= (3, 11), sys.version.split()[0])
    record = running_server(home)
    note("server", record is not None, record["url"] if record else f"no yard runs at {home.root}; `yard up` starts it")
    if record is not None:
        note("isolation", record.get("isolation") != "none", str(record.get("isolation")))
        note("ready", is_ready(record["url"]), f"{record['url']}/readyz")
        codes = alarms(record["url"])
        note("alarms", not codes, ", ".join(f"{code}: {count}" for code, count in codes.items()) or "none")
    existing = next(folder for folder in (home.root, *home.root.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    note("disk", free > 2 * 2**30, f"{free / 2**30:.1f} GiB free")
    control = home.control
    if control.exists():
        mode = control.stat().st_mode & 0o777
        note("control folder", mode == 0o700, f"{control} has mode {mode:o}")
    try:
        import uv

        note("uv", True, uv.find_uv_bin())
    except (ImportError, FileNotFoundError) as error:
        note("uv", False, str(error))
    if all(item["ok"] for item in checks):
        say("everything looks well")
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

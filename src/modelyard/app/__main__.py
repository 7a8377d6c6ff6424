"""python -m modelyard.app serve | backup FILE | restore FILE | fsck | gc | rotate-key: what `yard up` and the maintenance commands start."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from ..core.errors import YardError, exit_code
from ..core.home import Home
from ..settings import Settings, load_settings


@click.group()
def app() -> None:
    """The server and its maintenance. `yard` starts it; by itself it takes the same settings."""


def _with_settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """A flag for every setting; one that is not given is None, and left to the other sources."""
    for field in reversed(fields(Settings)):
        flag = "--" + field.name.replace("_", "-")
        if isinstance(field.default, bool):
            command = click.option(flag, is_flag=True, default=None)(command)
        else:
            command = click.option(flag, type=type(field.default), default=None)(command)
    return command


@app.command()
@_with_settings
def serve(**flags: Any) -> int:
    """Run the server in the foreground."""
    import uvloop

    from .serve import serve as run

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    home = Home.default()
    uvloop.run(run(home, load_settings(home, flags)))
    return 0


@app.command()
@click.argument("file", type=click.Path(path_type=Path))
def backup(file: Path) -> int:
    """Copy database, content and keys into one file."""
    from .maintenance.backup import backup as run

    home = Home.default()
    return run(home, load_settings(home, {}), file)


@app.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True)
def restore(file: Path, force: bool) -> int:
    """Make a yard of a backup."""
    from .maintenance.restore import restore as run

    home = Home.default()
    home.root.mkdir(parents=True, exist_ok=True)
    return run(home, file, force, load_settings(home, {}).database_url)


@app.command()
@click.option("--read-data", is_flag=True)
@click.option("--repair", is_flag=True)
@click.option("--from", "sources", multiple=True, type=click.Path(path_type=Path))
def fsck(read_data: bool, repair: bool, sources: tuple[Path, ...]) -> int:
    """Check the database, and that everything it refers to is stored."""
    from .maintenance.fsck import fsck as run

    home = Home.default()
    return run(home, load_settings(home, {}), read_data, repair, sources)


@app.command("rotate-key")
@click.argument("name", type=click.Choice(["master", "audit"]))
def rotate_key(name: str) -> int:
    """Put a new key in place of one."""
    from .maintenance import rotate

    home = Home.default()
    return (rotate.rotate_master if name == "master" else rotate.rotate_audit)(home, load_settings(home, {}))


@app.command()
@click.option("--older-than", type=float, default=24.0)
@click.option("--deleted-days", type=float)
@click.option("--force", is_flag=True)
def gc(older_than: float, deleted_days: float | None, force: bool) -> int:
    """Remove stored content that nothing refers to."""
    from .maintenance.gc import gc as run

    home = Home.default()
    settings = load_settings(home, {})
    return run(home, settings, older_than, settings.deleted_days if deleted_days is None else deleted_days, force)


def main(arguments: list[str] | None = None) -> int:
    try:
        return int(app.main(arguments, prog_name="modelyard.app", standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show(sys.stderr)
        return 2
    except YardError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return exit_code(error)


if __name__ == "__main__":
    sys.exit(main())

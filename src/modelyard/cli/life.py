"""The yard's own life: up, status, down, env, login, doctor, backup, restore, fsck, gc."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click

from ..core.errors import Conflict, Unavailable
from ..core.home import Home
from ..spec.states import JOB
from .options import Verb
from .output import say

START_SECONDS = 30.0
STOP_SECONDS = 15.0


def _server(home: Home) -> dict[str, Any] | None:
    """The running server's record, when its process is there."""
    from ..sdk.connection import local_server

    record = local_server(home)
    return record if record and _alive(int(record["pid"])) and _is_yard(int(record["pid"])) else None


def _is_yard(pid: int) -> bool:
    """Whether the process is a yard's server: after a reboot the pid in the record may be somebody else's."""
    try:
        return b"modelyard.app" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True


def _alive(pid: int) -> bool:
    """Whether the process runs; one that ended but was not reaped by its parent does not."""
    if _is_zombie(pid):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _command(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "modelyard.app", name, *arguments]


def _environment(database_url: str | None) -> dict[str, str]:
    """The address of a database holds a password as often as not, and a command line is for all to read."""
    return {**os.environ, **({"YARD_DATABASE_URL": database_url} if database_url else {})}


@click.command("up", cls=Verb, help="Start the yard in the background, and return when it is ready.")
@click.option("--foreground", is_flag=True, help="Stay, and log to the terminal.")
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port; 0 picks a free one and keeps it.")
@click.option("--router-port", type=int, help="Port of the scoring router; 0 picks a free one.")
@click.option("--database-url", help="postgresql://… instead of SQLite.")
@click.option("--insecure", is_flag=True, help="Listen beyond loopback without TLS.")
def up(foreground: bool, host: str | None, port: int | None, router_port: int | None, database_url: str | None, insecure: bool) -> Any:
    home = Home.default()
    running = _server(home)
    if running is not None:
        say(f"the yard at {home.root} runs already")
        return _shown(running, home)
    if port == 0 and router_port is None:
        router_port = 0
    flags = {"--host": host, "--port": port, "--router-port": router_port}
    arguments = [part for flag, value in flags.items() if value is not None for part in (flag, str(value))]
    arguments += ["--insecure"] if insecure else []
    if foreground:
        return subprocess.call(_command("serve", *arguments), env=_environment(database_url))
    home.prepare()
    with home.server_log.open("ab") as log:
        begin = log.tell()
        process = subprocess.Popen(
            _command("serve", *arguments), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/", close_fds=True,
            env=_environment(database_url),
        )  # fmt: skip
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        record = _server(home)
        if record is not None and record["pid"] == process.pid and _ready(record["url"]):
            for notice in record.get("notices", ()):
                say(f"note: {notice}")
            return _shown(record, home)
        if process.poll() is not None:
            raise Unavailable(
                f"the yard does not start:\n{_log_since(home, begin)}", code="start_failed", hint=f"Its log: {home.server_log}"
            )
        time.sleep(0.03)
    process.terminate()
    raise Unavailable(f"the yard was not ready within {START_SECONDS:.0f} s", code="start_failed", hint=f"Its log: {home.server_log}")


def _log_since(home: Home, begin: int) -> str:
    with home.server_log.open("rb") as log:
        log.seek(begin)
        lines = log.read().decode(errors="replace").strip().splitlines()
    errors = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    return "\n".join("  " + line for line in (lines[errors[-1] :] if errors else lines[-10:]))


def _ready(url: str) -> bool:
    import urllib.error
    import urllib.request

    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _shown(record: dict[str, Any], home: Home, counts: dict[str, Any] | None = None) -> dict[str, Any]:
    shown = {
        "url": record["url"],
        "pid": record["pid"],
        "version": record["version"],
        "home": str(home.root),
        "router_url": record["router_url"],
        "isolation": record.get("isolation"),
    }
    return {**shown, "counts": counts} if counts is not None else shown


@click.command("status", cls=Verb, help="Show whether the yard runs, where, and what it holds.")
def status() -> Any:
    from ..sdk.client import MLClient

    home = Home.default()
    record = _server(home)
    if record is None:
        if os.environ.get("YARD_URL"):
            client = MLClient()
            if not _ready(client.connection.url):
                raise Unavailable(f"the yard at {client.connection.url} cannot be reached", code="unreachable")
            return {"url": client.connection.url, "counts": _counts(client)}
        raise Unavailable(f"no yard runs at {home.root}", code="unreachable", hint="Start it with `yard up`.")
    return _shown(record, home, _counts(MLClient(url=record["url"])))


def _counts(made: Any) -> dict[str, int]:
    active = [job for job in made.jobs.list(max_results=1000) if job.status not in JOB.terminal]
    return {
        "active_jobs": len(active),
        "online_endpoints": len(list(made.online_endpoints.list())),
        "models": len(list(made.models.list())),
        "data": len(list(made.data.list())),
        "environments": len(list(made.environments.list())),
    }


@click.command("down", cls=Verb, help="Stop the yard. Jobs and endpoints go on; --all ends them too.")
@click.option("--all", "all_", is_flag=True, help="End jobs and endpoints as well.")
def down(all_: bool) -> Any:
    home = Home.default()
    record = _server(home)
    if record is not None:
        os.kill(int(record["pid"]), signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while _alive(int(record["pid"])):
            if time.monotonic() > deadline:
                raise Unavailable(f"the yard (process {record['pid']}) does not stop", code="stop_failed")
            time.sleep(0.03)
    if all_:
        _end_supervisor(home)
    if record is None and not all_:
        say(f"no yard runs at {home.root}")
    return {"stopped": record is not None, "jobs_and_endpoints": "ended" if all_ else "go on"}


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return False


def _end_supervisor(home: Home) -> None:
    """Ask the supervisor over its socket to end everything, and wait until it has gone."""
    import socket

    from modelyard_runtime import files

    try:
        token = (home.supervisor / "token").read_text()
        pid = int(json.loads((home.supervisor / "running.json").read_text())["pid"])
    except (OSError, ValueError, KeyError):
        return
    connection = socket.socket(socket.AF_UNIX)
    try:
        with files.socket_address(str(home.supervisor / "sock")) as address:
            connection.connect(address)
        connection.sendall(json.dumps({"token": token, "op": "shutdown", "all": True}).encode() + b"\n")
        connection.recv(4096)
    except OSError:
        return
    finally:
        connection.close()
    deadline = time.monotonic() + 25
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)


@click.command("env", cls=Verb, help='Print exports for a shell: eval "$(yard env)".')
@click.option("--hours", type=float, help="How long the printed token works; 12, or as long as your own.")
@click.option("-w", "--workspace-name", "workspace", help="Make the token for this workspace only.")
def env(hours: float | None, workspace: str | None) -> Any:
    from ..sdk.client import MLClient

    client = MLClient(workspace_name=workspace)
    connection = client.connection
    token = client.tokens.create(workspace=workspace, hours=hours, description="made by `yard env`")["token"]
    tracking = connection.url if connection.workspace == "default" else f"{connection.url}/ws/{connection.workspace}"
    values = {
        "YARD_URL": connection.url,
        "YARD_TOKEN": token,
        "YARD_WORKSPACE": connection.workspace,
        "MLFLOW_TRACKING_URI": tracking,
        "MLFLOW_TRACKING_TOKEN": token,
    }
    form = click.get_current_context().meta.get("modelyard.form")
    if form in (None, "none"):
        for name, value in values.items():
            click.echo(f"export {name}={shlex.quote(str(value))}")
        return 0
    return values


@click.command("login", help="Remember a yard's address and your token. Without options: those of the yard of this machine.")
@click.option("--url")
@click.option("--token", help="Better left out: it is asked for, or read from standard input.")
@click.option("--workspace", help="Workspace to use when none is named.")
@click.option("--service-principal", is_flag=True, hidden=True)
@click.option("-u", "--username", hidden=True)
@click.option("-p", "--password", hidden=True)
@click.option("-t", "--tenant", hidden=True)
@click.option("--identity", is_flag=True, hidden=True)
def login(url: str | None, token: str | None, workspace: str | None, **az: Any) -> int:
    from ..sdk.client import MLClient
    from ..sdk.connection import profile_path, write_profile

    if any(az.values()):
        say("login: the cloud's accounts are not used; the yard's own token is")
        return 0
    if url is not None and token is None:
        token = click.prompt("Token", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline().strip()
    client = MLClient(url=url, token=token, workspace_name=workspace)
    list(client.workspaces.list())
    connection = client.connection
    write_profile({"url": connection.url, "token": connection.token, "workspace": connection.workspace})
    say(f"signed in to {connection.url}; kept in {profile_path()}")
    return 0


@click.command("doctor", cls=Verb, columns=("check", "ok", "found"), help="Look for what could go wrong on this machine.")
def doctor() -> Any:
    import shutil

    home = Home.default()
    checks: list[dict[str, Any]] = []

    def note(check: str, ok: bool, found: str) -> None:
        checks.append({"check": check, "ok": ok, "found": found})

    note("python", sys.version_info >= (3, 11), sys.version.split()[0])
    record = _server(home)
    note("server", record is not None, record["url"] if record else f"no yard runs at {home.root}; `yard up` starts it")
    if record is not None:
        note("isolation", record.get("isolation") != "none", str(record.get("isolation")))
        note("ready", _ready(record["url"]), f"{record['url']}/readyz")
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
    if _server(home) is not None and name in ("restore", "gc"):
        raise Conflict(f"the yard at {home.root} is running", hint=f"Stop it first: yard down. Then yard {name} again.")
    return subprocess.call(_command(name, *arguments), env=_environment(database_url))


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
def fsck(read_data: bool) -> int:
    return _offline("fsck", *(["--read-data"] if read_data else []))


@click.command("gc", help="Remove stored content that nothing refers to.")
@click.option("--older-than", type=float, default=24.0, show_default=True, metavar="HOURS", help="Keep what is younger: uploads under way.")
@click.option("--deleted-days", type=float, metavar="DAYS", help="Remove what was deleted before; default: the setting deleted_days (30).")
@click.option("--force", is_flag=True, help="Even when that is more than half of all content.")
def gc(older_than: float, deleted_days: float | None, force: bool) -> int:
    days = [] if deleted_days is None else ["--deleted-days", str(deleted_days)]
    return _offline("gc", "--older-than", str(older_than), *days, *(["--force"] if force else []))


@click.command("completion", help='Print the completion script: eval "$(yard completion bash)".')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    from click.shell_completion import get_completion_class

    from .main import yard

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(yard, {}, "yard", "_YARD_COMPLETE").source())
    return 0

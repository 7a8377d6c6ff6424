"""The server of this machine: up, status, down."""

from __future__ import annotations

import codecs
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

import click

from ..core.errors import Forbidden, NotFound, Unavailable
from ..core.home import Home
from ..core.terminal import LogText
from ..spec.states import JOB
from .options import Verb
from .output import say, say_log

START_SECONDS = 30.0
STOP_SECONDS = 15.0
END_SECONDS = 30.0
"""More than a runner's ten seconds between asking a command to end and ending it, and the supervisor's fifteen for the runner."""


def running_server(home: Home) -> dict[str, Any] | None:
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


def app_command(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "modelyard.app", name, *arguments]


def app_environment(database_url: str | None) -> dict[str, str]:
    """The address of a database holds a password as often as not, and a command line is for all to read."""
    return {**os.environ, **({"YARD_DATABASE_URL": database_url} if database_url else {})}


@click.command("up", cls=Verb, summary=dict, help="Start the yard in the background, and return when it is ready.")
@click.option("--foreground", is_flag=True, help="Stay, and log to the terminal.")
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port; 0 picks a free one and keeps it.")
@click.option("--router-port", type=int, help="Port of the scoring router; 0 picks a free one.")
@click.option("--database-url", help="postgresql://… instead of SQLite.")
@click.option("--insecure", is_flag=True, help="Listen beyond loopback without TLS.")
def up(foreground: bool, host: str | None, port: int | None, router_port: int | None, database_url: str | None, insecure: bool) -> Any:
    home = Home.default()
    running = running_server(home)
    if running is not None:
        say(f"the yard at {home.root} runs already")
        return _shown(running, home)
    if port == 0 and router_port is None:
        router_port = 0
    flags = {"--host": host, "--port": port, "--router-port": router_port}
    arguments = [part for flag, value in flags.items() if value is not None for part in (flag, str(value))]
    arguments += ["--insecure"] if insecure else []
    if foreground:
        return subprocess.call(app_command("serve", *arguments), env=app_environment(database_url))
    home.prepare()
    with home.server_log.open("ab") as log:
        begin = log.tell()
        process = subprocess.Popen(
            app_command("serve", *arguments), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/", close_fds=True,
            env=app_environment(database_url),
        )  # fmt: skip
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        record = running_server(home)
        if record is not None and record["pid"] == process.pid and is_ready(record["url"]):
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


@click.command("logs", help="Print the log of the yard's server.")
@click.option("-l", "--lines", type=click.IntRange(min=0), default=200, show_default=True, help="How many of the last lines; 0 for all.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is added, until Ctrl-C.")
@click.option("--supervisor", is_flag=True, help="Of the process that keeps jobs and model servers, instead.")
def logs(lines: int, follow: bool, supervisor: bool) -> int:
    home = Home.default()
    path = home.supervisor / "supervisor.log" if supervisor else home.server_log
    try:
        log = path.open("rb")
    except FileNotFoundError:
        raise NotFound(
            f"there is no log at {path}",
            code="no_log",
            hint="The log lies with its server: on the machine, and in the YARD_HOME, of `yard up`.",
        ) from None
    except PermissionError:
        raise Forbidden(f"{path} belongs to another user", hint="Whoever started the yard can read its log.") from None
    with log:
        _to_last(log, lines)
        text = LogText()
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while True:
            while chunk := log.read(1 << 16):
                say_log(decoder.decode(chunk), text)
            if not follow:
                break
            time.sleep(0.2)
        say_log(text.end())
    return 0


def _to_last(log: BinaryIO, lines: int) -> None:
    """Go to where the last `lines` begin; the whole of it for 0."""
    position = log.seek(0, os.SEEK_END)
    ends = -1  # the end of the last line begins none
    while lines and position and ends < lines:
        step = min(position, 1 << 16)
        position -= step
        log.seek(position)
        chunk = log.read(step)
        for index in range(len(chunk) - 1, -1, -1):
            ends += chunk[index] == 10
            if ends == lines:
                log.seek(position + index + 1)
                return
    log.seek(0)


def _log_since(home: Home, begin: int) -> str:
    with home.server_log.open("rb") as log:
        log.seek(begin)
        lines = log.read().decode(errors="replace").strip().splitlines()
    errors = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    return "\n".join("  " + line for line in (lines[errors[-1] :] if errors else lines[-10:]))


def is_ready(url: str) -> bool:
    import urllib.error
    import urllib.request

    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def alarms(url: str) -> dict[str, int]:
    """What the running yard warns of: code → how many."""
    import json
    import urllib.error
    import urllib.request

    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/readyz", timeout=5) as answer:
            return dict(json.load(answer).get("alarms", {}))
    except (OSError, ValueError, urllib.error.URLError):
        return {}


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


@click.command("status", cls=Verb, summary=dict, help="Show whether the yard runs, where, and what it holds.")
def status() -> Any:
    from ..sdk.client import MLClient

    home = Home.default()
    record = running_server(home)
    if record is None:
        if os.environ.get("YARD_URL"):
            client = MLClient(as_documents=True)
            if not is_ready(client.connection.url):
                raise Unavailable(f"the yard at {client.connection.url} cannot be reached", code="unreachable")
            return {"url": client.connection.url, "counts": _counts(client)}
        raise Unavailable(f"no yard runs at {home.root}", code="unreachable", hint="Start it with `yard up`.")
    return _shown(record, home, _counts(MLClient(url=record["url"], as_documents=True)))


def _counts(ml_client: Any) -> dict[str, int]:
    active = [job for job in ml_client.jobs.list(max_results=1000) if job.status not in JOB.terminal]
    return {
        "active_jobs": len(active),
        "online_endpoints": len(list(ml_client.online_endpoints.list())),
        "models": len(list(ml_client.models.list())),
        "data": len(list(ml_client.data.list())),
        "environments": len(list(ml_client.environments.list())),
    }


@click.command("down", cls=Verb, help="Stop the yard. Jobs and endpoints go on; --all ends them too.")
@click.option("--all", "all_", is_flag=True, help="End jobs and endpoints as well.")
def down(all_: bool) -> Any:
    home = Home.default()
    record = running_server(home)
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
    """Ask the supervisor over its socket to end everything, and wait until it has gone. One that was killed is started for it: only a
    supervisor finds what the earlier one left running. Raises Unavailable when something does not end."""
    if not (home.supervisor / "entries").is_dir():
        return  # nothing was ever started
    pid = _ask_supervisor(home, "ping").get("pid")
    if pid is None:
        pid = _started_supervisor(home)
    _ask_supervisor(home, "shutdown", all=True)
    deadline = time.monotonic() + END_SECONDS
    while _alive(int(pid)):
        if time.monotonic() > deadline:
            raise Unavailable(
                f"the jobs and endpoints of the yard at {home.root} do not end (supervisor: process {pid})", code="stop_failed",
                hint=f"See {home.supervisor / 'supervisor.log'}, then try again.",
            )  # fmt: skip
        time.sleep(0.03)


def _ask_supervisor(home: Home, op: str, **fields: Any) -> dict[str, Any]:
    """Its answer; empty when there is none."""
    import socket

    from modelyard_runtime import files

    with socket.socket(socket.AF_UNIX) as connection:
        try:
            token = (home.supervisor / "token").read_text()
            with files.socket_address(str(home.supervisor / "sock")) as address:
                connection.connect(address)
            connection.settimeout(5)
            connection.sendall(json.dumps({"token": token, "op": op, **fields}).encode() + b"\n")
            return dict(json.loads(connection.makefile().readline()))
        except (OSError, ValueError):
            return {}


def _started_supervisor(home: Home) -> int:
    """The pid of a new supervisor, which has adopted what the earlier one left."""
    from modelyard_runtime import files

    command = [sys.executable, "-I", files.RUNTIME, "supervisor", str(home.supervisor)]
    with (home.supervisor / "supervisor.log").open("ab") as log:
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/")
    deadline = time.monotonic() + START_SECONDS
    while "pid" not in (answer := _ask_supervisor(home, "ping")):
        if time.monotonic() > deadline:
            raise Unavailable(
                f"what runs of the yard at {home.root} cannot be ended: no supervisor starts", code="stop_failed",
                hint=f"Its log: {home.supervisor / 'supervisor.log'}",
            )  # fmt: skip
        time.sleep(0.03)
    return int(answer["pid"])

"""Local endpoints: a yard of its own beside this machine's, started when it is needed and stopped with its last endpoint.

It is a yard like any other, in the home's folder with `-local` at its end: what works there works the same way deployed. Its endpoints
answer without a key, and their only deployment without traffic, as local endpoints in Azure. The environments that it builds are those
of the yard beside it: built once for both.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from ..core.errors import Unavailable
from ..core.home import Home
from .connection import Connection, local_environments, local_server

SUFFIX = "-local"


def start() -> Home:
    """The home of the local yard, which runs from now on. Raises Unavailable with the reason."""
    home, beside = _homes()
    settings = {"YARD_LOCAL_ENDPOINTS": "true", "YARD_ENVIRONMENTS": str(local_environments(beside))}
    done = _yard(home, {**settings, **os.environ}, "up", "--port", "0")
    if done.returncode != 0:
        raise Unavailable(f"the local yard at {home.root} does not start: {done.stderr.strip()[-500:]}", code="local_yard_failed")
    return home


def connection() -> Connection:
    """To the local yard, which is started if it does not run."""
    home = start()
    record = local_server(home) or {}
    return Connection(str(record.get("url")), home.admin_token.read_text().strip(), "default")


def stop() -> None:
    _yard(_homes()[0], os.environ, "down", "--all")


def runs() -> bool:
    return local_server(_homes()[0]) is not None


def is_at(connection: Connection) -> bool:
    """Whether a connection leads to the local yard."""
    return connection.url == (local_server(_homes()[0]) or {}).get("url")


def is_here() -> bool:
    """Whether this process works in the local yard."""
    return Home.default().root.name.endswith(SUFFIX)


def _homes() -> tuple[Home, Home]:
    """(of the local yard, of the one beside it)"""
    root = Home.default().root
    name = root.name.removesuffix(SUFFIX)
    return Home(root.with_name(name + SUFFIX)), Home(root.with_name(name))


def _yard(home: Home, environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).parent / "yard"
    variables = {name: value for name, value in environment.items() if name not in ("YARD_URL", "YARD_TOKEN", "YARD_WORKSPACE")}
    return subprocess.run(
        [str(program), *arguments, "-o", "none"], capture_output=True, text=True, env={**variables, "YARD_HOME": str(home.root)}
    )

"""`--local`: a yard of its own beside this machine's, started when it is needed and stopped with its last endpoint.

It is a yard like any other, in the home's folder with `-local` at its end: what works there works the same way deployed. The
environments that it builds are those of the yard beside it: built once for both.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ..core.errors import Unavailable
from ..core.home import Home
from .output import say

SUFFIX = "-local"


def enter() -> None:
    """Everything that this command does from here on, it does in the local yard."""
    from ..sdk.connection import local_environments

    home = Home.default().root
    beside = Home(home.with_name(home.name.removesuffix(SUFFIX)))
    home = home.with_name(home.name.removesuffix(SUFFIX) + SUFFIX)
    os.environ.setdefault("YARD_ENVIRONMENTS", str(local_environments(beside)))
    for name in ("YARD_URL", "YARD_TOKEN", "YARD_WORKSPACE"):
        os.environ.pop(name, None)
    os.environ["YARD_HOME"] = str(home)
    done = _yard("up", "--port", "0")
    if done.returncode != 0:
        raise Unavailable(f"the local yard at {home} does not start: {done.stderr.strip()[-500:]}", code="local_yard_failed")


def leave() -> None:
    """Stop the local yard, when this command is in it."""
    home = Home.default().root
    if home.name.endswith(SUFFIX):
        _yard("down", "--all")
        say("the local yard has no endpoint left and is stopped")


def _yard(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).parent / "yard"
    return subprocess.run([str(program), *arguments, "-o", "none"], capture_output=True, text=True)

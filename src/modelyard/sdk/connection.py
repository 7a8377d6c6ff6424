"""Where the yard is and who asks: arguments > environment > profile (`yard login`) > the yard of this machine's home."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import Unauthenticated, Unavailable
from ..core.home import Home


@dataclass(frozen=True)
class Connection:
    url: str
    token: str
    workspace: str


def profile_path() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "modelyard" / "profile.json"


def read_profile() -> dict[str, Any]:
    try:
        document = json.loads(profile_path().read_text())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def write_profile(changes: dict[str, Any]) -> None:
    """Merge into the profile, which only its owner can read."""
    from modelyard_runtime.files import write_whole

    path = profile_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    merged = {key: value for key, value in {**read_profile(), **changes}.items() if value is not None}
    write_whole(path, json.dumps(merged, indent=2), 0o600, durable=True)


def local_server(home: Home) -> dict[str, Any] | None:
    """What the server of this machine's home wrote about itself, when there is one."""
    try:
        document = json.loads(home.server_record.read_text())
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def local_environments(home: Home) -> Path:
    """The folder of built environments of this machine's yard."""
    return Path((local_server(home) or {}).get("environments", home.envs))


def connect(url: str | None = None, token: str | None = None, workspace: str | None = None) -> Connection:
    """Raises Unavailable when no yard is known, Unauthenticated when no token is."""
    profile = read_profile()
    home = Home.default()
    local = local_server(home)
    own_home = bool(os.environ.get("YARD_HOME"))
    chosen = url or os.environ.get("YARD_URL")
    if not chosen:
        known = profile.get("url")
        chosen = (local or {}).get("url") if own_home or not known else known
    if not chosen:
        raise Unavailable("no yard is running here", code="unreachable", hint="Start one with `yard up`, or set YARD_URL and YARD_TOKEN.")
    chosen = chosen.rstrip("/")
    token = token or os.environ.get("YARD_TOKEN")
    if not token and profile.get("url") == chosen:
        token = profile.get("token")
    if not token and local is not None and local.get("url") == chosen:
        try:
            token = home.admin_token.read_text().strip()
        except OSError:
            token = None
    if not token:
        raise Unauthenticated(
            f"there is no token for the yard at {chosen}", code="missing_token", hint="Run `yard login`, or set YARD_TOKEN."
        )
    return Connection(chosen, token, workspace or os.environ.get("YARD_WORKSPACE") or profile.get("workspace") or "default")

"""Every setting of a yard's server. Order: command-line flag, environment (`YARD_<NAME>`), `server.toml` in the home, what the
home remembers of its last start (its ports), default."""

from __future__ import annotations

import json
import os
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from .core.errors import Invalid
from .core.home import Home
from .core.names import nearest

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Addresses that only this machine reaches, and the names of them that a Host header may always have."""


@dataclass(frozen=True)
class Settings:
    host: str = "127.0.0.1"
    """Address to listen on. Beyond loopback needs TLS in front and `insecure`."""
    port: int = 7780
    """Port of the server; 0 picks a free one. Kept across restarts."""
    router_port: int = 7781
    """Port of the scoring router; 0 picks a free one. Kept across restarts."""
    database_url: str = ""
    """`postgresql://…`; empty means the one the home began with, SQLite unless another was named then."""
    insecure: bool = False
    """Allow listening beyond loopback without TLS."""
    executor: str = "local"
    """What jobs are carried out by; `local` runs them on this machine."""
    cpu_slots: int = 0
    """CPUs that jobs may use together; 0 means all of this machine's."""
    max_upload_bytes: int = 50 * 2**30
    """Largest single file accepted."""
    workspace_quota_bytes: int = 0
    """What a workspace may store in bytes, equal content counted once, unless it has a quota of its own; 0 for any amount."""
    job_log_bytes: int = 256 * 2**20
    """What is kept of one job's log; the rest is counted and dropped."""
    system_metrics_s: int = 10
    """Seconds between samples of the CPU, memory, disk, network and GPUs a job uses, logged as `system/…`; 0 for none."""
    warm_interpreters: int = 4
    """Most Python interpreters kept loaded, so that `python script.py` of a kind that comes again is forked instead of started; 0 for none."""
    deleted_days: int = 30
    """How long deleted runs and experiments can be restored; `yard gc` removes what was deleted before that."""
    isolation: str = "auto"
    """`auto` uses separate users and Landlock where they work, `landlock` the latter alone; `off` gives jobs the yard's own rights."""
    audit_anchor: str = ""
    """Where anchors of the audit log go besides `control/audit`: `syslog`, or a command as a JSON list of its words, which reads a line of JSON."""
    audit_anchor_s: int = 3600
    """Seconds between two anchors of the audit log, when something was recorded meanwhile."""
    openlineage: str = ""
    """Where OpenLineage events of jobs go as they start and end: a file that lines are added to, or an address such as `http://marquez:5000/api/v1/lineage`."""
    openlineage_api_key: str = ""
    """Sent to that address as a bearer token."""
    allowed_hosts: str = ""
    """Further Host header values to accept, separated by commas; loopback names are always accepted."""
    oidc_issuer: str = ""
    """OpenID Connect issuer whose tokens open online endpoints of `auth_mode: aad_token`, such as `https://login.example.com/tenant/v2.0`."""
    oidc_audience: str = "https://ml.azure.com"
    """For whom those tokens must have been issued."""
    environments: str = ""
    """Folder of built environments, which yards of one machine may share; empty means `envs` in the home."""
    package_cache: str = ""
    """Folder for downloaded packages, which a user's yards share; empty means `modelyard` in the user's cache folder (`UV_CACHE_DIR`, `XDG_CACHE_HOME`)."""
    allow_addresses: str = ""
    """Private addresses that the yard may connect to for its users: `HOST[:PORT][=PURPOSE]`, separated by commas; a host is a name, an address or a network, a purpose `environments` or `data`."""
    local_endpoints: bool = False
    """Online endpoints answer without a key, and their only deployment without traffic; for a yard that only this machine reaches."""
    python: str = ""
    """Folders with more Python interpreters for environments, separated by `:`."""
    fetch_pythons: bool = False
    """Fetch a Python that an environment asks for and this machine lacks, with uv, from where it gets them or UV_PYTHON_INSTALL_MIRROR says;
    otherwise the nearest one takes its place, with a note."""

    def environments_of(self, home: Home) -> Path:
        return Path(self.environments).expanduser().resolve() if self.environments else home.envs


def load_settings(home: Home, flags: dict[str, Any]) -> Settings:
    """Merge the sources. Raises Invalid for an unknown name or a value of the wrong type in `server.toml`."""
    known = {field.name: type(field.default) for field in fields(Settings)}
    values: dict[str, Any] = _remembered(home)
    file = home.root / "server.toml"
    if file.exists():
        try:
            written = tomllib.loads(file.read_text())
        except tomllib.TOMLDecodeError as error:
            raise Invalid(f"{file}: {error}") from None
        for name, value in written.items():
            if name not in known:
                raise Invalid(f"{file}: unknown setting {name!r}{nearest(name, known)}")
            values[name] = value
    for name in known:
        text = os.environ.get(f"YARD_{name.upper()}")
        if text is not None and text != "":
            values[name] = text
    values.update({name: value for name, value in flags.items() if value is not None})
    return Settings(**{name: _convert(name, value, known[name]) for name, value in values.items()})


def _remembered(home: Home) -> dict[str, Any]:
    try:
        ports = json.loads(home.ports.read_text())
    except (OSError, ValueError):
        return {}
    return {setting: ports[name] for name, setting in (("server", "port"), ("router", "router_port")) if name in ports}


def _convert(name: str, value: Any, kind: type) -> Any:
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    try:
        if kind is bool:
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[str(value).lower()]
        return kind(value)
    except (KeyError, ValueError):
        raise Invalid(f"setting {name}: {value!r} is not a valid {kind.__name__}") from None

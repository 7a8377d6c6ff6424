"""The git state of a code folder: stored with a job, so that the commit it ran from can be checked out again."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

MAX_DIFF = 2**20
"""Bytes of uncommitted changes that are stored with a job; a larger diff is left out, and the property says so."""


def git_state(folder: Path) -> tuple[dict[str, str], bytes]:
    """Azure's `azureml.git.*` properties and the uncommitted changes as a patch; nothing outside a repository."""
    folder = folder if folder.is_dir() else folder.parent
    if shutil.which("git") is None:
        return {}, b""
    commit = _git(folder, "rev-parse", "HEAD").decode().strip()
    if not commit:
        return {}, b""
    dirty = bool(_git(folder, "status", "--porcelain", "--", "."))
    state = {
        "azureml.git.commit": commit,
        "azureml.git.branch": _git(folder, "rev-parse", "--abbrev-ref", "HEAD").decode().strip(),
        "azureml.git.repository_uri": _without_credentials(_git(folder, "remote", "get-url", "origin").decode().strip()),
        "azureml.git.dirty": str(dirty),
    }
    changes = _git(folder, "diff", "--binary", "HEAD", "--", ".") if dirty else b""
    if len(changes) > MAX_DIFF:
        state["azureml.git.diff"] = f"left out: {len(changes):,} bytes"
        changes = b""
    return {name: value for name, value in state.items() if value}, changes


def _git(folder: Path, *arguments: str) -> bytes:
    # Settings of the repository must not run programs of its choice (fsmonitor, external diff) for a mere look.
    safe = ("-c", "core.fsmonitor=false", "-c", "diff.external=")
    options = ("--no-ext-diff", "--no-textconv") if arguments[0] == "diff" else ()
    try:
        done = subprocess.run(
            ["git", *safe, "-C", str(folder), arguments[0], *options, *arguments[1:]], capture_output=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return b""
    return done.stdout if done.returncode == 0 else b""


def _without_credentials(address: str) -> str:
    return re.sub(r"(?<=://)[^/@]+@", "", address)

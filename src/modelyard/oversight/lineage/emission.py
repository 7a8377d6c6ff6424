"""Where OpenLineage events go when an operator asked for them: lines of a file, or an address that takes them by POST (the HTTP transport of the
specification, which Marquez, DataHub and others speak)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson

from ...core import trees
from ...core.errors import Invalid, Unavailable

TIMEOUT_S = 10.0
_MAY_HELP = (401, 403, 404, 408, 425, 429)
"""Answers to a POST that another time, or another setting, changes; any other 4xx refuses this one event."""


@dataclass(frozen=True)
class Target:
    """One of a file and an address."""

    file: Path | None = None
    address: str = ""
    api_key: str = ""


class Refused(Exception):
    """The address does not take an event as it is."""


def read_setting(text: str, api_key: str) -> Target | None:
    """The target that the setting `openlineage` names; None for none. Raises Invalid."""
    if not text:
        return None
    if text.startswith(("http://", "https://")):
        return Target(address=text, api_key=api_key)
    if not text.startswith("/"):
        raise Invalid(f"setting openlineage: {text!r} is neither an http address nor the whole path of a file")
    return Target(file=Path(text))


def append(file: Path, events: list[dict[str, Any]]) -> None:
    """A line for each event, on disk when this returns. Raises Unavailable."""
    lines = b"".join(orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE) for event in events)
    try:
        with trees.Folder(file.parent) as folder:
            folder.append(file.name, lines, durable=True)
    except OSError as error:
        raise Unavailable(f"{file} cannot be written: {error.strerror or error}", code="openlineage_failed", transient=True) from None


async def post(client: httpx.AsyncClient, target: Target, event: dict[str, Any]) -> None:
    """Raises Unavailable when it may go better later, Refused when it will not."""
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {target.api_key}"} if target.api_key else {})}
    try:
        response = await client.post(target.address, content=orjson.dumps(event), headers=headers)
    except httpx.HTTPError as error:
        raise _failed(target, str(error) or type(error).__name__) from None
    if response.is_client_error and response.status_code not in _MAY_HELP:
        raise Refused(f"{response.status_code} {response.text[:300]}")
    if not response.is_success:
        raise _failed(target, f"it answered {response.status_code}")


def _failed(target: Target, reason: str) -> Unavailable:
    return Unavailable(f"{target.address} does not take events: {reason}", code="openlineage_failed", transient=True)

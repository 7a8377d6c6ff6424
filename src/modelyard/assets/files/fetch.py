"""Data on the web: fetched once the address is known to be no private one.

The host is resolved here, refused when any of its addresses is private, link-local or loopback (unless the operator has
allowed the host), and the connection goes to the address that was checked; each redirect is checked again.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from ...core.errors import Conflict, Invalid, NotFound, Unavailable
from ...engine.yard import Yard
from ...ports.objects import File

if TYPE_CHECKING:
    import httpx

MAX_REDIRECTS = 5


async def fetch(yard: Yard, url: str, expect: str | None = None) -> File:
    """Store what an http(s) address holds. Raises Invalid for an address that is refused, NotFound, Unavailable; Conflict when it is
    another version than `expect`, as `version_at` once gave it."""
    async with _opened("GET", url) as response:
        if expect is not None and _version(response) not in (None, expect):
            raise changed(url)
        blob = await yard.objects.put_stream(response.aiter_bytes(), limit=yard.settings.max_upload_bytes)
        name = urlsplit(str(response.request.url)).path.rstrip("/").rsplit("/", 1)[-1] or "download"
        return File(name, blob.digest, blob.size)


async def version_at(url: str) -> str | None:
    """What a later change of an address shows in: its ETag, else its time of change; None when the server gives neither.

    Raises as `fetch`.
    """
    async with _opened("HEAD", url) as response:
        return _version(response)


def changed(source: object) -> Conflict:
    return Conflict(
        f"what lies at {source} was changed since the asset that names it was made", code="content_changed",
        hint="Make a new version of the asset, or put back what was there.",
    )  # fmt: skip


def _version(response: httpx.Response) -> str | None:
    for name in ("etag", "last-modified"):
        if value := response.headers.get(name):
            return f"{name} {value}"
    return None


@asynccontextmanager
async def _opened(method: str, url: str) -> AsyncIterator[httpx.Response]:
    """The answer of an address, redirects followed and each of them checked."""
    import httpx

    for _ in range(MAX_REDIRECTS):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Invalid(f"{url[:200]} is not an address that is fetched; http and https are", code="invalid_url")
        address = check_host(parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
        shown = f"[{address}]" if ":" in address else address
        port = f":{parts.port}" if parts.port else ""
        target = httpx.URL(url).copy_with(host=address)
        headers = {"Host": parts.hostname + port, "User-Agent": "modelyard"}
        extensions = {"sni_hostname": parts.hostname}
        try:
            async with (
                httpx.AsyncClient(timeout=60, trust_env=False) as client,
                client.stream(method, target, headers=headers, extensions=extensions) as response,
            ):
                if response.is_redirect:
                    url = urljoin(url, response.headers.get("location", ""))
                    continue
                if response.status_code == 404:
                    raise NotFound(f"there is nothing at {url}", code="path_not_found")
                if response.status_code >= 400:
                    raise Unavailable(f"{url} answered {response.status_code}", code="fetch_failed")
                yield response
                return
        except httpx.HTTPError as error:
            raise Unavailable(f"{url} could not be fetched from {shown}: {error}", code="fetch_failed") from None
    raise Invalid(f"{url[:200]} redirects more than {MAX_REDIRECTS} times", code="invalid_url")


def check_host(host: str, port: int) -> str:
    """An address of `host` that may be connected to. Raises Invalid for private ones, NotFound when it has none."""
    allowed = {name.strip() for name in os.environ.get("YARD_FETCH_ALLOWED_HOSTS", "").split(",") if name.strip()}
    try:
        addresses = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError):
        raise NotFound(f"the host {host} has no address", code="host_not_found") from None
    if host not in allowed and any(not ipaddress.ip_address(address.split("%")[0]).is_global for address in addresses):
        raise Invalid(
            f"{host} is a private address, which the yard does not fetch from",
            code="private_address",
            hint="The operator can allow it by name: YARD_FETCH_ALLOWED_HOSTS.",
        )
    return addresses[0]

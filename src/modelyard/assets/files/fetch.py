"""Data on the web: fetched once the address is known to be no private one.

The address guard resolves the host and judges it, the connection goes to the address that was judged, and each redirect is judged again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import unquote, urljoin, urlsplit

from ...core.addresses import AddressGuard, endpoint_of
from ...core.errors import Conflict, Invalid, NotFound, Unavailable
from ...core.names import path_problem
from ...engine.yard import Yard
from ...ports.objects import File

if TYPE_CHECKING:
    import httpx

MAX_REDIRECTS = 5


async def fetch(yard: Yard, url: str, expect: str | None = None) -> File:
    """Store what an http(s) address holds. Raises Invalid for an address that is refused, NotFound, Unavailable; Conflict when it is
    another version than `expect`, as `version_at` once gave it."""
    async with _opened(yard.addresses, "GET", url) as response:
        if expect is not None and _version(response) not in (None, expect):
            raise changed(url)
        blob = await yard.objects.put_stream(response.aiter_bytes(), limit=yard.settings.max_upload_bytes)
        return File(_name_in(str(response.request.url)), blob.digest, blob.size)


def _name_in(url: str) -> str:
    """The last name of an address's path, decoded where that is one name still."""
    name = urlsplit(url).path.rstrip("/").rsplit("/", 1)[-1] or "download"
    decoded = unquote(name)
    return name if "/" in decoded or path_problem(decoded) else decoded


async def version_at(yard: Yard, url: str) -> str | None:
    """What a later change of an address shows in: its ETag, else its time of change; None when the server gives neither.

    Raises as `fetch`.
    """
    async with _opened(yard.addresses, "HEAD", url) as response:
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
async def _opened(guard: AddressGuard, method: str, url: str) -> AsyncIterator[httpx.Response]:
    """The answer of an address, redirects followed and each of them checked."""
    import httpx

    for _ in range(MAX_REDIRECTS):
        address = await asyncio.to_thread(guard.judge, url, "data")
        host, _ = endpoint_of(url)
        try:
            target = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise Invalid(f"{url[:200]} is not an address that is fetched: {error}", code="invalid_url") from None
        headers = {"Host": target.netloc.decode(), "User-Agent": "modelyard"}
        target = target.copy_with(host=address)
        extensions = {"sni_hostname": host}
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
            raise Unavailable(f"{url} could not be fetched from {address}: {error}", code="fetch_failed") from None
    raise Invalid(f"{url[:200]} redirects more than {MAX_REDIRECTS} times", code="invalid_url")

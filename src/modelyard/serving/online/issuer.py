"""The OpenID Connect issuer whose tokens open endpoints of `auth_mode: aad_token`: its public keys, fetched now and then.

Source: OpenID Connect Discovery 1.0, section 4; RFC 7517 (JSON Web Key).
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
from cryptography.hazmat.primitives import serialization

from ...core.errors import Unavailable
from ...engine.yard import Yard
from .replicas import RouterTable

log = logging.getLogger(__name__)
FETCH_S = 10.0


def fetch_keys(issuer: str) -> tuple[str, list[str]]:
    """(how the issuer writes its own name, its signing keys as PEM). Raises Unavailable when they cannot be fetched."""
    try:
        with httpx.Client(timeout=FETCH_S, follow_redirects=False) as client:
            described = _document(client, issuer.rstrip("/") + "/.well-known/openid-configuration")
            name = str(described.get("issuer", ""))
            if name.rstrip("/") != issuer.rstrip("/"):
                raise Unavailable(f"{issuer} describes itself as {name!r}", code="wrong_issuer")
            key_set = _document(client, str(described.get("jwks_uri", "")))
        keys = [_pem(item) for item in key_set.get("keys", []) if item.get("use", "sig") == "sig"]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, TypeError, AttributeError) as error:
        raise Unavailable(f"the keys of {issuer} cannot be had: {error}", code="issuer_unavailable") from None
    return name, sorted(key for key in keys if key)


def _document(client: httpx.Client, url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
        raise ValueError(f"{url!r} is not https")
    answer = client.get(url)
    answer.raise_for_status()
    return dict(answer.json())


def _pem(item: dict[str, Any]) -> str:
    """Empty for a key of a kind that signs no tokens here."""
    try:
        key = jwt.PyJWK.from_dict(item).key
        return str(key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode())
    except (jwt.PyJWTError, AttributeError, ValueError):
        return ""


class IssuerLoop:
    """Keeps the issuer's keys in the router's table. They are on disk as well: an issuer that is away keeps nobody out."""

    name = "issuer"
    topics = ()
    every = 300.0
    exclusive = False

    def __init__(self, yard: Yard) -> None:
        self.yard = yard
        self.table = yard.one(RouterTable)

    async def turn(self) -> None:
        settings = self.yard.settings
        if not settings.oidc_issuer:
            self.every = 86_400.0
            return
        try:
            name, keys = await asyncio.to_thread(fetch_keys, settings.oidc_issuer)
        except Unavailable as error:
            self.every = 10.0
            log.warning("%s", error)
            return
        self.every = 300.0
        source = {"issuer": name, "audience": settings.oidc_audience, "keys": keys}
        if source != self.table.issuer():
            self.table.keep_issuer(source)
            await self.table.push()

"""A vault in memory."""

from __future__ import annotations

import hashlib
import hmac
import secrets

from ...core.errors import Unavailable


class MemoryVault:
    """Implements Vault: what was sealed lies in a dictionary under a random key, which is what the caller is given."""

    def __init__(self) -> None:
        self._sealed: dict[bytes, tuple[bytes, str]] = {}
        self._pepper = secrets.token_bytes(32)

    def seal(self, plain: bytes, bound_to: str) -> bytes:
        key = secrets.token_bytes(16)
        self._sealed[key] = (plain, bound_to)
        return key

    def open(self, sealed: bytes, bound_to: str) -> bytes:
        plain, place = self._sealed.get(sealed, (b"", None))
        if place != bound_to:
            raise Unavailable(f"the secret {bound_to} cannot be opened", code="secret_unreadable")
        return plain

    def digest(self, text: str) -> str:
        return hmac.digest(self._pepper, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hex()

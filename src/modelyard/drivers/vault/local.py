"""Secrets sealed with AES-256-GCM under a master key in a 0600 file (reference `security-and-durability`, section 5)."""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path

from modelyard_runtime.files import write_whole

from ...core.errors import Unavailable

NONCE, TAG = 12, 16
"""Bytes."""


class LocalVault:
    """A sealed value is `nonce ‖ ciphertext ‖ tag`; its owner is bound as additional data."""

    def __init__(self, key_file: Path) -> None:
        self._key = _load_or_make(key_file)
        self._pepper = hmac.digest(self._key, b"token digests", "sha256")

    def seal(self, plain: bytes, bound_to: str) -> bytes:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = os.urandom(NONCE)
        return nonce + AESGCM(self._key).encrypt(nonce, plain, bound_to.encode())

    def open(self, sealed: bytes, bound_to: str) -> bytes:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            if len(sealed) < NONCE + TAG:
                raise InvalidTag
            return AESGCM(self._key).decrypt(sealed[:NONCE], sealed[NONCE:], bound_to.encode())
        except InvalidTag:
            raise Unavailable(
                f"the secret {bound_to} cannot be opened: it was altered, moved, or sealed with another master key",
                code="secret_unreadable",
                hint="Restore control/master.key from the backup that belongs to this database.",
            ) from None

    def digest(self, text: str) -> str:
        return hmac.digest(self._pepper, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hex()


def _load_or_make(path: Path) -> bytes:
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        key = os.urandom(32)
        write_whole(path, key, 0o600, durable=True)
    if len(key) != 32:
        raise Unavailable(f"{path} does not hold a 32-byte key", code="master_key_damaged", hint="Restore it from a backup.")
    return key

"""Secrets sealed with AES-256-GCM under a master key in a 0600 file (reference `security-and-durability`, section 5).

Digests of tokens are keyed by a pepper. It comes from the first master key, and is written beside it when that is changed: tokens stay valid.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path

from modelyard_runtime.files import rename_durably, write_whole

from ...core.errors import Unavailable

NONCE, TAG = 12, 16
"""Bytes."""


class LocalVault:
    """A sealed value is `nonce ‖ ciphertext ‖ tag`; its owner is bound as additional data.

    While the master key is being changed (`MasterKeyRotation`) there are two: values open with either.
    """

    def __init__(self, key_file: Path) -> None:
        key = _load_or_make(key_file)
        self._keys = [key]
        if _next_of(key_file).exists():
            self._keys.append(_read(_next_of(key_file)))
        self._pepper = _pepper(key_file, key)

    def seal(self, plain: bytes, bound_to: str) -> bytes:
        return _seal(self._keys[0], plain, bound_to)

    def open(self, sealed: bytes, bound_to: str) -> bytes:
        for key in self._keys:
            plain = _opened(key, sealed, bound_to)
            if plain is not None:
                return plain
        raise Unavailable(
            f"the secret {bound_to} cannot be opened: it was altered, moved, or sealed with another master key",
            code="secret_unreadable",
            hint="Restore control/master.key from the backup that belongs to this database.",
        )

    def digest(self, text: str) -> str:
        return hmac.digest(self._pepper, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hex()


class MasterKeyRotation:
    """A new master key: values are sealed with it one by one, and it takes the place of the old one when all are.

    Both keys are on the disk until then, so that a kill at any instant leaves every value readable, and the next rotation goes on.
    """

    def __init__(self, key_file: Path) -> None:
        self._file = key_file
        self.resumed = _next_of(key_file).exists()
        old = _read(key_file)
        pepper = _pepper_of(key_file)
        if not pepper.exists():
            write_whole(pepper, _pepper(key_file, old), 0o600, durable=True)
        if not self.resumed:
            write_whole(_next_of(key_file), os.urandom(32), 0o600, durable=True)
        self._new = _read(_next_of(key_file))
        self._vault = LocalVault(key_file)

    def resealed(self, sealed: bytes, bound_to: str) -> bytes | None:
        """The value under the new key; None when it is already. Raises Unavailable for one that neither key opens."""
        if _opened(self._new, sealed, bound_to) is not None:
            return None
        return _seal(self._new, self._vault.open(sealed, bound_to), bound_to)

    def finish(self) -> None:
        """The old key is gone from then on."""
        rename_durably(_next_of(self._file), self._file)


def _next_of(key_file: Path) -> Path:
    return key_file.with_name(key_file.name + ".next")


def _pepper_of(key_file: Path) -> Path:
    return key_file.with_name("token.pepper")


def _pepper(key_file: Path, key: bytes) -> bytes:
    if _pepper_of(key_file).exists():
        return _read(_pepper_of(key_file))
    return hmac.digest(key, b"token digests", "sha256")


def _seal(key: bytes, plain: bytes, bound_to: str) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = os.urandom(NONCE)
    return nonce + AESGCM(key).encrypt(nonce, plain, bound_to.encode())


def _opened(key: bytes, sealed: bytes, bound_to: str) -> bytes | None:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if len(sealed) < NONCE + TAG:
        return None
    try:
        return AESGCM(key).decrypt(sealed[:NONCE], sealed[NONCE:], bound_to.encode())
    except InvalidTag:
        return None


def _load_or_make(path: Path) -> bytes:
    if not path.exists():
        write_whole(path, os.urandom(32), 0o600, durable=True)
    return _read(path)


def _read(path: Path) -> bytes:
    key = path.read_bytes()
    if len(key) != 32:
        raise Unavailable(f"{path} does not hold a 32-byte key", code="master_key_damaged", hint="Restore it from a backup.")
    return key

"""Sealing secrets at rest."""

from __future__ import annotations

from typing import Protocol


class Vault(Protocol):
    """`bound_to` ties a sealed value to its owner (`workspace/name/version`): under another one it does not open."""

    def seal(self, plain: bytes, bound_to: str) -> bytes: ...

    def open(self, sealed: bytes, bound_to: str) -> bytes:
        """Raises Unavailable when the value was altered, moved, or sealed with another master key."""
        ...

    def digest(self, text: str) -> str:
        """A keyed digest of a high-entropy token, for comparing without storing the token."""
        ...

"""Hourly tokens of endpoints: signed with the endpoint's own Ed25519 key, verified by the router with its public half."""

from __future__ import annotations

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

TOKEN_S = 3600


def signing_key() -> str:
    """A new private key as PEM."""
    private_key = Ed25519PrivateKey.generate()
    return private_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()  # fmt: skip


def public_key(private: str) -> str:
    key = serialization.load_pem_private_key(private.encode(), None)
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def signed_token(private: str, audience: str, subject: str, now_s: int, lives_s: int = TOKEN_S) -> str:
    """A JWT (RFC 7519) by EdDSA for one endpoint, `WORKSPACE/NAME`."""
    return jwt.encode({"aud": audience, "sub": subject, "iat": now_s, "exp": now_s + lives_s}, private, algorithm="EdDSA")

"""The guard that every address goes through which somebody else wrote: an environment's index, data on the web."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from modelyard_runtime import addresses
from modelyard_runtime.addresses import Allowed

from .errors import Invalid, NotFound

SCHEMES = {"http": 80, "https": 443}


@dataclass(frozen=True)
class AddressGuard:
    allowed: tuple[Allowed, ...] = ()
    """What the operator has opened, beside all that is public."""

    @classmethod
    def of_setting(cls, text: str) -> AddressGuard:
        """Raises Invalid for an entry that cannot be read."""
        try:
            return cls(tuple(addresses.parse_allowed(text)))
        except ValueError as error:
            raise Invalid(
                f"setting allow_addresses: {error}", hint="Such as `packages.example:443=environments, 10.0.0.0/8:9000=data`."
            ) from None

    def judge(self, url: str, purpose: str, *, private: bool = False) -> str:
        """The address to connect to for a URL. Raises Invalid for one that is refused, NotFound for a host without an address.

        `private`: any network but this machine itself is open.
        """
        host, port = endpoint_of(url)
        try:
            return addresses.judge(host, port, purpose, self.allowed, private=private)[0]
        except addresses.Unresolved as error:
            raise NotFound(str(error), code="host_not_found") from None
        except addresses.Refused as error:
            raise refusal(str(error), f"{host}:{port}={purpose}") from None


def endpoint_of(url: str) -> tuple[str, int]:
    """(host, port) of an http(s) URL. Raises Invalid for anything else."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme not in SCHEMES:
        raise Invalid(f"{url[:200]} is not an address that is fetched; http and https are", code="invalid_url")
    return host, SCHEMES[parts.scheme] if port is None else port


def refusal(reason: str, entry: str) -> Invalid:
    """`entry`: what in the setting would open the address."""
    return Invalid(
        f"{reason}, and the yard connects to no other",
        code="private_address",
        hint=f"Whoever runs the yard can open it with the setting allow_addresses, here `{entry}`.",
    )

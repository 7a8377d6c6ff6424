"""Which addresses are connected to on behalf of somebody else: public ones, and those that the operator has opened.

A host is resolved once, and whoever asked connects to the address that was judged, never to the name again: a name that answers
differently the second time (DNS rebinding) gains nothing. All spellings of an address (`127.1`, `0x7f000001`, `::ffff:127.0.0.1`)
are judged as what they resolve to. Standard library only, for every Python from 3.8.
"""

import encodings.idna  # noqa: F401  # names are encoded by it, and a confined process could not load it any more
import ipaddress
import re
import socket
from typing import Iterator, List, NamedTuple, Sequence, Union

Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
PURPOSES = ("environments", "data")
"""What the yard connects for: packages of environments, and data that an asset or a job's input names."""

_ENTRY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+(/\d+)?\]|[^\[\]:=\s]+)(:(?P<port>\d{1,5}|\*))?(=(?P<purpose>\w+))?", re.ASCII)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_COMPATIBLE = ipaddress.ip_network("::/96")


class Refused(ValueError):
    """An address that is not connected to; the text says which and why."""


class Unresolved(ValueError):
    """A host without an address."""


class Allowed(NamedTuple):
    """What the operator opens: a name, an address or a network; port 0 and the empty purpose stand for any."""

    host: str
    port: int = 0
    purpose: str = ""

    def __str__(self) -> str:
        host = "[%s]" % self.host if ":" in self.host else self.host
        return host + (":%d" % self.port if self.port else "") + ("=%s" % self.purpose if self.purpose else "")


def parse_allowed(text: str) -> List[Allowed]:
    """Entries `HOST[:PORT][=PURPOSE]`, separated by commas or spaces. Raises ValueError with the entry that is none."""
    entries = []
    for word in re.split(r"[\s,]+", text.strip()):
        if not word:
            continue
        match = _ENTRY.fullmatch(word)
        port = match["port"] if match else None
        if (
            match is None
            or (match["purpose"] or PURPOSES[0]) not in PURPOSES
            or int(port if port and port != "*" else "1") not in range(1, 65536)
        ):
            raise ValueError("%r is not HOST[:PORT][=PURPOSE]; a purpose is one of %s" % (word, ", ".join(PURPOSES)))
        host = match["host"].strip("[]").lower().rstrip(".")
        if "/" in host:
            ipaddress.ip_network(host)
        entries.append(Allowed(host, int(port) if port and port != "*" else 0, match["purpose"] or ""))
    return entries


def is_public(text: str) -> bool:
    """Whether an address is one of the public internet's; what an IPv6 address embeds of IPv4 is judged as that."""
    address = ipaddress.ip_address(text.split("%")[0])
    embedded = _embedded(address)
    if embedded is not None:
        return is_public(str(embedded))
    if isinstance(address, ipaddress.IPv6Address) and (address.is_site_local or address.teredo is not None):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def is_of_this_machine(text: str) -> bool:
    """Loopback, link-local (where clouds keep a machine's credentials), multicast, unspecified."""
    address = ipaddress.ip_address(text.split("%")[0])
    address = _embedded(address) or address
    in_zero = isinstance(address, ipaddress.IPv4Address) and int(address) < 1 << 24
    return address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified or in_zero


def _embedded(address: Address) -> Union[ipaddress.IPv4Address, None]:
    """The IPv4 address in a mapped, compatible, 6to4 or NAT64 one."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address.ipv4_mapped is not None or address.sixtofour is not None:
        return address.ipv4_mapped or address.sixtofour
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def judge(host: str, port: int, purpose: str, allowed: Sequence[Allowed], *, private: bool = False) -> List[str]:
    """The addresses of `host`, each of which may be connected to. Raises Refused when one of them may not, Unresolved when there is none.

    `private`: networks beyond this machine are open too; for steps in which every address is the operator's.
    """
    name = host.lower().rstrip(".")
    resolved = list(dict.fromkeys(_resolved(host, port)))
    opened = [entry for entry in allowed if entry.port in (0, port) and entry.purpose in ("", purpose)]
    if any(entry.host == name for entry in opened):
        return resolved
    for address in resolved:
        if is_public(address) or (private and not is_of_this_machine(address)):
            continue
        if not any(_within(address, entry.host) for entry in opened):
            shown = name if name == address else "%s (%s)" % (name, address)
            raise Refused("%s port %d is not a public address" % (shown, port))
    return resolved


def _resolved(host: str, port: int) -> Iterator[str]:
    try:
        entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, ValueError):
        raise Unresolved("the host %s has no address" % host[:255]) from None
    for entry in entries:
        yield str(entry[4][0])


def _within(address: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(address.split("%")[0]) in ipaddress.ip_network(network)
    except ValueError:
        return False  # a name

"""Callers of a listening socket who are many, slow or wrong: whom of them to keep, for how long, and when to answer no more."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import resource
import time
from typing import Any, Callable, Dict, Optional

SPARE_FILES = 512
"""File descriptors that are reserved for everything but connections."""
SHARE = 4
"""One address may have a quarter of all connections."""
MOST_FAILURES, FORGIVEN_S = 20, 3.0
"""Failed sign-ins of one caller that are answered at once; one of them is forgotten every few seconds."""
MOST_KEPT = 10_000
LOOK_S = 30
"""A deadline that was moved forward is noticed within this time, and one that is shorter at its time."""


def raise_file_limit() -> int:
    """Open files that this process may have from now on: as many as the system lets it."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def network_of(address: str) -> str:
    """What one caller can have for the asking: an address of IPv4, and 64 bits of IPv6."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed.ipv4_mapped or ipaddress.IPv6Address(int(parsed) >> 64 << 64))
    return address


class Admission:
    """Which connections a socket keeps. When there are too many, of all or of one address, the oldest idle one makes room for the new."""

    def __init__(self, most: Optional[int] = None, share: int = SHARE) -> None:
        self.most = most or max(64, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_FILES)
        self.most_of_one = max(32, self.most // share)
        self.connections: Dict[Any, str] = {}
        """Connection → network; the oldest first. A connection has `idle` and `drop`."""
        self._of: Dict[str, Dict[Any, None]] = {}

    def enter(self, connection: Any, address: str) -> None:
        """Keep a new connection, or drop it when there is neither room nor an idle one. Without an address (a unix socket) only all count."""
        network = network_of(address)
        same = self._of.setdefault(network, {}) if network else {}
        crowded = same if len(same) >= self.most_of_one else self.connections if len(self.connections) >= self.most else None
        oldest = next((other for other in crowded if other.idle), connection) if crowded else None
        self.connections[connection] = network
        same[connection] = None
        if oldest is not None:
            self.leave(oldest)
            oldest.drop()

    def leave(self, connection: Any) -> None:
        network = self.connections.pop(connection, "")
        same = self._of.get(network)
        if same is not None:
            same.pop(connection, None)
            if not same:
                del self._of[network]


class Deadline:
    """A moment by which something must have happened. It moves with every packet, so a timer is not set for each: the one there is looks
    at it when it fires."""

    def __init__(self, loop: asyncio.AbstractEventLoop, passed: Callable[[], None]) -> None:
        self._loop, self._passed = loop, passed
        self._at = math.inf
        self._timer: Optional[asyncio.TimerHandle] = None

    @property
    def is_set(self) -> bool:
        return self._at < math.inf

    def set(self, seconds: float) -> None:
        self._at = self._loop.time() + seconds
        if self._timer is None:
            self._timer = self._loop.call_later(min(seconds, LOOK_S), self._look)

    def extend(self, seconds: float) -> None:
        self._at += seconds

    def clear(self) -> None:
        self._at = math.inf

    def cancel(self) -> None:
        """For good: what it belongs to is gone."""
        self._at = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        left = self._at - self._loop.time()
        if left == math.inf:
            return
        if left > 0.01:
            self._timer = self._loop.call_later(min(left, LOOK_S), self._look)
        else:
            self._at = math.inf
            self._passed()


class Failures:
    """How often callers failed to sign in, as buckets that leak: one that is full is told how long to wait.

    Whoever has the right token is let in all the same: behind one address may be many, and a secret of 256 bits is not found by trying.
    """

    def __init__(self, most: int = MOST_FAILURES, forgiven_s: float = FORGIVEN_S, clock: Callable[[], float] = time.monotonic) -> None:
        self.most, self.forgiven_s, self.clock = most, forgiven_s, clock
        self._empty_at: Dict[str, float] = {}
        """Caller → when all of its failures are forgotten."""

    def add(self, caller: str) -> int:
        """Note one more. The whole seconds after which this caller is answered again; 0 as long as it is."""
        now = self.clock()
        level = (max(self._empty_at.get(caller, 0.0), now) - now) / self.forgiven_s
        if level > self.most - 1:
            return max(1, math.ceil((level - self.most + 1) * self.forgiven_s))
        if len(self._empty_at) >= MOST_KEPT:
            self._forget(now)
        self._empty_at[caller] = now + (level + 1) * self.forgiven_s
        return 0

    def _forget(self, now: float) -> None:
        self._empty_at = {caller: at for caller, at in self._empty_at.items() if at > now}
        if len(self._empty_at) >= MOST_KEPT:  # more callers than can be told apart: those that failed least begin anew
            worst = sorted(self._empty_at.items(), key=lambda item: item[1])[MOST_KEPT // 2 :]
            self._empty_at = dict(worst)

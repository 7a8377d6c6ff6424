"""Which replica a request goes to: the weighted draw of a deployment, its rate, balancing over its replicas, and the queue when all are busy."""

from __future__ import annotations

import asyncio
import collections
import operator
import random
import time
from typing import Deque

from modelyard_runtime.protocol import DeploymentRoute, EndpointRoute
from modelyard_runtime.serving.upstream import Replica

QUICK_S, AHEAD = 0.002, 3
MOST_WAITING = 1000
_busy = operator.attrgetter("busy")


class Bucket:
    """A rate as a bucket that fills evenly and holds `most` requests at most."""

    def __init__(self, most: float, seconds: float) -> None:
        self.most, self.seconds = most, seconds
        self.allowance = float(most)
        self.counted_at = time.monotonic()

    def take(self) -> bool:
        now = time.monotonic()
        self.allowance = min(float(self.most), self.allowance + (now - self.counted_at) * self.most / self.seconds)
        self.counted_at = now
        if self.allowance < 1:
            return False
        self.allowance -= 1
        return True


class Deployment:
    """The replicas of one deployment and how many requests they may hold.

    A new table changes the object itself: its requests in flight and its queue are untouched.
    """

    def __init__(self, route: DeploymentRoute) -> None:
        self.name = route.name
        self.replicas: dict[str, Replica] = {}  # by their sockets
        self.busy = 0  # requests in flight
        self.queue: Deque[asyncio.Future[Replica | None]] = collections.deque()  # requests that wait for a replica, first come first served
        self.bucket: Bucket | None = None  # for a deployment with a rate
        self.peak = 0  # most requests held or waiting at a time since the control plane last asked
        self.held = 0  # requests that wait for the first instance of a deployment that is scaled to zero
        self.route: DeploymentRoute | None = None
        self.change(route)

    def change(self, route: DeploymentRoute) -> None:
        if route == self.route:
            return
        self.route = route
        self.timeout = route.timeout_ms / 1000
        self.queue_wait = route.queue_ms / 1000
        self.concurrent = route.concurrent  # requests at a time: of a replica, and of one that predicts several in one call
        if route.rate is None:
            self.bucket = None
        elif self.bucket is None or (self.bucket.most, self.bucket.seconds) != route.rate:
            self.bucket = Bucket(*route.rate)
        earlier = self.replicas
        self.replicas = {socket: earlier.get(socket) or Replica(socket, route.generation) for socket in route.sockets}
        for socket, replica in earlier.items():
            if socket not in self.replicas:
                replica.leave()
        self._hand_out()

    @property
    def load(self) -> int:
        return self.busy + len(self.queue) + self.held

    @property
    def takes(self) -> int:
        """Requests that one replica handles at a time."""
        return self.concurrent[any(replica.batching for replica in self.replicas.values())]

    def try_acquire(self) -> Replica | None:
        """The least busy replica that is free now, or None."""
        replica = self._free()
        if replica is not None:
            self._give(replica)
        return replica

    def _give(self, replica: Replica) -> None:
        replica.busy += 1
        self.busy += 1
        self.peak = max(self.peak, self.load)

    async def acquire(self) -> Replica | None:
        """The replica that gets free next; None when none does within the queue's time, or too many wait already."""
        if len(self.queue) >= MOST_WAITING:
            return None
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[Replica | None] = loop.create_future()
        self.queue.append(turn)
        self.peak = max(self.peak, self.load)
        timer = loop.call_later(self.queue_wait, self._give_up, turn)
        try:
            return await turn
        except asyncio.CancelledError:  # the caller has gone
            if turn in self.queue:
                self.queue.remove(turn)
            elif not turn.cancelled():
                replica = turn.result()
                if replica is not None:
                    self.release(replica)
            raise
        finally:
            timer.cancel()

    def _give_up(self, turn: asyncio.Future[Replica | None]) -> None:
        if not turn.done():
            self.queue.remove(turn)
            turn.set_result(None)

    def _free(self) -> Replica | None:
        """Balancing: the replica with the fewest requests in flight, if it has room for one more. One that was not reachable just now is skipped."""
        now = time.monotonic()
        reachable = [replica for replica in self.replicas.values() if replica.down < now] or self.replicas.values()
        replica = min(reachable, key=_busy, default=None)
        return replica if replica is not None and replica.busy < self.concurrent[replica.batching] + self._ahead(replica) else None

    def _ahead(self, replica: Replica) -> int:
        """Requests that a quick replica is sent before it is free, which saves it a round trip between two of them.

        None where a second replica could answer sooner, should a call block this one.
        """
        return AHEAD if replica.pace < QUICK_S and len(self.replicas) == 1 else 0

    def release(self, replica: Replica) -> None:
        replica.busy -= 1
        self.busy -= 1
        if self.queue:
            self._hand_out()

    def _hand_out(self) -> None:
        """Free replicas to the requests that wait."""
        while self.queue:
            replica = self._free()
            if replica is None:
                return
            turn = self.queue.popleft()
            if not turn.done():
                self._give(replica)
                turn.set_result(replica)


class Endpoint:
    """The keys, tokens and deployments of one endpoint. `earlier`: the same endpoint of the table before, whose deployments go on."""

    def __init__(self, route: EndpointRoute, earlier: Endpoint | None) -> None:
        self.keys = [bytes.fromhex(digest) for digest in route.keys]
        self.tokens = route.tokens
        self.open = route.open
        self.known: dict[bytes, float] = {}  # digest of a token that was verified → when it expires
        self.deployments: dict[str, Deployment] = {}
        for item in route.deployments:
            known = earlier.deployments.get(item.name) if earlier else None
            if known is not None:
                known.change(item)
            self.deployments[item.name] = known or Deployment(item)
        self.traffic = [(name, share) for name, share in route.traffic.items() if share and name in self.deployments]
        self.mirror = next(((name, share) for name, share in route.mirror.items() if share and name in self.deployments), None)
        self.mirrored: set[asyncio.Future[None]] = set()

    def draw(self) -> Deployment | None:
        """A deployment, by the shares of the traffic."""
        if not self.traffic:
            return None
        if len(self.traffic) == 1:
            return self.deployments[self.traffic[0][0]]
        names, shares = zip(*self.traffic)
        return self.deployments[random.choices(names, shares)[0]]

"""The entry point of scoring requests: authentication, the weighted draw, limits, timeouts, one log line a request.

    python -I …/modelyard_runtime router CONFIG.json

CONFIG is a `protocol.RouterConfig`. Its `routes` is the file of a `protocol.RouteTable`; the control plane rewrites it whole and says
`POST /reload` on the unix socket `control`, upon which the router swaps its table at once. The table holds digests of keys and the public
keys that tokens are verified by, never secrets. While the control plane is down the router works with the last table.

One deployment answers a request; a share of the requests is also sent to a second deployment, the mirror, whose answers are dropped.
A mirrored request never waits: it is dropped when the mirror has no room.
"""

from __future__ import annotations

import asyncio
import bisect
import collections
import contextlib
import copy
import functools
import gc
import hashlib
import hmac
import json
import os
import random
import time
from typing import Any, Iterator

import orjson

from modelyard_runtime import files, protocol
from modelyard_runtime.protocol import (
    Answered,
    AnswerTimes,
    DeploymentGauges,
    DeploymentLoad,
    LoadReport,
    RouterConfig,
    RouterReport,
    RouteTable,
)
from modelyard_runtime.serving import callers, http1
from modelyard_runtime.serving.deployment import Deployment, Endpoint
from modelyard_runtime.serving.http1 import Request, Response, error
from modelyard_runtime.serving.upstream import NotConnected, Replica, TooLate
from modelyard_runtime.supervision import sandbox

HOP_HEADERS = frozenset(
    ("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "content-length", "host", "authorization", "expect")
)  # fmt: skip
MIRRORS = 64
TOKENS_CACHED = 10_000
ALGORITHMS = ["EdDSA", "RS256", "ES256"]
CALLER_CLAIMS = ("sub", "oid", "azp", "appid", "email", "preferred_username")
BUCKETS_MS = (5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000)
GARBAGE = 50_000
LOG_EVERY_S = 0.1
SCALE_FROM_ZERO_S = 120.0
LOG_AGAIN_S = 1.0
LOG_BYTES = 64 * 1024 * 1024
BACKLOG_BYTES = 4 * 1024 * 1024
DOWN_S = 0.3
"""Seconds for which a replica that could not be reached is skipped while there are others."""
LATE_S = 1.0
"""How much later than the model server a router gives a request up: its own answer says more."""
DRAIN_S = 5.0
ROUTES = frozenset(("score", "invocations", "swagger.json", "v2"))
GONE = 499
"""Status in the traffic log of a request whose caller went away before it was answered; nobody is sent it."""
RETRY = [("retry-after", "1")]
NOWHERE = functools.partial(error, 404, "there is no endpoint at this address")
NOT_REACHABLE = "the model server is not reachable at present"


class Passage:
    """A request in flight: where it goes, which replica it occupies, and what its log line says."""

    __slots__ = ("request", "endpoint", "route", "prediction", "began", "deployment", "generation", "model_status", "mirrored", "lease")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.endpoint, self.route = split(request.path)
        self.prediction = _uuid7()
        self.began = time.perf_counter()
        self.deployment = ""
        self.generation = 0
        self.model_status = 0
        self.mirrored = False
        self.lease: tuple[Deployment, Replica] | None = None

    def mirror(self, deployment: Deployment, replica: Replica) -> Passage:
        """A copy of the request for a mirror."""
        mirrored = copy.copy(self)
        mirrored.deployment, mirrored.mirrored, mirrored.began = deployment.name, True, time.perf_counter()
        mirrored.lease = (deployment, replica)
        return mirrored

    def release(self) -> None:
        """Its replica is free for another request."""
        if self.lease is not None:
            deployment, replica = self.lease
            self.lease = None
            deployment.release(replica)

    def line(self, response: Response, ms: float) -> dict[str, Any]:
        headers = self.request.headers
        line: dict[str, Any] = {
            "time": int(time.time() * 1000),
            "prediction_id": self.prediction,
            "path": self.request.path[:200],
            "deployment": self.deployment,
            "generation": self.generation,
            "status": response.status,
            "model_status": self.model_status,
            "ms": round(ms, 3),
            "bytes_in": len(self.request.body),
            "bytes_out": len(response.body),
            "client_request_id": headers.get("x-ms-client-request-id", "")[:100],
            "request_id": headers.get("x-request-id", "")[:100],
        }
        if self.mirrored:
            line["mirror"] = True
        return line


def split(path: str) -> tuple[str, str]:
    """(workspace/endpoint, route) of the path /workspace/endpoint/route…; two empty texts of any other path."""
    parts = path.split("/", 3)
    return (parts[1] + "/" + parts[2], parts[3]) if len(parts) == 4 else ("", "")


class Times:
    """A histogram of a deployment's response times: a count for each of BUCKETS_MS and one for longer times, and their sum in ms."""

    __slots__ = ("buckets", "count", "sum_ms")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BUCKETS_MS) + 1)
        self.count, self.sum_ms = 0, 0.0

    def add(self, ms: float) -> None:
        self.buckets[bisect.bisect_left(BUCKETS_MS, ms)] += 1
        self.count += 1
        self.sum_ms += ms


class Router:
    def __init__(self, config: RouterConfig) -> None:
        self.loop = asyncio.get_running_loop()
        self.config = config
        self.endpoints: dict[str, Endpoint] = {}
        self.counts: collections.Counter[tuple[str, str, int, str]] = collections.Counter()
        self.reloaded = asyncio.Event()
        self.times: dict[tuple[str, str], Times] = {}  # by endpoint and deployment
        self.log = open(config.log, "ab", buffering=0)
        self.lines: list[dict[str, Any]] = []
        self.latest = 0.0
        """The latest time that tokens were compared with, in seconds since 1970."""
        self.log_timer: asyncio.TimerHandle | None = None
        self.backlog = b""
        """Lines that the disk has not taken yet."""
        self.failures = callers.Failures()
        self.reload()

    def reload(self) -> None:
        """Read the route table and replace the current one. Raises Malformed for an invalid file; the current table then stays."""
        try:
            with open(self.config.routes) as file:
                table = protocol.read(RouteTable, json.load(file))
        except FileNotFoundError:
            table = RouteTable()
        self.endpoints = {path: Endpoint(route, self.endpoints.get(path)) for path, route in table.endpoints.items()}
        changed, self.reloaded = self.reloaded, asyncio.Event()
        changed.set()

    async def control(self, request: Request) -> Response:
        if request.method == "POST" and request.path == "/reload":
            try:
                self.reload()
            except ValueError as problem:
                return error(422, "the route table cannot be read: %s" % problem)
            return Response(200, b"{}")
        if request.path == "/load":
            return Response(200, json.dumps(protocol.document(self.load())).encode())
        if request.path == "/metrics":
            return Response(200, json.dumps(protocol.document(self.report())).encode())
        return Response(200, json.dumps({"pid": os.getpid(), "endpoints": len(self.endpoints)}).encode())

    def deployments(self) -> Iterator[tuple[str, str, Deployment]]:
        """(workspace/endpoint, name, deployment)"""
        for path, endpoint in self.endpoints.items():
            for name, deployment in endpoint.deployments.items():
                yield path, name, deployment

    def load(self) -> LoadReport:
        """The peak load of every deployment since the last report."""
        loads = []
        for path, name, deployment in self.deployments():
            loads.append(DeploymentLoad(path, name, max(deployment.peak, deployment.load), deployment.takes))
            deployment.peak = deployment.load
        return LoadReport(loads)

    def report(self) -> RouterReport:
        answered = [Answered(*key, count) for key, count in self.counts.items()]
        times = [AnswerTimes(*key, times.buckets, times.count, times.sum_ms) for key, times in self.times.items()]
        gauges = [
            DeploymentGauges(path, name, deployment.busy, len(deployment.queue), len(deployment.replicas))
            for path, name, deployment in self.deployments()
        ]
        return RouterReport(list(BUCKETS_MS), answered, times, gauges)

    async def handle(self, request: Request) -> Response:
        """Answer a request. Its replica is released when the answer is complete; for a streamed body, when the stream ends."""
        passage = Passage(request)
        try:
            response = await self._route(passage)
        except asyncio.CancelledError:
            self._finish(passage, Response(GONE))
            raise
        except Exception as problem:
            files.report("router: %s: %s" % (type(problem).__name__, problem))
            response = error(500, "An unexpected internal error occurred.")
        if isinstance(response.body, bytes):
            self._finish(passage, response)
        else:
            response.body.done = functools.partial(self._finish, passage, response)  # type: ignore[attr-defined]  # a Relay
        return response

    def _finish(self, passage: Passage, response: Response) -> None:
        passage.release()
        self._count(passage, response)

    async def _route(self, passage: Passage) -> Response:
        request = passage.request
        if request.path == "/":
            return Response(200, b"Healthy", content_type="text/plain")
        endpoint = self.endpoints.get(passage.endpoint)
        if endpoint is None or not (passage.route in ROUTES or passage.route.startswith("v2/")):
            return NOWHERE()
        if not self._authentic(request.headers, endpoint):
            return self._unauthorized(endpoint, request.address)
        if request.method == "HEAD":  # the answer of a model server has no body then, for which the connection would wait
            return error(405, "use GET or POST", [("allow", "GET, POST")])
        requested = request.headers.get("azureml-model-deployment")
        deployment = endpoint.deployments.get(requested) if requested else endpoint.draw()
        if deployment is None:
            if requested:
                return error(404, "this endpoint has no deployment %s" % requested[:64])
            there = ", ".join(sorted(endpoint.deployments)[:20])
            picked = "; the header azureml-model-deployment picks one of %s" % there if there else ""
            return error(503, "this endpoint sends no traffic to any deployment" + picked, RETRY)
        passage.deployment = deployment.name
        if deployment.bucket is not None and not deployment.bucket.take():
            return error(429, "this deployment takes %d requests in %g s" % (deployment.bucket.most, deployment.bucket.seconds), RETRY)
        if endpoint.mirror is not None and not requested:
            self._mirror(passage, endpoint, deployment)
        if not deployment.replicas:
            deployment = await self._scale_from_zero(passage.endpoint, deployment)
        for _ in range(len(deployment.replicas) + 1):
            replica = deployment.try_acquire() or await deployment.acquire()
            if replica is None:
                return error(429, "too many requests at the same time", RETRY)
            passage.lease = (deployment, replica)
            try:
                return await self._ask(passage, deployment, replica)
            except NotConnected:
                replica.down = time.monotonic() + DOWN_S  # nothing was sent: another replica may answer
                passage.release()
        return error(503, NOT_REACHABLE, RETRY)

    async def _scale_from_zero(self, path: str, deployment: Deployment) -> Deployment:
        """The deployment once it has an instance: it is scaled to zero, and the control plane starts one because this request is held."""
        until = time.monotonic() + SCALE_FROM_ZERO_S
        while not deployment.replicas and time.monotonic() < until:
            changed = self.reloaded
            deployment.held += 1
            try:
                await asyncio.wait_for(changed.wait(), until - time.monotonic())
            except asyncio.TimeoutError:
                break
            finally:
                deployment.held -= 1
            endpoint = self.endpoints.get(path)
            deployment = endpoint.deployments.get(deployment.name, deployment) if endpoint is not None else deployment
        return deployment

    def _mirror(self, passage: Passage, endpoint: Endpoint, chosen: Deployment) -> None:
        """Send the request to the mirror as well, if it has room at this moment; its answer is counted and dropped."""
        assert endpoint.mirror is not None
        name, share = endpoint.mirror
        deployment = endpoint.deployments[name]
        if name == chosen.name or random.random() * 100 >= share or len(endpoint.mirrored) >= MIRRORS:
            return
        replica = deployment.try_acquire()
        if replica is None:
            self.counts[passage.endpoint, name, 0, "mirror dropped"] += 1
            return
        task = asyncio.ensure_future(self._ask_mirror(passage.mirror(deployment, replica), deployment, replica))
        endpoint.mirrored.add(task)
        task.add_done_callback(endpoint.mirrored.discard)

    async def _ask_mirror(self, passage: Passage, deployment: Deployment, replica: Replica) -> None:
        try:
            response = await self._ask(passage, deployment, replica)
            if not isinstance(response.body, bytes):
                response.body.close()
            self._count(passage, response)
        except NotConnected:
            replica.down = time.monotonic() + DOWN_S
        except Exception as problem:
            files.report("router: mirror: %s: %s" % (type(problem).__name__, problem))
        finally:
            passage.release()

    def admit(self, path: str, headers: dict[str, str], address: str) -> Response | None:
        """The refusal of a large request before its body is read, or None: callers without a key cannot fill the router's memory."""
        endpoint = self.endpoints.get(split(path)[0])
        if endpoint is None:
            return NOWHERE()
        return None if self._authentic(headers, endpoint) else self._unauthorized(endpoint, address)

    def _unauthorized(self, endpoint: Endpoint, address: str) -> Response:
        wait_s = self.failures.add(address)
        if wait_s:
            return error(429, "too many requests of this address had no valid key", [("retry-after", str(wait_s))])
        needed = "token" if endpoint.tokens else "key"
        message = "a %s of this endpoint is needed: Authorization: Bearer %s" % (needed, needed.upper())
        return error(401, message, [("www-authenticate", 'Bearer realm="endpoint"')])

    def _authentic(self, headers: dict[str, str], endpoint: Endpoint) -> bool:
        if endpoint.open:
            return True
        scheme, _, key = headers.get("authorization", "").partition(" ")
        key = key.strip()
        digest = hashlib.sha256(key.encode("latin-1", "replace")).digest()
        same = [hmac.compare_digest(digest, known) for known in endpoint.keys]
        return scheme.lower() == "bearer" and (any(same) or (endpoint.tokens is not None and self._signed(key, digest, endpoint)))

    def _signed(self, token: str, digest: bytes, endpoint: Endpoint) -> bool:
        """Whether a token is signed for this endpoint and has not expired; a verified token is cached until it expires. A clock that is set
        back revives none."""
        now = self.latest = max(self.latest, time.time())
        expires = endpoint.known.get(digest)
        if expires is not None:
            return expires > now
        import jwt

        for source in endpoint.tokens or ():
            for key in source.keys:
                try:
                    claims = jwt.decode(
                        token, key, algorithms=ALGORITHMS, audience=source.audience, issuer=source.issuer,
                        options={"require": ["exp", "aud"]},
                    )  # fmt: skip
                except Exception:
                    continue
                if claims["exp"] <= now:
                    return False
                if source.callers is not None and not any(claims.get(name) in source.callers for name in CALLER_CLAIMS):
                    return False
                if len(endpoint.known) >= TOKENS_CACHED:
                    endpoint.known.clear()
                endpoint.known[digest] = float(claims["exp"])
                return True
        return False

    async def _ask(self, passage: Passage, deployment: Deployment, replica: Replica) -> Response:
        """The replica's answer, or the router's own error when there is none. Raises NotConnected."""
        request = passage.request
        passage.generation = replica.generation  # a new generation may have replaced the drawn one while the request waited
        lines = ["%s /%s%s HTTP/1.1" % (request.method, passage.route, "?" + request.query if request.query else ""), "host: model"]
        lines += [f"{name}: {value}" for name, value in request.headers.items() if name not in HOP_HEADERS]
        if "x-request-id" not in request.headers:
            lines.append("x-request-id: " + passage.prediction)
        lines.append("content-length: %d\r\n\r\n" % len(request.body))
        data = "\r\n".join(lines).encode("latin-1") + request.body
        asked, before = self.loop.time(), replica.busy
        try:
            # Those ahead of it are run first, each within its own time.
            status, headers, body = await replica.ask(data, asked + deployment.timeout * before + LATE_S)
            replica.pace += ((self.loop.time() - asked) / before - replica.pace) / 8
        except TooLate:
            replica.pace = deployment.timeout
            replica.down = time.monotonic() + 1 + DOWN_S  # it hangs; its process ends and is replaced
            passage.model_status = 408
            message = "the model did not answer within %d ms" % (deployment.timeout * 1000)
            return error(408, message, [("x-ms-run-function-failed", "True")])
        except OSError:
            return error(503, NOT_REACHABLE, RETRY)
        passage.model_status = status
        end_to_end = [header for header in headers if header[0] not in HOP_HEADERS]
        end_to_end += (("azureml-model-deployment", deployment.name), ("x-yard-prediction-id", passage.prediction))
        return Response(status, body, end_to_end, content_type=None)

    def _count(self, passage: Passage, response: Response) -> None:
        ms = (time.perf_counter() - passage.began) * 1000
        name = passage.deployment
        self.counts[passage.endpoint if name else "unknown", name, response.status, "mirror" if passage.mirrored else ""] += 1
        if name and not passage.mirrored:
            times = self.times.get((passage.endpoint, name))
            if times is None:
                times = self.times[passage.endpoint, name] = Times()
            times.add(ms)
        if passage.request.path == "/":
            return
        self._write_log_in(LOG_EVERY_S)
        self.lines.append(passage.line(response, ms))

    def _write_log_in(self, seconds: float) -> None:
        if self.log_timer is None:
            self.log_timer = self.loop.call_later(seconds, self._write_log)

    def _write_log(self) -> None:
        """What was answered since the last time, in one write. What a full disk refuses waits for room, the newest BACKLOG_BYTES of it."""
        self.log_timer = None
        lines, self.lines = self.lines, []
        self.backlog += b"".join(orjson.dumps(line) + b"\n" for line in lines)
        try:
            while self.backlog:
                self.backlog = self.backlog[self.log.write(self.backlog) :]
            if self.log.tell() > LOG_BYTES:
                self._rotate()
        except OSError:
            self._bound_backlog()
            self._write_log_in(LOG_AGAIN_S)

    def _rotate(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # an earlier attempt came so far
            os.replace(self.config.log, self.config.log + ".1")
        following = open(self.config.log, "ab", buffering=0)
        self.log.close()
        self.log = following

    def _bound_backlog(self) -> None:
        excess = len(self.backlog) - BACKLOG_BYTES
        if excess > 0:
            whole = self.backlog.find(b"\n", excess) + 1
            self.backlog = self.backlog[whole:]
            files.report("router: the disk is full; %d bytes of the traffic log are missing" % whole)


def _uuid7() -> str:
    """RFC 9562."""
    value = (int(time.time() * 1000) << 80) | 0x7 << 76 | random.getrandbits(12) << 64 | 0x2 << 62 | random.getrandbits(62)
    text = "%032x" % value
    return "%s-%s-%s-%s-%s" % (text[:8], text[8:12], text[12:16], text[16:20], text[20:])


async def run(config: RouterConfig) -> None:
    sandbox.hide()
    callers.raise_file_limit()
    router = Router(config)
    control, _ = await http1.serve(router.control, 1 << 20, files.bound_socket(config.control, 0o600), peers=(os.geteuid(),))
    server, listener = await http1.serve(router.handle, protocol.MAX_BODY, host=config.host, port=config.port, admit=router.admit)
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE)  # what a request leaves is gone without it
    files.report("router: listening on %s:%d" % (config.host, config.port))
    await http1.asked_to_stop()
    server.close()
    control.close()
    await http1.drain(listener, DRAIN_S)
    router._write_log()


def main(arguments: list[str]) -> int:
    with open(arguments[0]) as file:
        config = protocol.read(RouterConfig, json.load(file))
    http1.start(run(config))
    return 0

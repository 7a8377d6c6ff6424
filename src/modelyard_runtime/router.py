"""The way in for scoring requests: authentication, the weighted draw, limits, timeouts, one log line a request.

    python -I router.py CONFIG.json

CONFIG: {host, port, routes, control, log}. `routes` is a file of one JSON document; the control plane rewrites it
whole and says `POST /reload` on the unix socket `control`, upon which the table is swapped at once. The table holds
digests of keys and public keys of tokens, never secrets. The router goes on with the last table while the control plane is away.

A request is answered by one deployment; a share of them is sent to another one as well, whose answers are dropped (the mirror).
A mirrored request never waits: it is dropped when the deployment has no room.
"""

import asyncio
import bisect
import collections
import copy
import functools
import gc
import hashlib
import hmac
import json
import operator
import os
import random
import resource
import sys
import time

import orjson

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import http1
from http1 import Response, error
from upstream import NotConnected, Replica, TooLate

MAX_BODY = 100 * 1024 * 1024
HOP_HEADERS = frozenset(
    ("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "content-length", "host", "authorization", "expect")
)  # fmt: skip
MIRRORS = 64
TOKENS_KEPT = 10_000
ALGORITHMS = ["EdDSA", "RS256", "ES256"]
CALLER_CLAIMS = ("sub", "oid", "azp", "appid", "email", "preferred_username")
BUCKETS_MS = (5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000)
GARBAGE = 50_000
LOG_EVERY_S = 0.1
WAKE_S = 120.0
LOG_BYTES = 64 * 1024 * 1024
DOWN_S = 0.3
QUICK_S, AHEAD = 0.002, 3
ROUTES = frozenset(("score", "invocations", "swagger.json", "v2"))
RETRY = [("retry-after", "1")]
NOWHERE = functools.partial(error, 404, "there is no endpoint at this address")
NOT_REACHABLE = "the model server is not reachable at present"
_busy = operator.attrgetter("busy")


class Deployment:
    """The replicas of one deployment and how many requests they may hold.

    A new table changes it in place: what is under way, and who waits, stays as it is.
    """

    def __init__(self, document):
        self.name = document["name"]
        self.replicas = {}  # by their sockets
        self.busy = 0  # requests under way
        self.waiting = collections.deque()
        self.rate = None
        self.allowance = 0.0
        self.counted_at = time.monotonic()
        self.peak = 0  # most requests held or waiting at a time since the control plane last asked
        self.held = 0  # requests that wait for the first instance of a deployment that sleeps
        self.document = None
        self.change(document)

    def change(self, document):
        if document == self.document:
            return
        self.document = document
        self.timeout = document["timeout_ms"] / 1000
        self.queue_wait = document["queue_ms"] / 1000
        self.each = document["concurrent"]  # [of a replica, of one that takes requests together]
        if document.get("rate") != self.rate:
            self.rate = document.get("rate")  # [requests, seconds], or None
            self.allowance = float(self.rate[0]) if self.rate else 0.0
        earlier = self.replicas
        self.replicas = {socket: earlier.get(socket) or Replica(socket, document["generation"]) for socket in document["sockets"]}
        for socket, replica in earlier.items():
            if socket not in self.replicas:
                replica.leave()
        self._hand_out()

    @property
    def load(self):
        return self.busy + len(self.waiting) + self.held

    @property
    def takes(self):
        """Requests that one replica is given at a time."""
        return self.each[any(replica.together for replica in self.replicas.values())]

    def within_rate(self):
        """Whether one more request fits the deployment's rate (a bucket that fills evenly)."""
        if not self.rate:
            return True
        now = time.monotonic()
        most, seconds = self.rate
        self.allowance = min(float(most), self.allowance + (now - self.counted_at) * most / seconds)
        self.counted_at = now
        if self.allowance < 1:
            return False
        self.allowance -= 1
        return True

    def try_acquire(self):
        """The least busy replica that is free now, or None."""
        replica = self._free()
        if replica is not None:
            self._give(replica)
        return replica

    def _give(self, replica):
        replica.busy += 1
        self.busy += 1
        self.peak = max(self.peak, self.load)

    async def acquire(self):
        """The replica that gets free next; None when none does within the queue's time."""
        if len(self.waiting) >= 1000:
            return None
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self.waiting.append(turn)
        self.peak = max(self.peak, self.load)
        timer = loop.call_later(self.queue_wait, self._give_up, turn)
        try:
            return await turn
        finally:
            timer.cancel()

    def _give_up(self, turn):
        if not turn.done():
            self.waiting.remove(turn)
            turn.set_result(None)

    def _free(self):
        now = time.monotonic()
        there = [replica for replica in self.replicas.values() if replica.down < now] or self.replicas.values()
        replica = min(there, key=_busy, default=None)
        return replica if replica is not None and replica.busy < self.each[replica.together] + self._ahead(replica) else None

    def _ahead(self, replica):
        """A quick replica is sent its next requests ahead: it begins with one without waiting for the way there and back.

        Not where another one could answer sooner, if a call blocks this one.
        """
        return AHEAD if replica.pace < QUICK_S and len(self.replicas) == 1 else 0

    def release(self, replica):
        replica.busy -= 1
        self.busy -= 1
        if self.waiting:
            self._hand_out()

    def _hand_out(self):
        """Free replicas to those who wait, first come first served."""
        while self.waiting:
            replica = self._free()
            if replica is None:
                return
            turn = self.waiting.popleft()
            if not turn.done():
                self._give(replica)
                turn.set_result(replica)


class Endpoint:
    def __init__(self, document, earlier):
        self.keys = [bytes.fromhex(digest) for digest in document["keys"]]
        self.tokens = document.get("tokens")  # [{audience, keys: [PEM], issuer?, callers?}]
        self.known = {}  # digest of a token that was verified → when it expires
        self.deployments = {}
        for item in document["deployments"]:
            known = earlier.deployments.get(item["name"]) if earlier else None
            if known is not None:
                known.change(item)
            self.deployments[item["name"]] = known or Deployment(item)
        self.traffic = [(name, share) for name, share in document["traffic"].items() if share and name in self.deployments]
        self.mirror = next(
            ((name, share) for name, share in document.get("mirror", {}).items() if share and name in self.deployments), None
        )
        self.mirrored = set()

    def draw(self):
        if not self.traffic:
            return None
        if len(self.traffic) == 1:
            return self.deployments[self.traffic[0][0]]
        names, shares = zip(*self.traffic)
        return self.deployments[random.choices(names, shares)[0]]


class Passage:
    """A request on its way through: where it goes, and what the log tells of it."""

    __slots__ = ("request", "endpoint", "route", "prediction", "began", "deployment", "generation", "model_status", "mirrored")

    def __init__(self, request):
        self.request = request
        self.endpoint, self.route = split(request.path)
        self.prediction = _uuid7()
        self.began = time.perf_counter()
        self.deployment = ""
        self.generation = 0
        self.model_status = 0
        self.mirrored = False

    def mirror(self, deployment):
        """The same request on its way to a mirror."""
        made = copy.copy(self)
        made.deployment, made.mirrored, made.began = deployment, True, time.perf_counter()
        return made

    def line(self, response, ms):
        headers = self.request.headers
        line = {
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


def split(path):
    """(workspace/endpoint, what is asked of it) of /workspace/endpoint/what…"""
    parts = path.split("/", 3)
    return (parts[1] + "/" + parts[2], parts[3]) if len(parts) == 4 else ("", "")


class Router:
    def __init__(self, config):
        self.loop = asyncio.get_running_loop()
        self.config = config
        self.endpoints = {}
        self.counts = collections.Counter()
        self.reloaded = asyncio.Event()
        self.times = {}  # (endpoint, deployment) → [counts by bucket, count, sum of ms]
        self.log = open(config["log"], "ab", buffering=0)
        self.lines = []
        self.reload()

    def reload(self):
        try:
            with open(self.config["routes"]) as file:
                table = json.load(file)
        except FileNotFoundError:
            table = {"endpoints": {}}
        self.endpoints = {path: Endpoint(document, self.endpoints.get(path)) for path, document in table["endpoints"].items()}
        changed, self.reloaded = self.reloaded, asyncio.Event()
        changed.set()

    async def control(self, request):
        if request.method == "POST" and request.path == "/reload":
            self.reload()
            return Response(200, b"{}")
        if request.path == "/load":
            found = []
            for path, endpoint in self.endpoints.items():
                for name, deployment in endpoint.deployments.items():
                    found.append([path, name, max(deployment.peak, deployment.load), deployment.takes])
                    deployment.peak = deployment.load
            return Response(200, json.dumps(found).encode())
        if request.path == "/metrics":
            answered = [[*key, count] for key, count in self.counts.items()]
            times = [[*key, *found] for key, found in self.times.items()]
            busy = [
                [path, name, deployment.busy, len(deployment.waiting), len(deployment.replicas)]
                for path, endpoint in self.endpoints.items()
                for name, deployment in endpoint.deployments.items()
            ]
            document = {"answered": answered, "times": times, "busy": busy, "buckets_ms": BUCKETS_MS}
            return Response(200, json.dumps(document).encode())
        return Response(200, json.dumps({"pid": os.getpid(), "endpoints": len(self.endpoints)}).encode())

    async def handle(self, request):
        passage = Passage(request)
        try:
            response = await self._route(passage)
        except Exception as problem:
            print("router: %s: %s" % (type(problem).__name__, problem), file=sys.stderr, flush=True)
            response = error(500, "An unexpected internal error occurred.")
        if isinstance(response.body, bytes):
            self._count(passage, response)
        else:
            release = response.body.done

            def done():
                release()
                self._count(passage, response)

            response.body.done = done
        return response

    async def _route(self, passage):
        request = passage.request
        if request.path == "/":
            return Response(200, b"Healthy", content_type="text/plain")
        endpoint = self.endpoints.get(passage.endpoint)
        if endpoint is None or not (passage.route in ROUTES or passage.route.startswith("v2/")):
            return NOWHERE()
        if not self._authentic(request.headers, endpoint):
            return self._unknown(endpoint)
        if request.method == "HEAD":  # a model server's answer to it would be waited for to its end, which does not come
            return error(405, "use GET or POST", [("allow", "GET, POST")])
        wanted = request.headers.get("azureml-model-deployment")
        deployment = endpoint.deployments.get(wanted) if wanted else endpoint.draw()
        if deployment is None:
            if wanted:
                return error(404, "this endpoint has no deployment %s" % wanted[:64])
            return error(503, "this endpoint sends no traffic to any deployment", RETRY)
        passage.deployment = deployment.name
        if not deployment.within_rate():
            return error(429, "this deployment takes %d requests in %g s" % tuple(deployment.rate), RETRY)
        if endpoint.mirror is not None and not wanted:
            self._mirror(passage, endpoint, deployment)
        if not deployment.replicas:
            deployment = await self._awake(passage.endpoint, deployment)
        for _ in range(len(deployment.replicas) + 1):
            replica = deployment.try_acquire() or await deployment.acquire()
            if replica is None:
                return error(429, "too many requests at the same time", RETRY)
            held = True
            try:
                response = await self._ask(passage, deployment, replica)
                if not isinstance(response.body, bytes):
                    held = False  # until the stream has ended
                    response.body.done = functools.partial(deployment.release, replica)
                return response
            except NotConnected:
                replica.down = time.monotonic() + DOWN_S  # nothing was sent: another replica may answer
            finally:
                if held:
                    deployment.release(replica)
        return error(503, NOT_REACHABLE, RETRY)

    async def _awake(self, path, deployment):
        """The deployment with its first instance: it sleeps, and is woken because this request waits."""
        until = time.monotonic() + WAKE_S
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

    def _mirror(self, passage, endpoint, chosen):
        """Send the request to the mirror as well, when it has room right now; whatever it answers is only counted."""
        name, share = endpoint.mirror
        deployment = endpoint.deployments[name]
        if name == chosen.name or random.random() * 100 >= share or len(endpoint.mirrored) >= MIRRORS:
            return
        replica = deployment.try_acquire()
        if replica is None:
            self.counts[passage.endpoint, name, 0, "mirror dropped"] += 1
            return
        task = asyncio.ensure_future(self._ask_mirror(passage.mirror(name), deployment, replica))
        endpoint.mirrored.add(task)
        task.add_done_callback(endpoint.mirrored.discard)

    async def _ask_mirror(self, passage, deployment, replica):
        try:
            response = await self._ask(passage, deployment, replica)
            if not isinstance(response.body, bytes):
                response.body.close()
            self._count(passage, response)
        except NotConnected:
            replica.down = time.monotonic() + DOWN_S
        except Exception as problem:
            print("router: mirror: %s: %s" % (type(problem).__name__, problem), file=sys.stderr, flush=True)
        finally:
            deployment.release(replica)

    def admit(self, path, headers):
        """Refuses a large request before its body has come: nobody without a key fills this process."""
        endpoint = self.endpoints.get(split(path)[0])
        if endpoint is None:
            return NOWHERE()
        return None if self._authentic(headers, endpoint) else self._unknown(endpoint)

    def _unknown(self, endpoint):
        needed = "token" if endpoint.tokens else "key"
        message = "a %s of this endpoint is needed: Authorization: Bearer %s" % (needed, needed.upper())
        return error(401, message, [("www-authenticate", 'Bearer realm="endpoint"')])

    def _authentic(self, headers, endpoint):
        scheme, _, key = headers.get("authorization", "").partition(" ")
        key = key.strip()
        digest = hashlib.sha256(key.encode("latin-1", "replace")).digest()
        same = [hmac.compare_digest(digest, known) for known in endpoint.keys]
        return scheme.lower() == "bearer" and (any(same) or (endpoint.tokens is not None and self._signed(key, digest, endpoint)))

    @staticmethod
    def _signed(token, digest, endpoint):
        """Whether a token is signed for this endpoint and has not expired; a signature is verified once."""
        now = time.time()
        expires = endpoint.known.get(digest)
        if expires is not None:
            return expires > now
        import jwt

        for source in endpoint.tokens:
            for key in source["keys"]:
                try:
                    claims = jwt.decode(
                        token, key, algorithms=ALGORITHMS, audience=source["audience"], issuer=source.get("issuer"),
                        options={"require": ["exp", "aud"]},
                    )  # fmt: skip
                except Exception:
                    continue
                callers = source.get("callers")
                if callers is not None and not any(claims.get(name) in callers for name in CALLER_CLAIMS):
                    return False
                if len(endpoint.known) >= TOKENS_KEPT:
                    endpoint.known.clear()
                endpoint.known[digest] = float(claims["exp"])
                return True
        return False

    async def _ask(self, passage, deployment, replica):
        request = passage.request
        passage.generation = replica.generation  # a new one may have taken its place while the request waited
        lines = ["%s /%s%s HTTP/1.1" % (request.method, passage.route, "?" + request.query if request.query else ""), "host: model"]
        lines += [f"{name}: {value}" for name, value in request.headers.items() if name not in HOP_HEADERS]
        if "x-request-id" not in request.headers:
            lines.append("x-request-id: " + passage.prediction)
        lines.append("content-length: %d\r\n\r\n" % len(request.body))
        data = "\r\n".join(lines).encode("latin-1") + request.body
        asked, before = self.loop.time(), replica.busy
        try:
            status, headers, body = await replica.ask(data, asked + deployment.timeout)
            replica.pace += ((self.loop.time() - asked) / before - replica.pace) / 8
        except TooLate:
            replica.pace = deployment.timeout
            replica.down = time.monotonic() + 1 + DOWN_S  # it hangs, and is about to be replaced
            passage.model_status = 408
            message = "the model did not answer within %d ms" % (deployment.timeout * 1000)
            return error(408, message, [("x-ms-run-function-failed", "True")])
        except OSError:
            return error(503, NOT_REACHABLE, RETRY)
        passage.model_status = status
        kept = [header for header in headers if header[0] not in HOP_HEADERS]
        kept += (("azureml-model-deployment", deployment.name), ("x-yard-prediction-id", passage.prediction))
        return Response(status, body, kept, content_type=None)

    def _count(self, passage, response):
        ms = (time.perf_counter() - passage.began) * 1000
        name = passage.deployment
        self.counts[passage.endpoint if name else "unknown", name, response.status, "mirror" if passage.mirrored else ""] += 1
        if name and not passage.mirrored:
            found = self.times.get((passage.endpoint, name))
            if found is None:
                found = self.times[passage.endpoint, name] = [[0] * (len(BUCKETS_MS) + 1), 0, 0.0]
            found[0][bisect.bisect_left(BUCKETS_MS, ms)] += 1
            found[1] += 1
            found[2] += ms
        if passage.request.path == "/":
            return
        if not self.lines:
            self.loop.call_later(LOG_EVERY_S, self._write_log)
        self.lines.append(passage.line(response, ms))

    def _write_log(self):
        """What was answered since the last time, in one write."""
        lines, self.lines = self.lines, []
        try:
            self.log.write(b"".join(orjson.dumps(line) + b"\n" for line in lines))
            if self.log.tell() > LOG_BYTES:
                self.log.close()
                os.replace(self.config["log"], self.config["log"] + ".1")
                self.log = open(self.config["log"], "ab", buffering=0)
        except OSError:
            pass


def _uuid7():
    """RFC 9562."""
    value = (int(time.time() * 1000) << 80) | 0x7 << 76 | random.getrandbits(12) << 64 | 0x2 << 62 | random.getrandbits(62)
    text = "%032x" % value
    return "%s-%s-%s-%s-%s" % (text[:8], text[8:12], text[12:16], text[16:20], text[20:])


async def run(config):
    import sandbox

    sandbox.hide()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    router = Router(config)
    if os.path.exists(config["control"]):
        os.unlink(config["control"])
    os.chdir(os.path.dirname(config["control"]))
    control, _ = await http1.serve(router.control, 1 << 20, path=os.path.basename(config["control"]))
    os.chmod(os.path.basename(config["control"]), 0o600)
    server, listener = await http1.serve(router.handle, MAX_BODY, host=config["host"], port=config["port"], admit=router.admit)
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE)  # what a request leaves is gone without it
    print("router: listening on %s:%d" % (config["host"], config["port"]), flush=True)
    loop = asyncio.get_running_loop()
    stop = loop.create_future()
    import signal

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: stop.done() or stop.set_result(None))
    await stop
    server.close()
    control.close()
    until = loop.time() + 5
    while listener.busy() and loop.time() < until:
        await asyncio.sleep(0.05)
    router._write_log()


def main(path):
    with open(path) as file:
        config = json.load(file)
    http1.start(run(config))


if __name__ == "__main__":
    main(sys.argv[1])

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
import hashlib
import hmac
import json
import os
import random
import resource
import sys
import time

import orjson

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

MAX_BODY = 100 * 1024 * 1024
POOL = 256
HOP_HEADERS = (
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
    "host",
    "authorization",
    "expect",
)
MIRRORS = 64
TOKENS_KEPT = 10_000
ALGORITHMS = ["EdDSA", "RS256", "ES256"]
CALLER_CLAIMS = ("sub", "oid", "azp", "appid", "email", "preferred_username")
RELAYED = 16
LARGE_ANSWER = 256 * 1024
BUCKETS_MS = (5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000)
LOG_EVERY_S = 0.1
WAKE_S = 120.0
LOG_BYTES = 64 * 1024 * 1024
DOWN_S = 0.3


class NotConnected(Exception):
    """No replica listened at a socket; the request has not been sent."""


class TooLate(Exception):
    """The replica did not answer in time."""


class Deployment:
    """The replicas of one deployment and how many requests they may hold.

    A new table changes it in place: what is under way, and who waits, stays as it is.
    """

    def __init__(self, document):
        self.name = document["name"]
        self.busy = {}
        self.waiting = collections.deque()
        self.idle = {}
        self.down = {}  # socket → until when nobody is sent there, because nothing listened
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
        self.sockets = document["sockets"]
        self.timeout = document["timeout_ms"] / 1000
        self.queue_wait = document["queue_ms"] / 1000
        self.each = document["concurrent"]
        if document.get("rate") != self.rate:
            self.rate = document.get("rate")  # [requests, seconds], or None
            self.allowance = float(self.rate[0]) if self.rate else 0.0
        for socket in self.sockets:
            self.busy.setdefault(socket, 0)
            self.idle.setdefault(socket, [])
        for socket in [socket for socket in self.busy if socket not in self.sockets]:
            for replica in self.idle[socket]:
                replica.transport.close()
            self.idle[socket] = []
            self._forget(socket)
        self._hand_out()

    def _forget(self, socket):
        """A replica that is gone, once nothing of it is under way."""
        if not self.busy[socket]:
            del self.busy[socket], self.idle[socket]
            self.down.pop(socket, None)

    @property
    def load(self):
        return sum(self.busy.values()) + len(self.waiting) + self.held

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
        """A replica that is free now, or None."""
        socket = self._free()
        if socket is not None:
            self.busy[socket] += 1
        return socket

    async def acquire(self):
        """A replica with room, the least busy one; None when none got free within the queue's time."""
        socket = self.try_acquire()
        self.peak = max(self.peak, self.load)
        if socket is not None:
            return socket
        if len(self.waiting) >= 1000:
            return None
        turn = asyncio.get_running_loop().create_future()
        self.waiting.append(turn)
        self.peak = max(self.peak, self.load)
        try:
            return await asyncio.wait_for(turn, self.queue_wait)
        except asyncio.TimeoutError:
            return None

    def _free(self):
        now = time.monotonic()
        there = [socket for socket in self.sockets if self.down.get(socket, 0) < now] or self.sockets
        socket = min(there, key=self.busy.__getitem__) if there else None
        return socket if socket is not None and self.busy[socket] < self.each else None

    def release(self, socket):
        self.busy[socket] -= 1
        if socket not in self.sockets:
            self._forget(socket)
        self._hand_out()

    def keep(self, socket, replica):
        """Keep a connection for the next request; False when it is not wanted any more."""
        if replica.closed or socket not in self.sockets or len(self.idle[socket]) >= POOL:
            return False
        self.idle[socket].append(replica)
        return True

    def _hand_out(self):
        """Free replicas to those who wait, first come first served."""
        while self.waiting:
            socket = self._free()
            if socket is None:
                return
            turn = self.waiting.popleft()
            if not turn.done():
                self.busy[socket] += 1
                turn.set_result(socket)


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


class Relay:
    """The body of an answer that is large or whose end is not known yet, passed on as it comes."""

    def __init__(self, replica, length=None):
        self.replica = replica
        self.length = length
        self.chunks = collections.deque()
        self.more = asyncio.Event()
        self.ended = self.broken = False
        self.size = 0
        self.done = None

    def __len__(self):
        return self.size

    def feed(self, data):
        self.chunks.append(data)
        self.size += len(data)
        self.more.set()
        if len(self.chunks) >= RELAYED:
            self.replica.transport.pause_reading()

    def end(self, broken):
        self.ended, self.broken = True, self.broken or broken
        self.more.set()

    def __aiter__(self):
        return self

    async def __anext__(self):
        while not self.chunks:
            if self.ended:
                raise StopAsyncIteration
            self.more.clear()
            await self.more.wait()
        if len(self.chunks) == RELAYED and not self.replica.closed:
            self.replica.transport.resume_reading()
        return self.chunks.popleft()

    def close(self):
        """The caller has it all, or is gone."""
        if self.done is not None:
            done, self.done = self.done, None
            done(self.ended and not self.broken)


class Replica(asyncio.Protocol):
    """One kept connection to a model server; one request at a time."""

    def __init__(self):
        import httptools

        self.make_parser = lambda: httptools.HttpResponseParser(self)
        self.transport = None
        self.answer = None
        self.closed = False
        self.relay = None

    def connection_made(self, transport):
        self.transport = transport

    def connection_lost(self, exc):
        self.closed = True
        if self.relay is not None:
            self.relay.end(broken=True)
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(ConnectionResetError("the model server closed the connection"))

    def data_received(self, data):
        try:
            self.parser.feed_data(data)
        except Exception as problem:
            if self.answer is not None and not self.answer.done():
                self.answer.set_exception(ConnectionResetError("unreadable answer: %s" % problem))
            self.transport.close()

    def ask(self, data, deadline):
        """A future of (status, headers, body, whether the connection can be kept); TooLate when it does not come by the deadline."""
        self.parser = self.make_parser()
        self.headers = []
        self.body = []
        self.relay = None
        loop = asyncio.get_running_loop()
        self.answer = answer = loop.create_future()
        timer = loop.call_at(deadline, self._late, answer)
        answer.add_done_callback(lambda _: timer.cancel())
        self.transport.write(data)
        return answer

    @staticmethod
    def _late(answer):
        if not answer.done():
            answer.set_exception(TooLate())

    def on_header(self, name, value):
        self.headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self):
        length = next((int(value) for name, value in self.headers if name == "content-length" and value.isdigit()), None)
        if (("transfer-encoding", "chunked") in self.headers or (length or 0) > LARGE_ANSWER) and not self.answer.done():
            self.relay = Relay(self, length)
            self.answer.set_result((self.parser.get_status_code(), self.headers, self.relay, False))

    def on_body(self, data):
        if self.relay is not None:
            self.relay.feed(data)
        else:
            self.body.append(data)

    def on_message_complete(self):
        if self.relay is not None:
            relay, self.relay = self.relay, None
            relay.end(broken=False)
        elif not self.answer.done():
            keep = self.parser.should_keep_alive()
            self.answer.set_result((self.parser.get_status_code(), self.headers, b"".join(self.body), keep))


class Router:
    def __init__(self, config):
        import http1

        self.http1 = http1
        self.config = config
        self.endpoints = {}
        self.started = time.time()
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
            return self.http1.Response(200, b"{}")
        if request.path == "/load":
            found = []
            for path, endpoint in self.endpoints.items():
                for name, deployment in endpoint.deployments.items():
                    found.append([path, name, max(deployment.peak, deployment.load)])
                    deployment.peak = deployment.load
            return self.http1.Response(200, json.dumps(found).encode())
        if request.path == "/metrics":
            answered = [[*key, count] for key, count in self.counts.items()]
            times = [[*key, *found] for key, found in self.times.items()]
            busy = [
                [path, name, sum(deployment.busy.values()), len(deployment.waiting), len(deployment.sockets)]
                for path, endpoint in self.endpoints.items()
                for name, deployment in endpoint.deployments.items()
            ]
            document = {"answered": answered, "times": times, "busy": busy, "buckets_ms": BUCKETS_MS}
            return self.http1.Response(200, json.dumps(document).encode())
        return self.http1.Response(200, json.dumps({"pid": os.getpid(), "endpoints": len(self.endpoints)}).encode())

    async def handle(self, request):
        began = time.perf_counter()
        prediction = _uuid7()
        name, status_of_model, response = "", 0, None
        try:
            name, status_of_model, response = await self._route(request, prediction)
        except Exception as problem:
            print("router: %s: %s" % (type(problem).__name__, problem), file=sys.stderr, flush=True)
            response = self.http1.error(500, "An unexpected internal error occurred.")
        if isinstance(response.body, bytes):
            self._count(request, prediction, name, status_of_model, response, began)
        else:
            after = response.body.done

            def done(whole):
                after(whole)
                self._count(request, prediction, name, status_of_model, response, began)

            response.body.done = done
        return response

    def _count(self, request, prediction, name, status_of_model, response, began, mirrored=False):
        seconds = time.perf_counter() - began
        endpoint = "/".join(request.path.split("/")[1:3])[:200]
        self.counts[endpoint if name else "unknown", name, response.status, "mirror" if mirrored else ""] += 1
        if name and not mirrored:
            found = self.times.setdefault((endpoint, name), [[0] * (len(BUCKETS_MS) + 1), 0, 0.0])
            found[0][bisect.bisect_left(BUCKETS_MS, seconds * 1000)] += 1
            found[1] += 1
            found[2] += seconds * 1000
        if request.path != "/":
            self._note(request, prediction, name, status_of_model, response, seconds, mirrored)

    async def _route(self, request, prediction):
        error = self.http1.error
        parts = request.path.split("/")
        if request.path == "/":
            return "", 0, self.http1.Response(200, b"Healthy", content_type="text/plain")
        endpoint = self._endpoint(request.path)
        route = "/".join(parts[3:])
        if endpoint is None or not (route in ("score", "invocations", "swagger.json", "v2") or route.startswith("v2/")):
            return "", 0, self._nowhere()
        if not self._authentic(request.headers, endpoint):
            return "", 0, self._unknown(endpoint)
        wanted = request.headers.get("azureml-model-deployment")
        deployment = endpoint.deployments.get(wanted) if wanted else endpoint.draw()
        if deployment is None:
            if wanted:
                return "", 0, error(404, "this endpoint has no deployment %s" % wanted[:64])
            return "", 0, error(503, "this endpoint sends no traffic to any deployment", [("retry-after", "1")])
        if not deployment.within_rate():
            return (
                deployment.name,
                0,
                error(429, "this deployment takes %d requests in %g s" % tuple(deployment.rate), [("retry-after", "1")]),
            )
        if endpoint.mirror is not None and not wanted:
            self._mirror(request, prediction, route, endpoint, deployment)
        if not deployment.sockets:
            deployment = await self._awake("/".join(parts[1:3]), deployment)
        for _ in range(len(deployment.sockets) + 1):
            socket = await deployment.acquire()
            if socket is None:
                return deployment.name, 0, error(429, "too many requests at the same time", [("retry-after", "1")])
            held = True
            try:
                name, status, response = await self._ask(request, prediction, route, deployment, socket)
                if not isinstance(response.body, bytes):
                    held = False  # until the stream has ended
                    self._hold(response.body, deployment, socket)
                return name, status, response
            except NotConnected:
                deployment.down[socket] = time.monotonic() + DOWN_S  # nothing was sent: another replica may answer
            finally:
                if held:
                    deployment.release(socket)
        return deployment.name, 0, error(503, "the model server is not reachable at present", [("retry-after", "1")])

    async def _awake(self, path, deployment):
        """The deployment with its first instance: it sleeps, and is woken because this request waits."""
        until = time.monotonic() + WAKE_S
        while not deployment.sockets and time.monotonic() < until:
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

    @staticmethod
    def _hold(relay, deployment, socket):
        def done(whole):
            deployment.release(socket)
            if not whole or not deployment.keep(socket, relay.replica):
                relay.replica.transport.abort()

        relay.done = done

    def _mirror(self, request, prediction, route, endpoint, chosen):
        """Send the request to the mirror as well, when it has room right now; whatever it answers is only counted."""
        name, share = endpoint.mirror
        deployment = endpoint.deployments[name]
        if name == chosen.name or random.random() * 100 >= share or len(endpoint.mirrored) >= MIRRORS:
            return
        socket = deployment.try_acquire()
        if socket is None:
            self.counts["/".join(request.path.split("/")[1:3]), name, 0, "mirror dropped"] += 1
            return
        task = asyncio.ensure_future(self._ask_mirror(request, prediction, route, deployment, socket))
        endpoint.mirrored.add(task)
        task.add_done_callback(endpoint.mirrored.discard)

    async def _ask_mirror(self, request, prediction, route, deployment, socket):
        began = time.perf_counter()
        try:
            name, status, response = await self._ask(request, prediction, route, deployment, socket)
            if not isinstance(response.body, bytes):
                response.body.replica.transport.abort()
            self._count(request, prediction, name, status, response, began, mirrored=True)
        except NotConnected:
            deployment.down[socket] = time.monotonic() + DOWN_S
        except Exception as problem:
            print("router: mirror: %s: %s" % (type(problem).__name__, problem), file=sys.stderr, flush=True)
        finally:
            deployment.release(socket)

    def admit(self, path, headers):
        """Refuses a large request before its body has come: nobody without a key fills this process."""
        endpoint = self._endpoint(path)
        if endpoint is None:
            return self._nowhere()
        return None if self._authentic(headers, endpoint) else self._unknown(endpoint)

    def _endpoint(self, path):
        parts = path.split("/")
        return self.endpoints.get("%s/%s" % (parts[1], parts[2])) if len(parts) >= 4 else None

    def _nowhere(self):
        return self.http1.error(404, "there is no endpoint at this address")

    def _unknown(self, endpoint):
        needed = "token" if endpoint.tokens else "key"
        message = "a %s of this endpoint is needed: Authorization: Bearer %s" % (needed, needed.upper())
        return self.http1.error(401, message, [("www-authenticate", 'Bearer realm="endpoint"')])

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

    async def _ask(self, request, prediction, route, deployment, socket):
        lines = ["%s /%s%s HTTP/1.1" % (request.method, route, "?" + request.query if request.query else ""), "host: model"]
        lines += ["%s: %s" % header for header in request.headers.items() if header[0] not in HOP_HEADERS]
        if "x-request-id" not in request.headers:
            lines.append("x-request-id: " + prediction)
        lines.append("content-length: %d" % len(request.body))
        data = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + request.body
        error = self.http1.error
        deadline = asyncio.get_running_loop().time() + deployment.timeout
        for fresh in (False, True):
            replica = None
            try:
                try:
                    replica = await self._connect(deployment, socket, fresh)
                except OSError:
                    raise NotConnected() from None
                status, headers, body, keep = await replica.ask(data, deadline)
            except TooLate:
                replica.transport.abort()
                deployment.down[socket] = time.monotonic() + 1 + DOWN_S  # it hangs, and is about to be replaced
                message = "the model did not answer within %d ms" % (deployment.timeout * 1000)
                return deployment.name, 408, error(408, message, [("x-ms-run-function-failed", "True")])
            except OSError:
                if not fresh and replica is not None and not replica.body and not replica.headers:
                    continue  # a kept connection that had been closed meanwhile; a new one tells
                return deployment.name, 0, error(503, "the model server is not reachable at present", [("retry-after", "1")])
            if not isinstance(body, bytes):
                pass  # it goes on; the connection is given back when it ends
            elif not keep or not deployment.keep(socket, replica):
                replica.transport.close()
            kept = [header for header in headers if header[0] not in HOP_HEADERS]
            kept += [("azureml-model-deployment", deployment.name), ("x-yard-prediction-id", prediction)]
            return deployment.name, status, self.http1.Response(status, body, kept, content_type=None)
        return deployment.name, 0, error(503, "the model server is not reachable at present", [("retry-after", "1")])

    @staticmethod
    async def _connect(deployment, socket, fresh):
        idle = deployment.idle[socket]
        if not fresh:
            while idle:
                replica = idle.pop()
                if not replica.closed:
                    return replica
        folder = os.open(os.path.dirname(socket), os.O_RDONLY)
        try:
            # Through the descriptor: the path of a unix socket has 107 bytes at most.
            short = "/proc/self/fd/%d/%s" % (folder, os.path.basename(socket)) if sys.platform.startswith("linux") else socket
            _, replica = await asyncio.get_running_loop().create_unix_connection(Replica, short)
        finally:
            os.close(folder)
        return replica

    def _note(self, request, prediction, name, status_of_model, response, seconds, mirrored):
        line = {
            "time": int(time.time() * 1000),
            "prediction_id": prediction,
            "path": request.path[:200],
            "deployment": name,
            "status": response.status,
            "model_status": status_of_model,
            "ms": round(seconds * 1000, 3),
            "bytes_in": len(request.body),
            "bytes_out": len(response.body),
            "client_request_id": request.headers.get("x-ms-client-request-id", "")[:100],
            "request_id": request.headers.get("x-request-id", "")[:100],
            **({"mirror": True} if mirrored else {}),
        }
        self.lines.append(line)
        if len(self.lines) == 1:
            asyncio.get_running_loop().call_later(LOG_EVERY_S, self._write_log)

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
    import http1
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
    from http1 import start

    start(run(config))


if __name__ == "__main__":
    main(sys.argv[1])

"""Serves one loaded model over a unix socket: readiness and liveness probes, the model's own addresses, errors, and a drain at the end.

A call that runs longer than `timeout_ms` is answered 500, and its thread left to itself. When MOST_HUNG of them hang the process ends, for
only a new one is free of them: the supervisor starts it. At SIGTERM the server drains: no connection is accepted, and the requests in flight are answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import traceback
import uuid
from typing import Any, Callable

from modelyard_runtime import files, protocol
from modelyard_runtime.protocol import ModelKind, ModelServerConfig
from modelyard_runtime.scoring.contract import Answer, BadInput, Model, NotSendable, UnsupportedType
from modelyard_runtime.scoring.mlflow import MlflowModel
from modelyard_runtime.scoring.open_inference import OpenInference
from modelyard_runtime.scoring.script import ScriptModel
from modelyard_runtime.serving import http1
from modelyard_runtime.serving.http1 import Request, Response, error
from modelyard_runtime.serving.worker import MOST_BATCHED, Hung, Worker

HANG_GRACE_S = 0.05
TRACED, MOST_TRACED = ("x-request-id", "x-ms-request-id", "x-ms-client-request-id"), 100
NOT_FAILED = ("x-ms-run-function-failed", "False")
INTERNAL = "An unexpected internal error occurred. Check the logs for more info."
DRAIN_S = 8.0
"""Less than the ten seconds between the runner's SIGTERM and its SIGKILL."""
log = logging.getLogger("model_server")


class Server:
    """Answers probes and unknown paths itself; whatever runs user code goes through the worker."""

    def __init__(self, model: Model, config: ModelServerConfig) -> None:
        self.routes = model.routes()
        self.methods = model.methods
        self.timeout = config.timeout_ms / 1000
        self.socket = config.socket
        self.version = os.environ.get("HTTP_X_MS_SERVER_VERSION", "modelyard")
        self.worker = Worker(model.batch, self.timeout, self._overrun)
        self.inference = OpenInference(model, config.name, config.version) if isinstance(model, MlflowModel) else None

    async def handle(self, request: Request) -> Response:
        try:
            return await self._handle(request)
        except Exception:
            traceback.print_exc()
            return error(500, INTERNAL)

    async def _handle(self, request: Request) -> Response:
        path = request.path
        if path == "/" and request.method in ("GET", "HEAD"):
            return Response(200, b"Healthy", content_type="text/html; charset=utf-8")
        if path in ("/ping", "/health") and request.method == "GET":
            return Response(200, b"\n", content_type="application/json")
        handler = self.routes.get(path)
        allowed = self.methods.get(path, ())
        if handler is None and self.inference is not None and (path == "/v2" or path.startswith("/v2/")):
            handler, allowed = self.inference.handle, ("GET", "POST")
        if handler is None:
            return error(404, "there is nothing at %s; a model answers %s" % (path[:200], " and ".join(self.routes)))
        if request.method not in allowed:
            return error(405, "use %s" % allowed[0], [("allow", ", ".join(allowed))])
        for name in TRACED:
            if len(request.headers.get(name, "")) > MOST_TRACED:
                return error(431, "the header %s has more than %d characters" % (name, MOST_TRACED), [NOT_FAILED])
        trace = self._trace(request)
        call = await self.worker.ask(handler, request)
        response = self._response(call.answer)
        response.headers += [*trace, ("x-ms-run-fn-exec-ms", "%.3f" % (call.spent * 1000)), ("x-ms-server-version", self.version)]
        failed = (
            response.status >= 500 and not isinstance(call.answer, NotSendable) or isinstance(call.answer, Answer) and call.answer.failed
        )
        response.headers.append(("x-ms-run-function-failed", "True") if failed else NOT_FAILED)
        return response

    def _response(self, answer: Answer | BaseException | None) -> Response:
        if isinstance(answer, Answer):
            body: Any = answer.body  # bytes, or by now an http1.Stream
            return Response(answer.status, body, answer.headers, content_type=answer.content_type)
        if isinstance(answer, BadInput):
            return error(400, str(answer))
        if isinstance(answer, UnsupportedType):
            return error(415, str(answer))
        if isinstance(answer, Hung):
            log.error("a call ran longer than %d ms; its thread is left to itself", self.timeout * 1000)
            return error(500, "Scoring timeout after %d ms" % (self.timeout * 1000))
        if answer is not None:
            traceback.print_exception(type(answer), answer, answer.__traceback__)
        if isinstance(answer, NotSendable):
            return error(500, INTERNAL)
        if isinstance(answer, SystemExit):
            # The script called sys.exit: the process ends once the answer is written.
            asyncio.get_running_loop().call_later(HANG_GRACE_S, os._exit, 4)
        return error(500, "An unexpected error occurred in scoring script. Check the logs for more info.")

    def _overrun(self) -> None:
        log.error("%d calls hang; this process ends and is replaced", self.worker.hung)
        # No connection is accepted any more, so that the router turns to another replica at once.
        if os.path.exists(self.socket):
            os.unlink(self.socket)
        asyncio.get_running_loop().call_later(HANG_GRACE_S, os._exit, 4)

    def _trace(self, request: Request) -> list[tuple[str, str]]:
        """The headers by which a caller finds its request again."""
        request_id, old, client = (request.headers.get(name, "") for name in TRACED)
        id = request_id or str(uuid.uuid4())
        headers = [("x-request-id", id), ("x-ms-request-id", old or client or id)]
        if client:
            headers.append(("x-ms-client-request-id", client))
        if "traceid" in request.headers:
            headers.append(("traceid", request.headers["traceid"]))
        return headers


def load(config: ModelServerConfig) -> Model:
    return ScriptModel(config) if config.kind is ModelKind.SCRIPT else MlflowModel(config)


async def serve(model: Model, config: ModelServerConfig, ready: Callable[[], None]) -> None:
    """Until SIGTERM; `ready` is called once requests are answered."""
    together = model.batch is not None and model.batch.most > 1
    folder = os.path.dirname(config.socket)
    marker, new = os.path.join(folder, protocol.BATCHING_FILE), os.path.join(folder, "new.sock")
    for path in (config.socket, marker):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    if together:
        open(marker, "w").close()
    listener = files.bound_socket(new, 0o666)
    concurrency = MOST_BATCHED if together else 1
    server, connections = await http1.serve(
        Server(model, config).handle, config.max_body, listener, concurrency=concurrency, peers=config.peers
    )
    loop = asyncio.get_running_loop()

    def proven() -> None:
        open(marker, "w").close()
        connections.renew(MOST_BATCHED)

    if model.batch is not None:
        model.batch.proven = lambda: loop.call_soon_threadsafe(proven)
    os.rename(new, config.socket)  # the socket appears only when it answers
    if config.code:
        os.chdir(config.code)
    ready()
    await http1.asked_to_stop()
    server.close()
    await http1.drain(connections, DRAIN_S)
    os._exit(0)

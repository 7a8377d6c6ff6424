"""Serves one model from its own environment: a scoring script with `init()` and `run()`, or an MLflow model without code.

    python -I model_server.py CONFIG.json

CONFIG: {socket, kind: script|mlflow, name, version, code, script, model_dir, kit, twin (where an ONNX twin is kept, or null),
timeout_ms, max_body}. Runs on the deployment's own Python and packages; `kit` (httptools, uvloop, orjson, werkzeug) and the shims
come last on `sys.path`, so that the user's packages win.

One thread runs user code, in the order of arrival; the event loop stays free to answer probes. Requests that waited while it ran and
that the model can take together are predicted in one call; a batch that fails is run again one by one. A model of a proven flavour that
predicts within a few milliseconds does so on the event loop itself, whose next turn collects what arrived meanwhile: the way to the
thread and back would take longer than the prediction. A call that runs longer than `timeout_ms` is answered 500 and the process ends:
only a new process is free of it. Exit codes: 3 the model or script could not be loaded, 4 a call hung.
"""

import asyncio
import faulthandler
import gc
import importlib
import json
import logging
import os
import queue
import signal
import sys
import threading
import time
import traceback
import types
import uuid

HERE = os.path.dirname(os.path.abspath(__file__))
HANG_GRACE_S = 0.05
GUARD_S = 1.0
MOST_TOGETHER = 256
TOGETHER = "together"
"""The file beside the socket that tells the router that requests of one connection are worked on together."""
QUICK_S, SMALL = 0.005, 64 * 1024
"""Predictions that take less, of bodies that are smaller, are made on the event loop."""
TRACED, MOST_TRACED = ("x-request-id", "x-ms-request-id", "x-ms-client-request-id"), 100
NOT_FAILED = ("x-ms-run-function-failed", "False")
INTERNAL = "An unexpected internal error occurred. Check the logs for more info."
DRAIN_S = 8.0
log = logging.getLogger("model_server")
OWN = ("contract", "http1", "onnx_twin", "openapi", "open_inference", "scoring_mlflow", "scoring_script")
own = types.SimpleNamespace()
"""The modules beside this file. They are taken out of the way before user code is loaded, which may have modules of these names."""


def load_own():
    sys.path.insert(0, HERE)
    for name in OWN:
        setattr(own, name, importlib.import_module(name))
    for name in OWN:
        del sys.modules[name]
    sys.path.remove(HERE)


class Call:
    """A request on its way through the model's thread."""

    __slots__ = ("handler", "request", "future", "answer", "spent", "rows", "alone")

    def __init__(self, handler, request, future):
        self.handler, self.request, self.future = handler, request, future
        self.answer = None
        self.spent = 0.0
        self.rows = None
        self.alone = False  # it is not, or not any more, to be predicted with others


class Worker:
    """The thread that runs user code, and the watch over it. Only who holds `turn` runs user code."""

    def __init__(self, batch, timeout, hung):
        self.batch, self.timeout, self.hung = batch, timeout, hung
        self.loop = asyncio.get_running_loop()
        self.queue = queue.SimpleQueue()
        self.turn = threading.Lock()
        self.quick = False
        self.arrived = []
        self.running = []
        self.since = None
        self.watching = False
        threading.Thread(target=self._run, name="run", daemon=True).start()

    def ask(self, handler, request):
        """A future of the call, once it was answered or, for a stream, has begun."""
        call = Call(handler, request, self.loop.create_future())
        if not self.quick or len(request.body) > SMALL:
            self.queue.put(call)
        else:
            if not self.arrived:
                self.loop.call_soon(self._here)
            self.arrived.append(call)
        if not self.watching:
            self.watching = True
            self.loop.call_later(self.timeout, self._watch)
            self._guard()
        return call.future

    def _guard(self):
        """A call that never lets go of the interpreter stops the watch as well; this one needs no interpreter, says where, and ends it."""
        faulthandler.dump_traceback_later(2 * self.timeout + GUARD_S, exit=True)

    def _watch(self):
        since = self.since
        now = time.monotonic()
        if since is not None and now - since >= self.timeout:
            self.hung([call for call in self.running if not call.future.done()])
            return
        if since is None and self.queue.empty() and not self.arrived:
            self.watching = False
            faulthandler.cancel_dump_traceback_later()
            return
        self._guard()
        self.loop.call_later(max(0.001, self.timeout - (now - since)) if since is not None else self.timeout, self._watch)

    def _here(self):
        """On the event loop: answer what came in its last turn, unless the thread is at work; the thread answers the rest."""
        calls, self.arrived = self.arrived, []
        if self.turn.acquire(blocking=False):
            try:
                calls = self._together(calls, _tell)
            finally:
                self.turn.release()
        for call in calls:
            self.queue.put(call)

    def _run(self):
        while True:
            calls = [self.queue.get()]
            while len(calls) < MOST_TOGETHER:
                try:
                    calls.append(self.queue.get_nowait())
                except queue.Empty:
                    break
            with self.turn:
                alone = self._together(calls, self._tell_loop) if self.batch is not None else calls
                for call in alone:
                    self._alone(call)

    def _together(self, calls, tell):
        """Answer what can be predicted in one call; the others."""
        same = [call for call in calls if self._decoded(call)]
        if not same:
            return calls
        self._begin(same)
        began = time.perf_counter()
        try:
            rows = same[0].rows[0] if len(same) == 1 else [row for call in same for row in call.rows[0]]
            found = self.batch.predict(rows)
            if len(found) != len(rows):
                raise ValueError("%d predictions of %d rows" % (len(found), len(rows)))
            start = 0
            for call in same:
                count = len(call.rows[0])
                call.answer = self.batch.encode(found[start : start + count], call.rows[1])
                start += count
        except Exception:
            pass  # whatever it is, it is told to the one request that it belongs to
        spent = time.perf_counter() - began
        self.quick = spent < QUICK_S
        done = [call for call in same if call.answer is not None]
        for call in done:
            call.spent = spent
        self.since = None
        if done:
            tell(done)
        left = [call for call in calls if call.answer is None]
        for call in left:
            call.alone = True
        return left

    def _decoded(self, call):
        """Whether it can be predicted with others."""
        if not call.alone:
            try:
                call.rows = self.batch.decode(call.request)
            except Exception:
                call.rows = None
            call.alone = call.rows is None
        return not call.alone

    def _alone(self, call):
        self._begin([call])
        began = time.perf_counter()
        try:
            call.answer = call.handler(call.request)
        except BaseException as problem:
            call.answer = problem
        call.spent = time.perf_counter() - began
        if not isinstance(call.answer, BaseException) and call.answer.is_stream:
            self._stream(call)
        else:
            self.since = None
            self._tell_loop([call])

    def _stream(self, call):
        chunks = call.answer.body
        call.answer.body = stream = own.http1.Stream(self.loop)
        self._tell_loop([call])
        try:
            for chunk in chunks:
                self.since = time.monotonic()
                if not stream.put(chunk):
                    break
            stream.end()
        except BaseException:
            traceback.print_exc()
            stream.end(broken=True)
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                close()
            self.since = None

    def _begin(self, calls):
        self.running = calls
        self.since = time.monotonic()

    def _tell_loop(self, calls):
        self.loop.call_soon_threadsafe(_tell, calls)


def _tell(calls):
    for call in calls:
        if not call.future.done():
            call.future.set_result(call)


class Server:
    def __init__(self, model, config):
        self.Response, self.error = own.http1.Response, own.http1.error
        self.routes = model.routes()
        self.methods = model.methods
        self.timeout = config["timeout_ms"] / 1000
        self.socket = config["socket"]
        self.version = os.environ.get("HTTP_X_MS_SERVER_VERSION", "modelyard")
        self.worker = Worker(model.batch, self.timeout, self._hung)
        self.inference = None
        if config["kind"] == "mlflow":
            self.inference = own.open_inference.OpenInference(model, config.get("name") or "model", config.get("version"))

    async def handle(self, request):
        try:
            return await self._handle(request)
        except Exception:
            traceback.print_exc()
            return self.error(500, INTERNAL)

    async def _handle(self, request):
        path = request.path
        if path == "/" and request.method in ("GET", "HEAD"):
            return self.Response(200, b"Healthy", content_type="text/html; charset=utf-8")
        if path in ("/ping", "/health") and request.method == "GET":
            return self.Response(200, b"\n", content_type="application/json")
        handler = self.routes.get(path)
        allowed = self.methods.get(path, ())
        if handler is None and self.inference is not None and (path == "/v2" or path.startswith("/v2/")):
            handler, allowed = self.inference.handle, ("GET", "POST")
        if handler is None:
            return self.error(404, "there is nothing at %s; a model answers %s" % (path[:200], " and ".join(self.routes)))
        if request.method not in allowed:
            return self.error(405, "use %s" % allowed[0], [("allow", ", ".join(allowed))])
        for name in TRACED:
            if len(request.headers.get(name, "")) > MOST_TRACED:
                return self.error(431, "the header %s has more than %d characters" % (name, MOST_TRACED), [NOT_FAILED])
        trace = self._trace(request)
        call = await self.worker.ask(handler, request)
        response = self._response(call.answer)
        response.headers += [*trace, ("x-ms-run-fn-exec-ms", "%.3f" % (call.spent * 1000)), ("x-ms-server-version", self.version)]
        failed = response.status >= 500 and not isinstance(call.answer, own.contract.NoJson) or getattr(call.answer, "failed", False)
        response.headers.append(("x-ms-run-function-failed", "True") if failed else NOT_FAILED)
        return response

    def _response(self, answer):
        if not isinstance(answer, BaseException):
            return self.Response(answer.status, answer.body, answer.headers, content_type=answer.content_type)
        if isinstance(answer, own.contract.BadInput):
            return self.error(400, str(answer))
        if type(answer).__name__ == "UnsupportedType":
            return self.error(415, str(answer))
        if type(answer).__name__ == "Hung":
            return self.error(500, "Scoring timeout after %d ms" % (self.timeout * 1000))
        traceback.print_exception(type(answer), answer, answer.__traceback__)
        if isinstance(answer, own.contract.NoJson):
            return self.error(500, INTERNAL)
        if isinstance(answer, SystemExit):
            asyncio.get_running_loop().call_later(HANG_GRACE_S, os._exit, 4)  # the script wants to end: so it does
        return self.error(500, "An unexpected error occurred in scoring script. Check the logs for more info.")

    def _hung(self, calls):
        log.error("a call ran longer than %d ms; this process ends and is replaced", self.timeout * 1000)
        # Nobody is let in any more, so that the router turns to another replica at once.
        if os.path.exists(self.socket):
            os.unlink(self.socket)
        for call in calls:
            call.answer, call.spent = Hung(), self.timeout
        _tell(calls)
        asyncio.get_running_loop().call_later(HANG_GRACE_S, os._exit, 4)

    def _trace(self, request):
        given, old, client = (request.headers.get(name, "") for name in TRACED)
        id = given or str(uuid.uuid4())
        found = [("x-request-id", id), ("x-ms-request-id", old or client or id)]
        if client:
            found.append(("x-ms-client-request-id", client))
        if "traceid" in request.headers:
            found.append(("traceid", request.headers["traceid"]))
        return found


class Hung(Exception):
    """The call ran longer than it may."""


async def serve(model, config):
    path = config["socket"]
    # Bound under another name and moved: the socket appears only when it answers.
    os.chdir(os.path.dirname(path))
    for name in ("new.sock", os.path.basename(path), TOGETHER):
        if os.path.lexists(name):
            os.unlink(name)
    if model.batch is not None:
        open(TOGETHER, "w").close()
    together = MOST_TOGETHER if model.batch is not None else 1
    server, listener = await own.http1.serve(Server(model, config).handle, config["max_body"], path="new.sock", together=together)
    os.chmod("new.sock", 0o666)
    os.rename("new.sock", os.path.basename(path))
    if config.get("code"):
        os.chdir(config["code"])
    print("[modelyard] ready", flush=True)
    loop = asyncio.get_running_loop()
    stop = loop.create_future()
    loop.add_signal_handler(signal.SIGTERM, lambda: stop.done() or stop.set_result(None))
    await stop
    # What is under way comes to its end; the runner waits for some ten seconds.
    server.close()
    until = loop.time() + DRAIN_S
    while listener.busy() and loop.time() < until:
        await asyncio.sleep(0.02)
    os._exit(0)


def load(config):
    return own.scoring_script.ScriptModel(config) if config["kind"] == "script" else own.scoring_mlflow.MlflowModel(config)


def main(path):
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stdout)
    with open(path) as file:
        config = json.load(file)
    sys.path += [config["kit"], os.path.join(HERE, "shims")]
    load_own()
    gc.disable()  # what is loaded stays
    began = time.monotonic()
    try:
        model = load(config)
    except BaseException as problem:
        traceback.print_exc()
        print("[modelyard] the model could not be loaded: %s: %s" % (type(problem).__name__, problem), flush=True)
        os._exit(3)
    print("[modelyard] loaded in %.1f s" % (time.monotonic() - began), flush=True)
    gc.freeze()  # a collection while serving would walk every package for a tenth of a second
    gc.enable()
    own.http1.start(serve(model, config))


if __name__ == "__main__":
    main(sys.argv[1])

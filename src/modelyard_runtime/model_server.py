"""Serves one model from its own environment: a scoring script with `init()` and `run()`, or an MLflow model without code.

    python -I model_server.py CONFIG.json

CONFIG: {socket, kind: script|mlflow, code, script, model_dir, kit, timeout_ms, max_body}. Runs on the deployment's own
Python and packages; `kit` (httptools, uvloop, orjson) comes last on `sys.path`, so that the user's packages win.

One thread runs user code, in the order of arrival; the event loop stays free to answer probes. A call that runs longer
than `timeout_ms` is answered 500 and the process ends: only a new process is free of it. Exit codes: 3 the model or script
could not be loaded, 4 a call hung.
"""

import asyncio
import concurrent.futures
import importlib.util
import inspect
import json
import logging
import os
import sys
import time
import traceback
import uuid

HERE = os.path.dirname(os.path.abspath(__file__))
HANG_GRACE_S = 0.05
log = logging.getLogger("model_server")


class BadInput(Exception):
    """The caller's fault: answered 400 with the message."""


class ScriptModel:
    """Azure's contract (reference `serving-contracts`, section 2): `init()` once, `run(raw_data)` with the body as text."""

    def __init__(self, config):
        code = config["code"]
        path = os.path.join(code, config["script"])
        if not os.path.isfile(path):
            raise FileNotFoundError("the scoring script %s is not in the code folder" % config["script"])
        sys.path.insert(0, os.path.dirname(path))
        if os.path.dirname(path) != code:
            sys.path.insert(0, code)
        os.chdir(code)
        spec = importlib.util.spec_from_file_location("entry_module", path)
        module = importlib.util.module_from_spec(spec)
        sys.modules["entry_module"] = module
        spec.loader.exec_module(module)
        for name in ("init", "run"):
            if not callable(getattr(module, name, None)):
                raise AttributeError("the scoring script %s defines no function %s()" % (config["script"], name))
        self.run = module.run
        self.parameters = list(inspect.signature(module.run).parameters)
        module.init()

    def score(self, request):
        arguments = {}
        if "request_headers" in self.parameters:
            arguments["request_headers"] = dict(request.headers)
        if request.method == "GET":
            from urllib.parse import parse_qsl

            for name, value in parse_qsl(request.query):
                arguments[name] = _json_or_text(value)
            return self.run(**arguments)
        first = next((name for name in self.parameters if name != "request_headers"), None)
        if first is None:
            return self.run(**arguments)
        arguments[first] = request.body.decode("utf-8")
        return self.run(**arguments)

    def routes(self):
        return {"/score": self.score}


class MlflowModel:
    """An MLflow model without a script: Azure's `input_data` at /score, MLflow's own forms at /invocations."""

    def __init__(self, config):
        import mlflow.pyfunc

        root = config["model_dir"]
        folder = next((current for current, _, files in os.walk(root) if "MLmodel" in files), None)
        if folder is None:
            raise FileNotFoundError("the model holds no MLmodel file; a model without one needs a scoring script")
        self.model = mlflow.pyfunc.load_model(folder)
        self.schema = self.model.metadata.get_input_schema() if self.model.metadata is not None else None

    def score(self, request):
        document = _json_body(request)
        if "input_data" not in document:
            raise BadInput('the body must be {"input_data": …}: a split frame, records, rows or named tensors')
        return self._predict(self._input(document["input_data"]), document.get("params"))

    def invocations(self, request):
        document = _json_body(request)
        forms = [name for name in ("dataframe_split", "dataframe_records", "instances", "inputs") if name in document]
        if len(forms) != 1:
            raise BadInput("the body must have exactly one of dataframe_split, dataframe_records, instances and inputs")
        return {"predictions": self._predict(self._input(document[forms[0]]), document.get("params"))}

    def routes(self):
        return {"/score": self.score, "/invocations": self.invocations}

    def _predict(self, data, params):
        from mlflow.exceptions import MlflowException

        try:
            result = self.model.predict(data, params=params) if params else self.model.predict(data)
        except MlflowException as problem:
            if problem.get_http_status_code() == 400:
                raise BadInput(problem.message) from None
            raise
        return _plain(result)

    def _input(self, value):
        import numpy
        import pandas

        columns = self.schema.input_names() if self.schema is not None and self.schema.has_input_names() else None
        if isinstance(value, dict) and "data" in value and "columns" in value:
            frame = pandas.DataFrame(value["data"], columns=value["columns"])
            return self._typed(frame)
        if isinstance(value, dict):
            if self.schema is not None and not self.schema.is_tensor_spec():
                return self._typed(pandas.DataFrame({name: _column(items) for name, items in value.items()}))
            return {name: numpy.asarray(items) for name, items in value.items()}
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return self._typed(pandas.DataFrame(value))
        if isinstance(value, list):
            if self.schema is not None and self.schema.is_tensor_spec():
                kind = self.schema.numpy_types()[0]
                return numpy.asarray(value, dtype=kind)
            if columns is not None:
                rows = [row if isinstance(row, list) else [row] for row in value]
                if any(len(row) != len(columns) for row in rows):
                    raise BadInput("each row needs %d values: %s" % (len(columns), ", ".join(map(str, columns[:20]))))
                return self._typed(pandas.DataFrame(rows, columns=columns))
            return numpy.asarray(value)
        raise BadInput("input_data is a split frame, a list of records or rows, or named tensors")

    def _typed(self, frame):
        """JSON does not tell integers from floats: columns take the types of the signature when that loses nothing."""
        import numpy

        if self.schema is None or self.schema.is_tensor_spec() or not self.schema.has_input_names():
            return frame
        for name, kind in self.schema.input_dict().items():
            if name not in frame.columns:
                continue
            wanted = kind.type.name if hasattr(kind.type, "name") else ""
            try:
                if wanted in ("double", "float"):
                    frame[name] = frame[name].astype(numpy.float64 if wanted == "double" else numpy.float32)
                elif wanted in ("long", "integer"):
                    cast = frame[name].astype(numpy.int64 if wanted == "long" else numpy.int32)
                    if (cast == frame[name]).all():
                        frame[name] = cast
                elif wanted == "datetime":
                    frame[name] = frame[name].astype("datetime64[ns]")
            except (ValueError, TypeError) as problem:
                raise BadInput("column %s cannot be read as %s: %s" % (name, wanted, problem)) from None
        return frame


def _column(items):
    return items if isinstance(items, list) else [items]


def _json_or_text(value):
    try:
        return json.loads(value)
    except ValueError:
        return value


def _json_body(request):
    kind = request.headers.get("content-type", "application/json").split(";")[0].strip().lower()
    if kind not in ("application/json", ""):
        raise BadInput("this model takes application/json, not %s" % kind)
    try:
        document = json.loads(request.body)
    except (ValueError, RecursionError) as problem:
        raise BadInput("the body is not valid JSON: %s" % problem) from None
    if not isinstance(document, dict):
        raise BadInput("the body must be a JSON object")
    return document


def _plain(value):
    """Predictions as plain JSON values: frames as records, arrays as lists."""
    if hasattr(value, "to_dict") and hasattr(value, "columns"):
        return value.to_dict(orient="records")
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def encode(result):
    """JSON of whatever `run` returned; numpy values are understood. Raises TypeError for what has no JSON form."""
    try:
        import orjson

        return orjson.dumps(result, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
    except (ImportError, TypeError):
        return json.dumps(_plain(result)).encode()


class Server:
    def __init__(self, model, config):
        from http1 import Response, error

        self.Response, self.error = Response, error
        self.routes = model.routes()
        self.timeout = config["timeout_ms"] / 1000
        self.socket = config["socket"]
        # One thread: user code meets one call at a time, as it does under the original server.
        self.thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="run")
        self.version = os.environ.get("HTTP_X_MS_SERVER_VERSION", "modelyard")

    async def handle(self, request):
        try:
            return await self._handle(request)
        except Exception:
            traceback.print_exc()
            return self.error(500, "An unexpected internal error occurred. Check the logs for more info.")

    async def _handle(self, request):
        if request.path == "/" and request.method in ("GET", "HEAD"):
            return self.Response(200, b"Healthy", content_type="text/plain")
        if request.path in ("/ping", "/health") and request.method == "GET":
            return self.Response(200, b"\n", content_type="text/plain")
        score = self.routes.get(request.path)
        if score is None:
            return self.error(404, "there is nothing at %s; a model answers %s" % (request.path[:200], " and ".join(self.routes)))
        if request.method not in ("POST", "GET") or (request.method == "GET" and request.path != "/score"):
            return self.error(405, "use POST", [("allow", "POST")])
        trace = self._trace(request)
        if trace is None:
            return self.error(431, "the headers x-request-id, x-ms-request-id and x-ms-client-request-id have 100 characters at most")
        began = time.perf_counter()
        response = await self._run(score, request)
        spent = (time.perf_counter() - began) * 1000
        response.headers += [*trace, ("x-ms-run-fn-exec-ms", "%.3f" % spent), ("x-ms-server-version", self.version)]
        if response.status >= 500:
            response.headers.append(("x-ms-run-function-failed", "True"))
        return response

    def _trace(self, request):
        client = request.headers.get("x-ms-client-request-id", "")
        given = request.headers.get("x-request-id", "")
        old = request.headers.get("x-ms-request-id", "")
        if max(len(client), len(given), len(old)) > 100:
            return None
        id = given or str(uuid.uuid4())
        found = [("x-request-id", id), ("x-ms-request-id", old or client or id)]
        if client:
            found.append(("x-ms-client-request-id", client))
        return found

    async def _run(self, score, request):
        loop = asyncio.get_running_loop()
        started = loop.create_future()

        def work():
            loop.call_soon_threadsafe(started.set_result, None)
            return encode(score(request))

        future = loop.run_in_executor(self.thread, work)
        await started  # the time of a request counts from when its turn comes
        try:
            body = await asyncio.wait_for(asyncio.shield(future), self.timeout)
        except asyncio.TimeoutError:
            log.error("a call ran longer than %d ms; this process ends and is replaced", self.timeout * 1000)
            # Nobody is let in any more, so that the router turns to another replica at once.
            if os.path.exists(self.socket):
                os.unlink(self.socket)
            loop.call_later(HANG_GRACE_S, os._exit, 4)
            return self.error(500, "Scoring timeout after %d ms" % (self.timeout * 1000))
        except BadInput as problem:
            return self.error(400, str(problem))
        except UnicodeDecodeError:
            return self.error(400, "the body is not UTF-8 text")
        except Exception:
            traceback.print_exc()
            return self.error(500, "An unexpected error occurred in scoring script. Check the logs for more info.")
        return self.Response(200, body)


async def serve(model, config):
    import http1

    path = config["socket"]
    # Bound under another name and moved: the socket appears only when it answers.
    os.chdir(os.path.dirname(path))
    for name in ("new.sock", os.path.basename(path)):
        if os.path.lexists(name):
            os.unlink(name)
    server, _ = await http1.serve(Server(model, config).handle, config["max_body"], path="new.sock")
    os.chmod("new.sock", 0o666)
    os.rename("new.sock", os.path.basename(path))
    if config.get("code"):
        os.chdir(config["code"])
    print("[modelyard] ready", flush=True)
    async with server:
        await server.serve_forever()


def main(path):
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stdout)
    with open(path) as file:
        config = json.load(file)
    sys.path.insert(0, HERE)
    sys.path.append(config["kit"])
    began = time.monotonic()
    try:
        model = ScriptModel(config) if config["kind"] == "script" else MlflowModel(config)
    except BaseException as problem:
        traceback.print_exc()
        print("[modelyard] the model could not be loaded: %s: %s" % (type(problem).__name__, problem), flush=True)
        os._exit(3)
    print("[modelyard] loaded in %.1f s" % (time.monotonic() - began), flush=True)
    from http1 import start

    start(serve(model, config))


if __name__ == "__main__":
    main(sys.argv[1])

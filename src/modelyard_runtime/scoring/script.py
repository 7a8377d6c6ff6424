"""Azure's contract (reference `serving-contracts`, section 2): `init()` once, `run()` per request, in one of three forms.

`run(raw_data)` gets the body as text; under `@rawhttp` it gets the request; under `@input_schema` it gets typed arguments, by the
names in the JSON body. It returns a JSON value, a response object, or a generator whose chunks are sent as they come.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import io
import json
import os
import sys
from typing import Any, Mapping
from urllib.parse import parse_qsl

from modelyard_runtime.protocol import ModelServerConfig
from modelyard_runtime.scoring import openapi
from modelyard_runtime.scoring.contract import Answer, BadInput, Handler, Request, UnsupportedType, answer_of, json_or_text


class ScriptModel:
    batch = None
    batching = ""
    twin = "not used: only MLflow models without a script can have one"
    methods: Mapping[str, tuple[str, ...]] = {"/score": ("GET", "POST", "OPTIONS"), "/swagger.json": ("GET",)}

    def __init__(self, config: ModelServerConfig) -> None:
        code, script = config.code or "", config.script or ""
        path = os.path.join(code, script)
        if not os.path.isfile(path):
            raise FileNotFoundError("the scoring script %s is not in the code folder" % script)
        sys.path.insert(0, os.path.dirname(path))
        if os.path.dirname(path) != code:
            sys.path.insert(0, code)
        os.chdir(code)
        spec = importlib.util.spec_from_file_location("entry_module", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["entry_module"] = module
        spec.loader.exec_module(module)
        for name in ("init", "run"):
            if not callable(getattr(module, name, None)):
                raise AttributeError("the scoring script %s defines no function %s()" % (script, name))
        self.run = module.run
        self.code = code
        self.parameters = list(inspect.signature(module.run).parameters)
        self.raw = bool(getattr(module.run, "is_raw_http", False) or getattr(module.run, "raw_http", False))
        self.schemas: dict[str, Any] = dict(getattr(module.run, "input_schemas", None) or {})
        self.origins = [origin.strip() for origin in os.environ.get("AML_CORS_ORIGINS", "").split(",") if origin.strip()]
        module.init()

    def routes(self) -> Mapping[str, Handler]:
        return {"/score": self.score, "/swagger.json": self.swagger}

    def score(self, request: Request) -> Answer:
        if request.method == "OPTIONS":
            return self._preflight(request)
        answer = answer_of(self._called(request))
        origin = request.headers.get("origin")
        if origin and self._allows(origin):
            answer.headers.append(("access-control-allow-origin", origin))
        return answer

    def _called(self, request: Request) -> Any:
        """What `run()` returned, called in the form that the script declares."""
        arguments: dict[str, Any] = {}
        if "request_headers" in self.parameters:
            arguments["request_headers"] = dict(request.headers)
        if self.raw:
            return self._result(self.run(_werkzeug(request), **arguments))
        query = {name: json_or_text(value) for name, value in parse_qsl(request.query)} if request.method == "GET" else None
        if self.schemas:
            arguments.update(self._typed(request) if query is None else self._chosen(query))
            try:
                return self._result(self.run(**arguments))
            except ValueError as problem:
                if type(problem).__name__ == "InputError":
                    raise BadInput(str(problem)) from None
                raise
        first = next((name for name in self.parameters if name != "request_headers"), None)
        if first is not None:
            try:
                arguments[first] = request.body.decode("utf-8") if query is None else json.dumps(query)
            except UnicodeDecodeError as problem:
                raise BadInput("the body is not UTF-8 text: %s" % problem) from None
        return self._result(self.run(**arguments))

    def _typed(self, request: Request) -> dict[str, Any]:
        """The arguments of a script with schemas, by name."""
        kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
        if kind != "application/json":
            raise UnsupportedType("this script takes the Content-Type application/json, not %s" % (kind or "none"))
        try:
            document = json.loads(request.body)
        except (ValueError, RecursionError) as problem:
            raise BadInput("the body is not valid JSON: %s" % problem) from None
        if not isinstance(document, dict):
            raise BadInput("the body must be a JSON object with %s" % ", ".join(self.schemas))
        return self._chosen(document)

    def _chosen(self, document: dict[str, Any]) -> dict[str, Any]:
        missing = [name for name, (_, optional) in self.schemas.items() if not optional and name not in document]
        if missing:
            raise BadInput("the request lacks %s; it takes %s" % (", ".join(missing), ", ".join(self.schemas)))
        return {name: document[name] for name in self.schemas if name in document}

    @staticmethod
    def _result(result: Any) -> Any:
        return asyncio.run(result) if inspect.iscoroutine(result) else result

    def _allows(self, origin: str) -> bool:
        return "*" in self.origins or origin in self.origins

    def _preflight(self, request: Request) -> Answer:
        origin = request.headers.get("origin", "")
        headers = [("allow", "GET, POST, OPTIONS")]
        if origin and self._allows(origin):
            headers += [
                ("access-control-allow-origin", origin), ("access-control-allow-methods", "GET, POST, OPTIONS"),
                ("access-control-allow-headers", request.headers.get("access-control-request-headers", "*")),
            ]  # fmt: skip
        return Answer(200, b"", headers, "text/html; charset=utf-8")

    def swagger(self, request: Request) -> Answer:
        version = dict(parse_qsl(request.query)).get("version", "2")
        if version not in openapi.VERSIONS:
            return Answer(404, openapi.NO_SUCH_VERSION)
        own = os.path.join(self.code, "swagger%s.json" % version)
        if os.path.isfile(own):
            with open(own, "rb") as file:
                return Answer(200, file.read())
        inputs = {name: (kind.input_to_swagger(), optional) for name, (kind, optional) in self.schemas.items()}
        output = getattr(self.run, "output_type", None)
        document = openapi.document(version, inputs, output.input_to_swagger() if output is not None else None)
        return Answer(200, json.dumps(document).encode())


def _werkzeug(request: Request) -> Any:
    """The request as the `@rawhttp` contract promises it."""
    from azureml_inference_server_http.api.aml_request import AMLRequest

    environ = {
        "REQUEST_METHOD": request.method, "PATH_INFO": request.path, "QUERY_STRING": request.query, "SERVER_NAME": "model",
        "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(request.body),
        "wsgi.errors": sys.stderr, "wsgi.version": (1, 0), "wsgi.multithread": False, "wsgi.multiprocess": False, "wsgi.run_once": False,
        "SCRIPT_NAME": "", "CONTENT_LENGTH": str(len(request.body)), "CONTENT_TYPE": request.headers.get("content-type", ""),
    }  # fmt: skip
    environ.update({"HTTP_" + name.upper().replace("-", "_"): value for name, value in request.headers.items()})
    return AMLRequest(environ)

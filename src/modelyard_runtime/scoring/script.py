"""Azure's contract (reference `serving-contracts`, section 2): `init()` once, `run()` per request, in one of three forms.

`run(raw_data)` gets the body as text; under `@rawhttp` it gets the request; under `@input_schema` (of inference-schema, the package itself
or its stand-in) it gets typed arguments, by the names in the JSON body. It returns a JSON value, a response object, or a generator whose
chunks are sent as they come.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import io
import json
import os
import sys
import traceback
from typing import Any, Mapping
from urllib.parse import parse_qs, parse_qsl

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
        self.parameters = inspect.signature(module.run).parameters
        self.arguments = [parameter for name, parameter in self.parameters.items() if name != "request_headers"]
        self.raw = bool(getattr(module.run, "is_raw_http", False) or getattr(module.run, "raw_http", False))
        self.schemas = _schemas_of(module.run)
        if self.raw and self.schemas is not None:
            raise ValueError("run() of %s is decorated with both @rawhttp and @input_schema; take one away" % script)
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
        query = _query(request) if request.method == "GET" else None
        if self.schemas is not None:
            arguments.update(self._chosen(self._document(request) if query is None else query))
            try:
                return self._result(self.run(**arguments))
            except Exception as problem:
                if _in_the_request(problem):
                    raise BadInput(str(problem)) from None
                raise
        if self.arguments:
            try:
                arguments[self.arguments[0].name] = request.body.decode("utf-8") if query is None else json.dumps(query)
            except UnicodeDecodeError as problem:
                raise BadInput("the body is not UTF-8 text: %s" % problem) from None
        return self._result(self.run(**arguments))

    def _document(self, request: Request) -> dict[str, Any]:
        """The body for a script with schemas."""
        kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
        if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
            raise UnsupportedType("this script takes the Content-Type application/json, not %s" % (kind or "none"))
        try:
            document = json.loads(request.body)
        except (ValueError, RecursionError) as problem:
            raise BadInput("the body is not valid JSON: %s" % problem) from None
        if not isinstance(document, dict):
            raise BadInput("the body must be a JSON object with %s" % self._names())
        return document

    def _chosen(self, document: dict[str, Any]) -> dict[str, Any]:
        """The arguments of `run`, by name; those without a schema too."""
        missing = [item.name for item in self.arguments if item.default is item.empty and item.name not in document]
        if missing:
            raise BadInput("the request lacks %s; it takes %s" % (", ".join(missing), self._names()))
        return {item.name: document.get(item.name, item.default) for item in self.arguments}

    def _names(self) -> str:
        return ", ".join(item.name for item in self.arguments)

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
        version = openapi.VERSIONS.get(dict(parse_qsl(request.query)).get("version", "2"))
        if version is None:
            return Answer(404, openapi.NO_SUCH_VERSION)
        for name in (*(["swagger.json"] if version == "2" else []), "swagger%s.json" % version):
            own = os.path.join(self.code, name)
            if os.path.isfile(own):
                with open(own, "rb") as file:
                    return Answer(200, file.read())
        sent = returned = openapi.ANY
        if self.schemas is not None:
            known = {openapi.VERSIONS[item] for item in self.schemas.get_supported_versions(self.run)}
            if version not in known:
                there = ", ".join(sorted(known)) or "none"
                message = "OpenAPI %s cannot describe the samples of this script; there are the versions %s" % (version, there)
                return Answer(404, json.dumps({"message": message}).encode())
            sent, returned = self.schemas.get_input_schema(self.run), self.schemas.get_output_schema(self.run)
        return Answer(200, json.dumps(openapi.of_schemas(version, sent, returned)).encode())


def _query(request: Request) -> dict[str, Any]:
    """The parameters of the address, each read as JSON where it is; a name that stands there several times has a list."""
    values = parse_qs(request.query, keep_blank_values=True)
    return {name: json_or_text(items[0]) if len(items) == 1 else [json_or_text(item) for item in items] for name, items in values.items()}


def _schemas_of(run: Any) -> Any:
    """inference-schema's `schema_util`, its own or ours, when `run` is decorated; else None."""
    if "inference_schema" not in sys.modules:
        return None
    schema_util: Any = importlib.import_module("inference_schema.schema_util")
    return schema_util if schema_util.is_schema_decorated(run) else None


def _in_the_request(problem: BaseException) -> bool:
    """Whether inference-schema met it as it read an argument. Azure's server answers 500 then, as for a fault of the script."""
    frames = (frame for frame, _ in traceback.walk_tb(problem.__traceback__))
    return any(
        frame.f_code.co_name == "_deserialize_input_argument" and frame.f_globals.get("__name__", "").startswith("inference_schema.")
        for frame in frames
    )


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

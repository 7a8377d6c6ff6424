"""The OpenAPI documents of a model, versions 2, 3.0 and 3.1: those that Azure's inference server gives, in words of ours.

A client generated from one has the same operations, types and names as one generated in Azure.
"""

from __future__ import annotations

import os
from typing import Any

VERSIONS = {"2": "2", "2.0": "2", "3": "3", "3.0": "3", "3.1": "3.1"}
"""What may be asked for → the version that is meant."""
NO_SUCH_VERSION = b'{"message": "there are versions 2, 3 and 3.1 of this document"}'
ANY: dict[str, Any] = {"type": "object", "example": {}}
ERROR = {"type": "object", "properties": {"message": {"type": "string"}}}


def document(version: str, inputs: dict[str, tuple[dict[str, Any], bool]], output: dict[str, Any] | None) -> dict[str, Any]:
    """Of a model by its arguments. `inputs`: argument → (schema with an example, optional); `output`: a schema, or None for any.
    `version`: one of VERSIONS."""
    required = [name for name, (_, optional) in inputs.items() if not optional]
    sent: dict[str, Any] = {"type": "object", "properties": {name: _bare(schema) for name, (schema, _) in inputs.items()}}
    if required:
        sent["required"] = required
    sent["example"] = {name: schema.get("example") for name, (schema, _) in inputs.items() if schema.get("example") is not None}
    return of_schemas(VERSIONS[version], sent, output or ANY)


def _bare(schema: dict[str, Any]) -> dict[str, Any]:
    """Without its example, which stands beside the others."""
    return {key: value for key, value in schema.items() if key != "example"}


def of_schemas(version: str, sent: dict[str, Any], returned: dict[str, Any]) -> dict[str, Any]:
    """By the schemas of the whole body and the whole answer. `version`: one of the values of VERSIONS."""
    name = os.environ.get("SERVICE_NAME") or "ML service"
    info = {"title": name, "version": os.environ.get("SERVICE_VERSION") or "1.0", "description": "The scoring contract of %s" % name}
    schemas = {"ServiceInput": sent, "ServiceOutput": returned, "ErrorResponse": ERROR}
    bearer = {"Bearer": {"type": "apiKey", "name": "Authorization", "in": "header", "description": "Bearer KEY, or Bearer TOKEN"}}
    if version == "2":
        return {
            "swagger": "2.0", "info": info, "schemes": ["https", "http"], "consumes": ["application/json"], "produces": ["application/json"],
            "securityDefinitions": bearer, "paths": _paths(version), "definitions": schemas,
        }  # fmt: skip
    return {
        "openapi": "3.1.0" if version == "3.1" else "3.0.3", "info": info, "security": [{"Bearer": []}], "paths": _paths(version),
        "components": {"schemas": schemas, "securitySchemes": bearer},
    }  # fmt: skip


def _paths(version: str) -> dict[str, Any]:
    old = version == "2"

    def ref(name: str) -> dict[str, str]:
        return {"$ref": ("#/definitions/" if old else "#/components/schemas/") + name}

    def answers(schema: dict[str, Any], media: str, example: str = "") -> dict[str, Any]:
        good: dict[str, Any] = {"description": "The result", "schema": schema}
        failed: dict[str, Any] = {"description": "What went wrong", "schema": ref("ErrorResponse")}
        if not old:
            good["content"] = {media: {"schema": {**good.pop("schema"), **({"example": example} if example else {})}}}
            failed["content"] = {"application/json": {"schema": failed.pop("schema")}}
        elif example:
            good["examples"] = {"application/json": example}
        return {"200": good, "default": failed}

    score: dict[str, Any] = {
        "operationId": "RunMLService",
        "description": "Score",
        "security": [{"Bearer": []}],
        "responses": answers(ref("ServiceOutput"), "application/json"),
    }
    body = {"description": "The input of the model"}
    if old:
        score["parameters"] = [{"name": "serviceInputPayload", "in": "body", **body, "schema": ref("ServiceInput")}]
    else:
        score["requestBody"] = {**body, "content": {"application/json": {"schema": ref("ServiceInput")}}}
    health = {
        "operationId": "ServiceHealthCheck",
        "description": "Whether the model is ready",
        "responses": answers({"type": "string"}, "text/plain", "Healthy"),
    }
    choice: dict[str, Any] = {"type": "integer", "enum": [2, 3]}
    described = {
        "operationId": "GetSwaggerSpec",
        "description": "This document",
        "parameters": [{"name": "version", "in": "query", "required": False, **(choice if old else {"schema": choice})}],
        "responses": answers({"type": "string"}, "text/plain"),
    }
    prefix = os.environ.get("SERVICE_PATH_PREFIX", "").strip("/")
    paths = {"/": {"get": health}, "/score": {"post": score}, "/swagger.json": {"get": described}}
    return {("/" + prefix if prefix else "") + path: operations for path, operations in paths.items()}

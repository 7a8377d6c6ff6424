"""The OpenAPI documents of a model: versions 2 and 3, generated from the schemas of its inputs and output."""

from __future__ import annotations

import os
from typing import Any

VERSIONS = ("2", "3", "3.1")
NO_SUCH_VERSION = b'{"message": "there are versions 2, 3 and 3.1 of this document"}'
ERROR = {
    "type": "object",
    "properties": {"status_code": {"type": "integer", "format": "int32"}, "message": {"type": "string"}},
}


def document(version: str, inputs: dict[str, tuple[dict[str, Any], bool]], output: dict[str, Any] | None) -> dict[str, Any]:
    """`inputs`: argument → (schema with an example, optional); `output`: a schema, or None for any."""
    required = [name for name, (_, optional) in inputs.items() if not optional]
    sent: dict[str, Any] = {"type": "object", "properties": {name: _bare(schema) for name, (schema, _) in inputs.items()}}
    if required:
        sent["required"] = required
    sent["example"] = {name: schema.get("example") for name, (schema, _) in inputs.items() if schema.get("example") is not None}
    schemas = {"ServiceInput": sent, "ServiceOutput": output or {"type": "object", "example": {}}, "ErrorResponse": ERROR}
    info = {
        "title": os.environ.get("SERVICE_NAME", "ML service"),
        "version": os.environ.get("SERVICE_VERSION", "1.0"),
        "description": "The scoring contract of %s" % os.environ.get("SERVICE_NAME", "this model"),
    }
    paths = _paths(version)
    bearer = {"in": "header", "name": "Authorization", "description": "Bearer KEY, or Bearer TOKEN"}
    if version == "2":
        return {
            "swagger": "2.0", "info": info, "schemes": ["https", "http"], "consumes": ["application/json"], "produces": ["application/json"],
            "basePath": os.environ.get("SERVICE_PATH_PREFIX") or "/", "securityDefinitions": {"Bearer": {"type": "apiKey", **bearer}},
            "paths": paths, "definitions": schemas,
        }  # fmt: skip
    return {
        "openapi": "3.1.0" if version == "3.1" else "3.0.3", "info": info, "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"Bearer": {"type": "apiKey", **bearer}}},
    }  # fmt: skip


def _bare(schema: dict[str, Any]) -> dict[str, Any]:
    """Without its example, which stands beside the others."""
    return {key: value for key, value in schema.items() if key != "example"}


def _paths(version: str) -> dict[str, Any]:
    def ref(name: str) -> dict[str, str]:
        return {"$ref": ("#/definitions/" if version == "2" else "#/components/schemas/") + name}

    def answers(schema: dict[str, Any]) -> dict[str, Any]:
        failed: dict[str, Any] = {"description": "What went wrong"}
        good: dict[str, Any] = {"description": "The result"}
        if version == "2":
            return {"200": {**good, "schema": schema}, "default": {**failed, "schema": ref("ErrorResponse")}}
        wrapped = {"content": {"application/json": {"schema": schema}}}
        return {"200": {**good, **wrapped}, "default": {**failed, "content": {"application/json": {"schema": ref("ErrorResponse")}}}}

    post: dict[str, Any] = {
        "operationId": "RunMLService",
        "description": "Score",
        "security": [{"Bearer": []}],
        "responses": answers(ref("ServiceOutput")),
    }
    if version == "2":
        post["parameters"] = [
            {"name": "serviceInputPayload", "in": "body", "description": "The input of the model", "schema": ref("ServiceInput")}
        ]
    else:
        post["requestBody"] = {"content": {"application/json": {"schema": ref("ServiceInput")}}}
    health = {"operationId": "ServiceHealthCheck", "description": "Whether the model is ready", "responses": answers({"type": "string"})}
    return {"/": {"get": health}, "/score": {"post": post}}

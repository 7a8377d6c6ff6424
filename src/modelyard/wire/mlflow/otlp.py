"""OpenTelemetry's trace export over HTTP (OTLP 1.x, protobuf or JSON) as records of spans."""

from __future__ import annotations

import base64
import binascii
import zlib
from typing import Any

import orjson

from ...core.errors import Invalid
from ...work.traces.model import Span

MAX_SPANS = 10_000
MAX_INFLATED = 64 * 2**20
_STATUS = {0: "UNSET", 1: "OK", 2: "ERROR"}


def spans_of(body: bytes, content_type: str, encoding: str) -> list[Span]:
    """The spans of an ExportTraceServiceRequest. Raises Invalid for anything else."""
    from google.protobuf import json_format
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = ExportTraceServiceRequest()
    kind = content_type.split(";")[0].strip()
    try:
        data = _inflated(body, encoding)
        if kind == "application/json":
            json_format.ParseDict(_with_base64_ids(orjson.loads(data)), request, ignore_unknown_fields=True)
        elif kind == "application/x-protobuf":
            request.ParseFromString(data)
        else:
            raise Invalid(f"Invalid Content-Type: {kind[:80]}. Expected: application/x-protobuf or application/json")
    except (DecodeError, json_format.Error, ValueError, TypeError, AttributeError, RecursionError, OSError, EOFError, zlib.error) as error:
        raise Invalid(f"Invalid OpenTelemetry format: {str(error)[:200]}", code="invalid_otlp") from None
    spans = [
        _span(span, json_format.MessageToDict(span, preserving_proto_field_name=True))
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    if not spans:
        raise Invalid("Invalid OpenTelemetry format - no spans found", code="invalid_otlp")
    if len(spans) > MAX_SPANS:
        raise Invalid(f"one export has {MAX_SPANS} spans at most", code="too_many_spans")
    return spans


def _inflated(body: bytes, encoding: str) -> bytes:
    """Raises Invalid for a small body that would inflate to a huge one."""
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise Invalid(f"Content-Encoding {encoding[:40]!r} is not understood; use gzip, deflate or none")
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | (16 if encoding == "gzip" else 0))
    data = inflater.decompress(body, MAX_INFLATED)
    if inflater.unconsumed_tail or not inflater.eof:
        raise Invalid("the body is cut off, or too large when inflated", code="body_too_large")
    return data


def _with_base64_ids(document: Any) -> Any:
    """OTLP's JSON writes ids in hexadecimal, where protobuf's JSON expects base64."""
    if isinstance(document, list):
        return [_with_base64_ids(item) for item in document]
    if not isinstance(document, dict):
        return document
    converted = {}
    for key, value in document.items():
        if key in ("traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id") and isinstance(value, str):
            try:
                converted[key] = base64.b64encode(binascii.unhexlify(value)).decode()
            except binascii.Error:
                raise Invalid(f"{key} {value[:40]!r} is not hexadecimal", code="invalid_otlp") from None
        else:
            converted[key] = _with_base64_ids(value)
    return converted


def _span(span: Any, document: dict[str, Any]) -> Span:
    if len(span.trace_id) != 16 or len(span.span_id) != 8:
        raise Invalid("a span needs a trace_id of 16 bytes and a span_id of 8", code="invalid_otlp")
    attributes = {item.key: item.value.string_value for item in span.attributes if item.value.HasField("string_value")}
    named = _unquoted(attributes.get("mlflow.traceRequestId", ""))
    return Span(
        trace_id=named or "tr-" + span.trace_id.hex(), id=span.span_id.hex(), parent_id=span.parent_span_id.hex(), name=span.name,
        type=_unquoted(attributes.get("mlflow.spanType", "")) or "UNKNOWN", status=_STATUS.get(span.status.code, "UNSET"),
        start_ns=min(span.start_time_unix_nano, 2**63 - 1), end_ns=min(span.end_time_unix_nano, 2**63 - 1), document=document,
        inputs=attributes.get("mlflow.spanInputs", ""), outputs=attributes.get("mlflow.spanOutputs", ""),
    )  # fmt: skip


def _unquoted(text: str) -> str:
    """MLflow writes attribute values as JSON."""
    if text.startswith('"'):
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError:
            return text
        return value if isinstance(value, str) else text
    return text

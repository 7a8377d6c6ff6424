"""Traces of GenAI code: what MLflow's tracing and any OpenTelemetry exporter send, with spans, tags and assessments.

Tables: traces, trace_spans, trace_links, trace_assessments. Traces are telemetry: they record no events, but for deletion
(traces.deleted).
"""

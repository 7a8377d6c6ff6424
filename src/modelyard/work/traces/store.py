from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from ...core.errors import Invalid
from ...core.paging import Page
from ...storage import filters
from ...storage.pages import PagedQuery, Term
from ...storage.statements import Statement, among, param
from ...storage.tables import Json, metadata
from ...storage.unit import Unit
from .model import NAME_TAG, RUN_METADATA, Span, Trace

traces = sa.Table(
    "traces",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("workspace", sa.Text, nullable=False),
    sa.Column("experiment_id", sa.BigInteger, nullable=False),
    sa.Column("time_ms", sa.BigInteger, nullable=False),
    sa.Column("duration_ms", sa.BigInteger),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("request_preview", sa.Text, nullable=False),
    sa.Column("response_preview", sa.Text, nullable=False),
    sa.Column("client_request_id", sa.Text, nullable=False),
    sa.Column("metadata", Json, nullable=False),
    sa.Column("tags", Json, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Index("ix_traces_experiment", "experiment_id", "time_ms", "id"),
)
trace_spans = sa.Table(
    "trace_spans",
    metadata,
    sa.Column("trace_id", sa.Text, primary_key=True),
    sa.Column("span_id", sa.Text, primary_key=True),
    sa.Column("parent_id", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("start_ns", sa.BigInteger, nullable=False),
    sa.Column("end_ns", sa.BigInteger, nullable=False),
    sa.Column("document", Json, nullable=False),
)
trace_links = sa.Table(
    "trace_links",
    metadata,
    sa.Column("trace_id", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("target", sa.Text, primary_key=True),
    sa.Index("ix_trace_links_target", "kind", "target"),
)
trace_assessments = sa.Table(
    "trace_assessments",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("trace_id", sa.Text, nullable=False, index=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("document", Json, nullable=False),
)


def put_trace(unit: Unit, trace: Trace) -> None:
    row = {
        "id": trace.id, "workspace": unit.workspace, "experiment_id": int(trace.experiment_id), "time_ms": trace.time_ms,
        "duration_ms": trace.duration_ms, "state": trace.state, "request_preview": trace.request_preview,
        "response_preview": trace.response_preview, "client_request_id": trace.client_request_id, "metadata": trace.metadata,
        "tags": trace.tags, "owner": trace.owner,
    }  # fmt: skip
    unit.upsert(traces, row)


def get_trace(unit: Unit, id: str) -> Trace | None:
    traces = get_traces(unit, [id])
    return traces[0] if traces else None


_TRACE = sa.select(*(column for column in traces.c if column.name != "workspace"))


def get_traces(unit: Unit, ids: Sequence[str]) -> list[Trace]:
    """Those that exist, in the order asked for, with their assessments."""
    rows = unit.rows(_BY_ID, workspace=unit.workspace, ids=ids)
    by_id = {row.id: _trace(row) for row in rows}
    ordered = [by_id[id] for id in dict.fromkeys(ids) if id in by_id]
    _fill_assessments(unit, ordered)
    return ordered


_BY_ID = Statement(_TRACE.where(traces.c.workspace == param("workspace"), among(traces.c.id, "ids")))
_ASSESSMENTS = Statement(
    sa.select(trace_assessments.c.trace_id, trace_assessments.c.document)
    .where(among(trace_assessments.c.trace_id, "traces"))
    .order_by(trace_assessments.c.created_ms, trace_assessments.c.id)
)
_SPANS = Statement(
    sa.select(trace_spans.c.trace_id, trace_spans.c.document)
    .where(among(trace_spans.c.trace_id, "traces"))
    .order_by(trace_spans.c.start_ns, trace_spans.c.span_id)
)


def _trace(row: Any) -> Trace:
    return Trace(
        row.id, str(row.experiment_id), row.time_ms, row.duration_ms, row.state, row.request_preview, row.response_preview,
        row.client_request_id, row.metadata, row.tags, row.owner,
    )  # fmt: skip


def _fill_assessments(unit: Unit, bare: Sequence[Trace]) -> None:
    by_id = {trace.id: trace for trace in bare}
    for row in unit.rows(_ASSESSMENTS, traces=by_id) if bare else ():
        by_id[row.trace_id].assessments.append(row.document)


def fill_spans(unit: Unit, bare: Sequence[Trace]) -> None:
    by_id = {trace.id: trace for trace in bare}
    for row in unit.rows(_SPANS, traces=by_id):
        by_id[row.trace_id].spans.append(row.document)


def put_spans(unit: Unit, spans: Iterable[Span]) -> None:
    rows = [
        {
            "trace_id": s.trace_id, "span_id": s.id, "parent_id": s.parent_id, "name": s.name, "type": s.type, "status": s.status,
            "start_ns": s.start_ns, "end_ns": s.end_ns, "document": s.document,
        }
        for s in spans
    ]  # fmt: skip
    unit.upsert(trace_spans, *rows)


def delete_traces(unit: Unit, experiment_id: int, ids: Sequence[str] | None, before_ms: int | None, max_traces: int | None) -> int:
    """Oldest first. The number that is gone."""
    here = sa.and_(traces.c.workspace == unit.workspace, traces.c.experiment_id == experiment_id)
    if ids is not None:
        here = sa.and_(here, traces.c.id.in_(ids))
    if before_ms is not None:
        here = sa.and_(here, traces.c.time_ms <= before_ms)
    query = sa.select(traces.c.id).where(here).order_by(traces.c.time_ms)
    gone = [row.id for row in unit.rows(query.limit(max_traces) if max_traces is not None else query)]
    for statement in _DELETES:
        unit.run(statement, traces=gone)
    return len(gone)


_DELETES = [
    Statement(sa.delete(column.table).where(among(column, "traces")))
    for column in (trace_spans.c.trace_id, trace_links.c.trace_id, trace_assessments.c.trace_id, traces.c.id)
]


def put_link(unit: Unit, trace_id: str, kind: str, target: str) -> None:
    unit.insert(trace_links, {"trace_id": trace_id, "kind": kind, "target": target}, keep_existing=True)


def put_assessment(unit: Unit, id: str, trace_id: str, name: str, document: dict[str, Any]) -> None:
    row = {"id": id, "trace_id": trace_id, "name": name, "created_ms": unit.now, "document": document}
    unit.upsert(trace_assessments, row)


def set_assessment(unit: Unit, id: str, name: str, document: dict[str, Any]) -> None:
    unit.run(sa.update(trace_assessments).where(trace_assessments.c.id == id).values(name=name, document=document))


def get_assessment(unit: Unit, trace_id: str, id: str) -> dict[str, Any] | None:
    t = trace_assessments.c
    document: dict[str, Any] | None = unit.value(sa.select(t.document).where(t.id == id, t.trace_id == trace_id))
    return document


def delete_assessment(unit: Unit, id: str) -> None:
    unit.run(sa.delete(trace_assessments).where(trace_assessments.c.id == id))


_TEXTS = {
    "status": traces.c.state, "state": traces.c.state, "request_id": traces.c.id, "trace_id": traces.c.id,
    "client_request_id": traces.c.client_request_id,
}  # fmt: skip
_NUMBERS = {
    "timestamp": traces.c.time_ms, "timestamp_ms": traces.c.time_ms, "execution_time": traces.c.duration_ms,
    "execution_time_ms": traces.c.duration_ms, "end_time": traces.c.time_ms + sa.func.coalesce(traces.c.duration_ms, 0),
    "end_time_ms": traces.c.time_ms + sa.func.coalesce(traces.c.duration_ms, 0),
}  # fmt: skip
_ATTRIBUTE = ("", "attribute", "attributes", "attr", "trace")


def search_traces(
    unit: Unit,
    experiment_ids: Sequence[int],
    conditions: tuple[filters.Condition, ...],
    orders: tuple[filters.Order, ...],
    limit: int,
    token: str | None,
) -> Page[Trace]:
    query = _search(unit.dialect, conditions, orders)
    rows, next_token = query.page(unit, limit, token, workspace=unit.workspace, experiments=experiment_ids)
    traces = [_trace(row) for row in rows]
    _fill_assessments(unit, traces)
    return Page(traces, next_token)


@functools.lru_cache(maxsize=256)
def _search(dialect: str, conditions: tuple[filters.Condition, ...], orders: tuple[filters.Order, ...]) -> PagedQuery:
    t = traces.c
    query = _TRACE.where(t.workspace == param("workspace"), among(t.experiment_id, "experiments"))
    for condition in conditions:
        query = query.where(_condition(dialect, condition))
    terms = []
    for order in orders:
        columns = {**_TEXTS, **_NUMBERS, "experiment_id": t.experiment_id}
        if order.group not in _ATTRIBUTE or order.name not in columns:
            raise Invalid(f"Invalid order_by key '{order.name}'", code="invalid_order")
        column = sa.func.coalesce(columns[order.name], 0) if order.name.startswith("execution") else columns[order.name]
        terms.append(Term(column, order.descending))
    return PagedQuery(query, [*(terms or [Term(t.time_ms, True)]), Term(t.id, True)])


def _condition(dialect: str, condition: filters.Condition) -> sa.ColumnElement[bool]:
    t, group, name = traces.c, condition.group, condition.name
    if group in ("tag", "tags"):
        return filters.nullable_text_condition(filters.json_text(dialect, t.tags, name), condition)
    if group in ("metadata", "request_metadata"):
        return filters.nullable_text_condition(filters.json_text(dialect, t.metadata, name), condition)
    if group == "span" and name in ("name", "type", "status"):
        s = trace_spans.c
        return sa.exists().where(s.trace_id == t.id, filters.text_condition(s[name], condition))
    if group in ("feedback", "expectation"):
        a = trace_assessments.c
        value = filters.json_text(dialect, a.document, f"{group}_value")
        return sa.exists().where(a.trace_id == t.id, a.name == name, filters.text_condition(value, condition, ("=", "!=", "LIKE", "ILIKE")))
    if group in _ATTRIBUTE:
        if name == "name":
            return filters.nullable_text_condition(filters.json_text(dialect, t.tags, NAME_TAG), condition)
        if name in ("run_id", "prompt"):
            kind = "run" if name == "run_id" else "prompt"
            linked = sa.exists().where(
                trace_links.c.trace_id == t.id, trace_links.c.kind == kind, filters.text_condition(trace_links.c.target, condition)
            )
            return (
                sa.or_(linked, filters.text_condition(filters.json_text(dialect, t.metadata, RUN_METADATA), condition))
                if kind == "run"
                else linked
            )
        if name in _NUMBERS:
            return filters.number_condition(_NUMBERS[name], condition)
        if name in _TEXTS:
            return filters.text_condition(_TEXTS[name], condition)
    keys = ", ".join((*_TEXTS, *_NUMBERS, "name", "run_id", "prompt"))
    raise Invalid(
        f"Invalid attribute key '{f'{group}.{name}'.lstrip('.')}' specified for traces. Valid keys are {keys}, tags.*, metadata.*, "
        "span.name, span.type, span.status, feedback.*, expectation.*",
        code="invalid_filter",
    )

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from ...storage.records import columns_of, fields_of
from ...storage.tables import Json, metadata
from ...storage.unit import Unit
from .model import BatchDeploymentRecord, BatchEndpointRecord

batch_endpoints = sa.Table(
    "batch_endpoints",
    metadata,
    sa.Column("workspace", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("spec", Json, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
)
batch_deployments = sa.Table(
    "batch_deployments",
    metadata,
    sa.Column("workspace", sa.Text, primary_key=True),
    sa.Column("endpoint", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("spec", Json, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
)
batch_jobs = sa.Table(
    "batch_jobs",
    metadata,
    sa.Column("job", sa.Text, primary_key=True),
    sa.Column("workspace", sa.Text, nullable=False),
    sa.Column("endpoint", sa.Text, nullable=False),
    sa.Column("deployment", sa.Text, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Index("ix_batch_jobs_endpoint", "workspace", "endpoint", "created_ms"),
)
_E, _D, _J = batch_endpoints.c, batch_deployments.c, batch_jobs.c


def get_endpoint(unit: Unit, name: str) -> BatchEndpointRecord | None:
    row = unit.row(sa.select(batch_endpoints).where(_E.workspace == unit.workspace, _E.name == name))
    return BatchEndpointRecord(**fields_of(row)) if row else None


def list_endpoints(unit: Unit) -> list[BatchEndpointRecord]:
    rows = unit.rows(sa.select(batch_endpoints).where(_E.workspace == unit.workspace).order_by(_E.name))
    return [BatchEndpointRecord(**fields_of(row)) for row in rows]


def put_endpoint(unit: Unit, record: BatchEndpointRecord) -> None:
    unit.upsert(batch_endpoints, columns_of(record, batch_endpoints))


def delete_endpoint(unit: Unit, name: str) -> None:
    for table in (batch_jobs, batch_deployments):
        unit.run(sa.delete(table).where(table.c.workspace == unit.workspace, table.c.endpoint == name))
    unit.run(sa.delete(batch_endpoints).where(_E.workspace == unit.workspace, _E.name == name))


def get_deployment(unit: Unit, endpoint: str, name: str) -> BatchDeploymentRecord | None:
    row = unit.row(sa.select(batch_deployments).where(_D.workspace == unit.workspace, _D.endpoint == endpoint, _D.name == name))
    return BatchDeploymentRecord(**fields_of(row)) if row else None


def list_deployments(unit: Unit, endpoint: str) -> list[BatchDeploymentRecord]:
    rows = unit.rows(sa.select(batch_deployments).where(_D.workspace == unit.workspace, _D.endpoint == endpoint).order_by(_D.name))
    return [BatchDeploymentRecord(**fields_of(row)) for row in rows]


def put_deployment(unit: Unit, record: BatchDeploymentRecord) -> None:
    unit.upsert(batch_deployments, columns_of(record, batch_deployments))


def delete_deployment(unit: Unit, endpoint: str, name: str) -> None:
    unit.run(sa.delete(batch_deployments).where(_D.workspace == unit.workspace, _D.endpoint == endpoint, _D.name == name))


def insert_job(unit: Unit, job: str, endpoint: str, deployment: str) -> None:
    row: dict[str, Any] = {"job": job, "workspace": unit.workspace, "endpoint": endpoint, "deployment": deployment, "created_ms": unit.now}
    unit.insert(batch_jobs, row)


def jobs_of(unit: Unit, endpoint: str, deployment: str | None, limit: int) -> list[str]:
    """The newest first."""
    query = sa.select(_J.job).where(_J.workspace == unit.workspace, _J.endpoint == endpoint)
    if deployment is not None:
        query = query.where(_J.deployment == deployment)
    return [row.job for row in unit.rows(query.order_by(_J.created_ms.desc(), _J.job).limit(limit))]


def has_job(unit: Unit, endpoint: str, job: str) -> bool:
    where = (_J.job == job, _J.workspace == unit.workspace, _J.endpoint == endpoint)
    return unit.value(sa.select(sa.literal(1)).select_from(batch_jobs).where(*where)) is not None

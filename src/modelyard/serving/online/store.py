from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from ...core.errors import Conflict
from ...storage.tables import Json, metadata
from ...storage.unit import Unit
from .model import DeploymentRecord, EndpointRecord
from .rollout import RUNNING, RolloutRecord

endpoints = sa.Table(
    "endpoints",
    metadata,
    sa.Column("workspace", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("spec", Json, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
)
deployments = sa.Table(
    "deployments",
    metadata,
    sa.Column("workspace", sa.Text, primary_key=True),
    sa.Column("endpoint", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("spec", Json, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("live", sa.Integer, nullable=False),
    sa.Column("live_instances", sa.Integer, nullable=False),
    sa.Column("error", Json),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("warnings", Json, nullable=False),
    sa.Column("resolved", Json, nullable=False),
)
rollouts = sa.Table(
    "rollouts",
    metadata,
    sa.Column("workspace", sa.Text, primary_key=True),
    sa.Column("endpoint", sa.Text, primary_key=True),
    sa.Column("spec", Json, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("before", Json, nullable=False),
    sa.Column("base", Json, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("stepped_ms", sa.BigInteger, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
)
_E, _D, _R = endpoints.c, deployments.c, rollouts.c


def get_rollout(unit: Unit, endpoint: str) -> RolloutRecord | None:
    row = unit.one(sa.select(rollouts).where(_R.workspace == unit.workspace, _R.endpoint == endpoint))
    return RolloutRecord(**row._asdict()) if row else None


def put_rollout(unit: Unit, record: RolloutRecord) -> None:
    unit.upsert(rollouts, [record.__dict__])


def running_rollouts(unit: Unit) -> list[RolloutRecord]:
    """Of every workspace."""
    return [RolloutRecord(**row._asdict()) for row in unit.all(sa.select(rollouts).where(_R.state == RUNNING))]


def delete_rollout(unit: Unit, endpoint: str) -> None:
    unit.execute(sa.delete(rollouts).where(_R.workspace == unit.workspace, _R.endpoint == endpoint))


def get_endpoint(unit: Unit, name: str) -> EndpointRecord | None:
    row = unit.one(sa.select(endpoints).where(_E.workspace == unit.workspace, _E.name == name))
    return EndpointRecord(**row._asdict()) if row else None


def list_endpoints(unit: Unit, *, everywhere: bool = False) -> list[EndpointRecord]:
    query = sa.select(endpoints).order_by(_E.workspace, _E.name)
    if not everywhere:
        query = query.where(_E.workspace == unit.workspace)
    return [EndpointRecord(**row._asdict()) for row in unit.all(query)]


def insert_endpoint(unit: Unit, name: str, spec: dict[str, Any]) -> None:
    row = {"workspace": unit.workspace, "name": name, "spec": spec, "created_ms": unit.now, "created_by": unit.actor.name}
    unit.execute(sa.insert(endpoints), row)


def set_endpoint(unit: Unit, name: str, spec: dict[str, Any]) -> None:
    unit.execute(sa.update(endpoints).where(_E.workspace == unit.workspace, _E.name == name).values(spec=spec))


def delete_endpoint(unit: Unit, name: str) -> None:
    unit.execute(sa.delete(endpoints).where(_E.workspace == unit.workspace, _E.name == name))


def _where(unit: Unit, endpoint: str, name: str) -> sa.ColumnElement[bool]:
    return sa.and_(_D.workspace == unit.workspace, _D.endpoint == endpoint, _D.name == name)


def get_deployment(unit: Unit, endpoint: str, name: str) -> DeploymentRecord | None:
    row = unit.one(sa.select(deployments).where(_where(unit, endpoint, name)))
    return DeploymentRecord(**row._asdict()) if row else None


def list_deployments(unit: Unit, endpoint: str | None = None, *, everywhere: bool = False) -> list[DeploymentRecord]:
    query = sa.select(deployments).order_by(_D.workspace, _D.endpoint, _D.name)
    if not everywhere:
        query = query.where(_D.workspace == unit.workspace)
    if endpoint is not None:
        query = query.where(_D.endpoint == endpoint)
    return [DeploymentRecord(**row._asdict()) for row in unit.all(query)]


def insert_deployment(unit: Unit, endpoint: str, name: str, **values: Any) -> None:
    row = {
        "workspace": unit.workspace, "endpoint": endpoint, "name": name, "generation": 1, "live": 0, "live_instances": 0,
        "created_ms": unit.now, "created_by": unit.actor.name, **values,
    }  # fmt: skip
    unit.execute(sa.insert(deployments), row)


def change_deployment(unit: Unit, record: DeploymentRecord, states: Sequence[str], **values: Any) -> None:
    """Change a deployment, guarded by its state and generation. Raises Conflict when it has moved on meanwhile."""
    where = sa.and_(_where(unit, record.endpoint, record.name), _D.generation == record.generation, _D.state.in_(states))
    if unit.execute(sa.update(deployments).where(where).values(**values)).rowcount != 1:
        raise Conflict(f"deployment {record.name} has moved on", code="stale_generation")


def delete_deployment(unit: Unit, endpoint: str, name: str) -> None:
    unit.execute(sa.delete(deployments).where(_where(unit, endpoint, name)))

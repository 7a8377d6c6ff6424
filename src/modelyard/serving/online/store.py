from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from ...core.errors import Superseded
from ...spec.states import DEPLOYMENT, ROLLOUT, ProvisioningState, RolloutState
from ...storage.records import columns_of, fields_of
from ...storage.tables import Json, metadata
from ...storage.unit import Unit
from .model import SERVES, DeploymentRecord, EndpointRecord
from .rollout import RolloutRecord

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
    row = unit.row(sa.select(rollouts).where(_R.workspace == unit.workspace, _R.endpoint == endpoint))
    return _rollout(row) if row else None


def _rollout(row: Any) -> RolloutRecord:
    return RolloutRecord(**fields_of(row, state=RolloutState(row.state)))


def put_rollout(unit: Unit, record: RolloutRecord) -> None:
    """A new rollout, which replaces the endpoint's last one, or the next step of one that runs."""
    ROLLOUT.begin(record.state)
    unit.upsert(rollouts, columns_of(record, rollouts))


def end_rollout(unit: Unit, record: RolloutRecord, state: RolloutState, reason: str) -> None:
    unit.upsert(rollouts, columns_of(replace(record, state=ROLLOUT.transition(record.state, state), reason=reason), rollouts))


def running_rollouts(unit: Unit) -> list[RolloutRecord]:
    """Of every workspace."""
    return [_rollout(row) for row in unit.rows(sa.select(rollouts).where(_R.state == RolloutState.RUNNING))]


def delete_rollout(unit: Unit, endpoint: str) -> None:
    unit.run(sa.delete(rollouts).where(_R.workspace == unit.workspace, _R.endpoint == endpoint))


def get_endpoint(unit: Unit, name: str) -> EndpointRecord | None:
    row = unit.row(sa.select(endpoints).where(_E.workspace == unit.workspace, _E.name == name))
    return EndpointRecord(**fields_of(row)) if row else None


def list_endpoints(unit: Unit, *, everywhere: bool = False) -> list[EndpointRecord]:
    query = sa.select(endpoints).order_by(_E.workspace, _E.name)
    if not everywhere:
        query = query.where(_E.workspace == unit.workspace)
    return [EndpointRecord(**fields_of(row)) for row in unit.rows(query)]


def insert_endpoint(unit: Unit, name: str, spec: dict[str, Any]) -> None:
    row = {"workspace": unit.workspace, "name": name, "spec": spec, "created_ms": unit.now, "created_by": unit.actor.name}
    unit.insert(endpoints, row)


def set_endpoint(unit: Unit, name: str, spec: dict[str, Any]) -> None:
    unit.run(sa.update(endpoints).where(_E.workspace == unit.workspace, _E.name == name).values(spec=spec))


def delete_endpoint(unit: Unit, name: str) -> None:
    unit.run(sa.delete(endpoints).where(_E.workspace == unit.workspace, _E.name == name))


def _where(unit: Unit, endpoint: str, name: str) -> sa.ColumnElement[bool]:
    return sa.and_(_D.workspace == unit.workspace, _D.endpoint == endpoint, _D.name == name)


def get_deployment(unit: Unit, endpoint: str, name: str) -> DeploymentRecord | None:
    row = unit.row(sa.select(deployments).where(_where(unit, endpoint, name)))
    return _deployment(row) if row else None


def _deployment(row: Any) -> DeploymentRecord:
    return DeploymentRecord(**fields_of(row, state=ProvisioningState(row.state)))


def list_deployments(unit: Unit, endpoint: str | None = None, *, everywhere: bool = False) -> list[DeploymentRecord]:
    query = sa.select(deployments).order_by(_D.workspace, _D.endpoint, _D.name)
    if not everywhere:
        query = query.where(_D.workspace == unit.workspace)
    if endpoint is not None:
        query = query.where(_D.endpoint == endpoint)
    return [_deployment(row) for row in unit.rows(query)]


def insert_deployment(unit: Unit, endpoint: str, name: str, state: ProvisioningState, **values: Any) -> None:
    row = {
        "workspace": unit.workspace, "endpoint": endpoint, "name": name, "state": DEPLOYMENT.begin(state), "generation": 1, "live": 0, "live_instances": 0,
        "created_ms": unit.now, "created_by": unit.actor.name, **values,
    }  # fmt: skip
    unit.insert(deployments, row)


def transition_deployment(unit: Unit, record: DeploymentRecord, new: ProvisioningState, **values: Any) -> None:
    """Give a deployment its next state. Raises Conflict when the state does not follow; Superseded when it has moved on since `record` was read."""
    DEPLOYMENT.transition(record.state, new)
    _change(unit, record, DEPLOYMENT.before(new), state=new, **values)


def set_live(unit: Unit, record: DeploymentRecord, **values: Any) -> None:
    """Change a deployment that serves and keeps its state. Raises Superseded when it has moved on."""
    _change(unit, record, SERVES, **values)


def _change(unit: Unit, record: DeploymentRecord, states: Sequence[ProvisioningState], **values: Any) -> None:
    """Guarded by the states it may be in, and by its generation."""
    where = sa.and_(_where(unit, record.endpoint, record.name), _D.generation == record.generation, _D.state.in_(states))
    if unit.run(sa.update(deployments).where(where).values(**values)) != 1:
        raise Superseded(f"deployment {record.name} has moved on", code="stale_generation")


def delete_deployment(unit: Unit, endpoint: str, name: str) -> None:
    unit.run(sa.delete(deployments).where(_where(unit, endpoint, name)))

"""Use cases of compute."""

from __future__ import annotations

from typing import Any

from ...core.actor import internal, requires
from ...core.errors import Conflict, NotFound
from ...core.names import check_name
from ...spec.compute import AmlCompute, Compute
from ...spec.properties import noted
from ...spec.references import asset_ref
from ...spec.states import ProvisioningState
from ...spec.unused import unused
from ...storage.unit import Unit
from . import store

LOCAL = ("local", "serverless")
ANSWERED = ("id", "creation_context", "provisioning_state", "created_on")


def _built_in() -> dict[str, Any]:
    return {
        "name": "local", "type": "local", "description": "This machine.", "id": "azureml:local", "tags": {}, "properties": {},
        "provisioning_state": ProvisioningState.SUCCEEDED,
    }  # fmt: skip


@requires("workspaces/computes/read")
def get(unit: Unit, name: str) -> dict[str, Any]:
    if name == "local":
        return _built_in()
    record = store.get(unit, name)
    if record is None:
        raise NotFound(f"there is no compute {name} in workspace {unit.workspace}", hint="`yard compute list` shows them.")
    return record.document()


@requires("workspaces/computes/read")
def list_(unit: Unit) -> list[dict[str, Any]]:
    return [_built_in(), *(record.document() for record in store.list_(unit))]


@requires("workspaces/computes/write")
def put(unit: Unit, spec: Compute) -> dict[str, Any]:
    check_name("compute", spec.name)
    if spec.name in LOCAL:
        raise Conflict(f"{spec.name} is a compute of the yard itself")
    known = store.get(unit, spec.name) is not None
    store.put(unit, spec.name, {key: value for key, value in spec.document().items() if key not in ANSWERED})
    unit.record("compute.updated" if known else "compute.created", spec.name)
    return noted(get(unit, spec.name), unused(spec))


@requires("workspaces/computes/delete")
def delete(unit: Unit, name: str) -> None:
    if name in LOCAL:
        raise Conflict(f"{name} belongs to the yard and stays")
    get(unit, name)
    store.delete(unit, name)
    unit.record("compute.deleted", name)


@internal
def resolve(unit: Unit, compute: str | None) -> tuple[str, int | None, str | None, list[str]]:
    """(name, most jobs at once, VM size, notes) of what a job's `compute` means. Unknown names are the local pool."""
    if compute is None or compute in LOCAL:
        return "local", None, None, []
    name = asset_ref(compute, "compute").name
    if name in LOCAL:
        return "local", None, None, []
    record = store.get(unit, name)
    if record is None:
        return "local", None, None, [f"compute {name} does not exist here; the job runs on this machine's local pool"]
    spec = record.spec
    return name, spec.max_instances, spec.size if isinstance(spec, AmlCompute) else None, []

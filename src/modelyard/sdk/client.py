"""`MLClient`: the entry point of the SDK, with the constructor of `azure.ai.ml`."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import Invalid, NotFound
from ..spec.nouns import NOT_HERE, noun_of, written
from .documents import Document, entity

if TYPE_CHECKING:
    from .connection import Connection
    from .nouns.access import AuditOperations, RoleOperations, TokenOperations, UserOperations
    from .nouns.batch import BatchDeploymentOperations, BatchEndpointOperations
    from .nouns.compute import ComputeOperations
    from .nouns.data import DataOperations
    from .nouns.datastores import DatastoreOperations
    from .nouns.environments import EnvironmentOperations
    from .nouns.jobs import JobOperations
    from .nouns.models import ModelOperations
    from .nouns.online import OnlineDeploymentOperations, OnlineEndpointOperations
    from .nouns.schedules import ScheduleOperations
    from .nouns.tracking import ExperimentOperations, LineageOperations, RunOperations
    from .nouns.workspaces import RegistryOperations, WorkspaceOperations
    from .resources import VersionedOperations
    from .transport import Transport
    from .upload import Progress


class MLClient:
    """A client of one workspace.

        client = MLClient()                                  # the yard of this machine, or what `yard env` set
        client = MLClient(workspace_name="team", url="http://127.0.0.1:7780", token="yard_…")

    `credential`, `subscription_id` and `resource_group_name` are taken for the sake of existing scripts and not used.
    `progress` is called with (what, bytes done, bytes in all). `as_documents` answers `Document`s, which take no time to read.
    """

    jobs: JobOperations
    data: DataOperations
    models: ModelOperations
    components: VersionedOperations[Any]
    environments: EnvironmentOperations
    datastores: DatastoreOperations
    compute: ComputeOperations
    workspaces: WorkspaceOperations
    registries: RegistryOperations
    schedules: ScheduleOperations
    online_endpoints: OnlineEndpointOperations
    online_deployments: OnlineDeploymentOperations
    batch_endpoints: BatchEndpointOperations
    batch_deployments: BatchDeploymentOperations
    runs: RunOperations
    experiments: ExperimentOperations
    lineage: LineageOperations
    users: UserOperations
    roles: RoleOperations
    tokens: TokenOperations
    audit: AuditOperations

    def __init__(
        self,
        credential: Any = None,
        subscription_id: str | None = None,
        resource_group_name: str | None = None,
        workspace_name: str | None = None,
        *,
        registry_name: str | None = None,
        url: str | None = None,
        token: str | None = None,
        progress: Progress | None = None,
        as_documents: bool = False,
        **kwargs: Any,
    ) -> None:
        from .connection import connect
        from .transport import Transport

        self._transport = Transport(connect(url, token, registry_name or workspace_name), Document if as_documents else entity)
        self._progress = progress
        self.subscription_id = subscription_id
        self.resource_group_name = resource_group_name

    @classmethod
    def from_config(cls, credential: Any = None, *, path: str | Path | None = None, **kwargs: Any) -> MLClient:
        """As in azure.ai.ml: `config.json` here, in `.azureml` or in a folder above names the workspace. Without one, MLClient()."""
        start = Path(path) if path else Path.cwd()
        if path and start.is_file():
            candidates = [start]
        else:
            candidates = [
                base / name
                for base in (start, *start.resolve().parents)
                for name in ("config.json", ".azureml/config.json", "aml_config/config.json")
            ]
        for file in candidates:
            if file.is_file():
                try:
                    document = json.loads(file.read_text())
                except ValueError:
                    raise Invalid(f"{file} is not valid JSON") from None
                if isinstance(document, dict) and "workspace_name" in document:
                    names = ("subscription_id", "resource_group")
                    subscription, group = (document.get(name) for name in names)
                    return cls(credential, subscription, group, document["workspace_name"], **kwargs)
        if path:
            raise NotFound(f"there is no config.json at {path}")
        return cls(credential, **kwargs)

    @property
    def workspace_name(self) -> str:
        return self._transport.connection.workspace

    @property
    def connection(self) -> Connection:
        """Where the yard is, the token in use, and the workspace."""
        return self._transport.connection

    def __getattr__(self, name: str) -> Any:
        """The operations of a noun, created at first use."""
        operations = None if name.startswith("_") else _operations(name, self._transport, self._progress)
        if operations is None:
            elsewhere = "; azure.ai.ml has it, this version of modelyard does not" if name in NOT_HERE.values() else ""
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{elsewhere}")
        setattr(self, name, operations)
        return operations

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *OWN, *(noun.attribute for noun in written())})

    def import_mlflow(self, address: str, *, deleted: bool = False, artifacts: str | Path | None = None) -> dict[str, Any]:
        """Take over an MLflow store: a server's http address, a SQLite file or an `mlruns` folder. May be repeated.

        `artifacts` is the folder of the files that the server addresses as mlflow-artifacts:/. The answer counts what was imported; its
        `notes` name what could not be. Raises Conflict when something did not arrive.
        """
        from .mlflow_import.importer import import_mlflow

        return import_mlflow(
            self._transport, address, deleted=deleted, artifacts=Path(artifacts) if artifacts else None, progress=self._progress
        )

    def create_or_update(self, entity: Any, **kwargs: Any) -> Any:
        """By the noun of `entity`, as azure.ai.ml does."""
        return self._operation("create_or_update", entity)(entity, **kwargs)

    def begin_create_or_update(self, entity: Any, **kwargs: Any) -> Any:
        """By the noun of `entity`, as azure.ai.ml does."""
        return self._operation("begin_create_or_update", entity)(entity, **kwargs)

    def _operation(self, name: str, entity: object) -> Callable[..., Any]:
        noun = noun_of(entity)
        operation: Callable[..., Any] | None = getattr(getattr(self, noun.attribute), name, None) if noun else None
        if operation is None:
            raise Invalid(f"{name} does not take {type(entity).__name__}")
        return operation


OWN = {
    "jobs": "jobs:JobOperations",
    "data": "data:DataOperations",
    "models": "models:ModelOperations",
    "environments": "environments:EnvironmentOperations",
    "datastores": "datastores:DatastoreOperations",
    "compute": "compute:ComputeOperations",
    "workspaces": "workspaces:WorkspaceOperations",
    "registries": "workspaces:RegistryOperations",
    "schedules": "schedules:ScheduleOperations",
    "online_endpoints": "online:OnlineEndpointOperations",
    "online_deployments": "online:OnlineDeploymentOperations",
    "batch_endpoints": "batch:BatchEndpointOperations",
    "batch_deployments": "batch:BatchDeploymentOperations",
    "runs": "tracking:RunOperations",
    "experiments": "tracking:ExperimentOperations",
    "lineage": "tracking:LineageOperations",
    "users": "access:UserOperations",
    "roles": "access:RoleOperations",
    "tokens": "access:TokenOperations",
    "audit": "access:AuditOperations",
}
"""Attribute of the client → `module:class` below `nouns`, of what has operations of its own. Every other noun has those of its kind."""


def _operations(name: str, transport: Transport, progress: Progress | None) -> Any:
    if name in OWN:
        module, _, kind = OWN[name].partition(":")
        return getattr(importlib.import_module(f".nouns.{module}", __package__), kind)(transport, progress)
    noun = next((noun for noun in written() if noun.attribute == name), None)
    if noun is None:
        return None
    from . import resources

    shared: type[resources.NounOperations[Any]]
    shared = (
        resources.VersionedOperations if noun.versioned else resources.DeploymentOperations if noun.within else resources.NamedOperations
    )
    operations = shared(transport, progress)
    operations.noun = noun
    return operations

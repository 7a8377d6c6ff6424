"""`MLClient`: the way in, with the constructor of `azure.ai.ml`."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from ..core.errors import Invalid, NotFound
from . import operations as ops
from . import tracking
from .connection import connect
from .transport import Transport
from .upload import Progress


class MLClient:
    """A client of one workspace.

        client = MLClient()                                  # the yard of this machine, or what `yard env` set
        client = MLClient(workspace_name="team", url="http://127.0.0.1:7780", token="yard_…")

    `credential`, `subscription_id` and `resource_group_name` are taken for the sake of existing scripts and not used.
    """

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
        **kwargs: Any,
    ) -> None:
        self._transport = Transport(connect(url, token, registry_name or workspace_name))
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

    @functools.cached_property
    def jobs(self) -> ops.JobOperations:
        return ops.JobOperations(self._transport, self._progress)

    @functools.cached_property
    def data(self) -> ops.DataOperations:
        return ops.DataOperations(self._transport, self._progress)

    @functools.cached_property
    def models(self) -> ops.ModelOperations:
        return ops.ModelOperations(self._transport, self._progress)

    @functools.cached_property
    def components(self) -> ops.ComponentOperations:
        return ops.ComponentOperations(self._transport, self._progress)

    @functools.cached_property
    def environments(self) -> ops.EnvironmentOperations:
        return ops.EnvironmentOperations(self._transport, self._progress)

    @functools.cached_property
    def datastores(self) -> ops.DatastoreOperations:
        return ops.DatastoreOperations(self._transport, self._progress)

    @functools.cached_property
    def compute(self) -> ops.ComputeOperations:
        return ops.ComputeOperations(self._transport, self._progress)

    @functools.cached_property
    def workspaces(self) -> ops.WorkspaceOperations:
        return ops.WorkspaceOperations(self._transport, self._progress)

    @functools.cached_property
    def registries(self) -> ops.RegistryOperations:
        return ops.RegistryOperations(self._transport, self._progress)

    @functools.cached_property
    def batch_endpoints(self) -> ops.BatchEndpointOperations:
        return ops.BatchEndpointOperations(self._transport, self._progress)

    @functools.cached_property
    def batch_deployments(self) -> ops.BatchDeploymentOperations:
        return ops.BatchDeploymentOperations(self._transport, self._progress)

    @functools.cached_property
    def schedules(self) -> ops.ScheduleOperations:
        return ops.ScheduleOperations(self._transport, self._progress)

    @functools.cached_property
    def runs(self) -> tracking.RunOperations:
        return tracking.RunOperations(self._transport)

    @functools.cached_property
    def experiments(self) -> tracking.ExperimentOperations:
        return tracking.ExperimentOperations(self._transport)

    @functools.cached_property
    def lineage(self) -> tracking.LineageOperations:
        return tracking.LineageOperations(self._transport)

    @functools.cached_property
    def online_endpoints(self) -> ops.OnlineEndpointOperations:
        return ops.OnlineEndpointOperations(self._transport, self._progress)

    @functools.cached_property
    def online_deployments(self) -> ops.OnlineDeploymentOperations:
        return ops.OnlineDeploymentOperations(self._transport, self._progress)

    def import_mlflow(self, address: str, *, deleted: bool = False, artifacts: str | Path | None = None) -> dict[str, Any]:
        """Take over an MLflow store: a server's http address, a SQLite file or an `mlruns` folder. May be repeated.

        `artifacts` is where the server kept what it addresses as mlflow-artifacts:/. The answer counts what came; `notes` say
        what could not. Raises Conflict when something did not arrive.
        """
        from .mlflow_import.importer import import_mlflow

        return import_mlflow(
            self._transport, address, deleted=deleted, artifacts=Path(artifacts) if artifacts else None, progress=self._progress
        )

    def create_or_update(self, entity: Any, **kwargs: Any) -> Any:
        """Dispatch on the entity's kind, as azure.ai.ml does."""
        from ..spec.component import Component
        from ..spec.data import Data
        from ..spec.datastore import Datastore
        from ..spec.environment import Environment
        from ..spec.job import Job
        from ..spec.model import Model

        known: tuple[tuple[type, Any], ...] = (
            (Job, self.jobs), (Component, self.components), (Data, self.data), (Environment, self.environments), (Model, self.models), (Datastore, self.datastores),
        )  # fmt: skip
        for kind, operations in known:
            if isinstance(entity, kind):
                return operations.create_or_update(entity, **kwargs)
        raise Invalid(f"create_or_update takes jobs, components, data, environments, models and datastores, not {type(entity).__name__}")

    def begin_create_or_update(self, entity: Any, **kwargs: Any) -> Any:
        from ..spec.compute import Compute
        from ..spec.online import OnlineDeployment, OnlineEndpoint
        from ..spec.schedule import Schedule
        from ..spec.workspace import Registry, Workspace

        if isinstance(entity, Schedule):
            return self.schedules.begin_create_or_update(entity)
        if isinstance(entity, Registry):
            return self.registries.begin_create(entity)
        if isinstance(entity, Compute):
            return self.compute.begin_create_or_update(entity)
        if isinstance(entity, OnlineEndpoint):
            return self.online_endpoints.begin_create_or_update(entity)
        if isinstance(entity, OnlineDeployment):
            return self.online_deployments.begin_create_or_update(entity, **kwargs)
        if isinstance(entity, Workspace):
            return self.workspaces.begin_create(entity)
        raise Invalid(f"begin_create_or_update takes computes, endpoints, deployments and workspaces, not {type(entity).__name__}")

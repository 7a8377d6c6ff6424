from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ...core.errors import NotFound
from ...spec.nouns import NOUNS
from ..poller import Poller, finished
from ..resources import NamedOperations, NounOperations

if TYPE_CHECKING:
    from ...spec.workspace import Registry, Workspace

WORKSPACES = "/workspaces"


class WorkspaceOperations(NamedOperations["Workspace"]):
    noun = NOUNS["workspace"]

    def _path(self, path: str) -> str:
        """Not inside a workspace."""
        return self._transport.path(path)

    def get(self, name: str | None = None, **kwargs: Any) -> Workspace:
        """The client's own when none is named."""
        workspace = super().get(name or self._transport.connection.workspace)
        workspace.mlflow_tracking_uri = f"{self._transport.connection.url}/ws/{workspace.name}"
        return workspace

    begin_create = begin_update = NamedOperations.begin_create_or_update


class RegistryOperations(NounOperations["Registry"]):
    """Registries hold assets that workspaces share; MLClient(registry_name=…) works on what is in one.

    On the wire a registry is a workspace of the kind `registry`.
    """

    noun = NOUNS["registry"]

    def _path(self, path: str) -> str:
        """Not inside a workspace."""
        return self._transport.path(path)

    def list(self, **kwargs: Any) -> Iterator[Registry]:
        return map(self._answered, self._pages(WORKSPACES, {"kind": "registry"}))

    def get(self, name: str | None = None, **kwargs: Any) -> Registry:
        """The client's own when none is named."""
        name = name or self._transport.connection.workspace
        document = self._call("GET", f"{WORKSPACES}/{name}")
        if document.get("kind") != "registry":
            raise NotFound(f"{name} is a workspace, not a registry", hint="`yard registry list` shows those there are.")
        return self._answered(document)

    def begin_create(self, registry: Registry, **kwargs: Any) -> Poller[Registry]:
        return finished(self._answered(self._call("PUT", f"{WORKSPACES}/{registry.name}", body=registry.workspace().document())))

    begin_create_or_update = begin_create

    def _answered(self, document: dict[str, Any]) -> Registry:
        names = ("id", "name", "description", "tags", "location", "creation_context")
        return super()._answered({name: document[name] for name in names if name in document})

    def begin_delete(self, name: str, **kwargs: Any) -> Poller[None]:
        self.get(name)
        self._call("DELETE", f"{WORKSPACES}/{name}")
        return finished(None)

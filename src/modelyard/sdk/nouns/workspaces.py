from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...core.errors import NotFound
from ...spec.nouns import NOUNS
from ...spec.workspace import Registry, Workspace
from ..poller import Poller, finished
from ..resources import Operations

WORKSPACES = "/api/v1/workspaces"


class WorkspaceOperations(Operations):
    """Not inside a workspace, so that every address differs from that of other nouns."""

    noun = NOUNS["workspace"]

    def list(self, **kwargs: Any) -> Iterator[Workspace]:
        return map(Workspace.answered, self._transport.pages(WORKSPACES))

    def get(self, name: str | None = None, **kwargs: Any) -> Workspace:
        """The client's own when none is named."""
        name = name or self._transport.connection.workspace
        workspace = Workspace.answered(self._transport.call("GET", f"{WORKSPACES}/{name}"))
        workspace.mlflow_tracking_uri = f"{self._transport.connection.url}/ws/{name}"
        return workspace

    def begin_create(self, workspace: Workspace, **kwargs: Any) -> Poller[Workspace]:
        answer = self._transport.call("PUT", f"{WORKSPACES}/{workspace.name}", body=workspace.document())
        return finished(Workspace.answered(answer))

    begin_create_or_update = begin_update = begin_create

    def begin_delete(self, name: str, **kwargs: Any) -> Poller[None]:
        self._transport.call("DELETE", f"{WORKSPACES}/{name}")
        return finished(None)


class RegistryOperations(Operations):
    """Registries hold assets that workspaces share; MLClient(registry_name=…) works on what is in one.

    On the wire a registry is a workspace of the kind `registry`.
    """

    noun = NOUNS["registry"]

    def list(self, **kwargs: Any) -> Iterator[Registry]:
        return map(_registry, self._transport.pages(WORKSPACES, {"kind": "registry"}))

    def get(self, name: str | None = None, **kwargs: Any) -> Registry:
        document = self._transport.call("GET", f"{WORKSPACES}/{name or self._transport.connection.workspace}")
        if document.get("kind") != "registry":
            raise NotFound(f"{name} is a workspace, not a registry", hint="`yard registry list` shows those there are.")
        return _registry(document)

    def begin_create(self, registry: Registry, **kwargs: Any) -> Poller[Registry]:
        answer = self._transport.call("PUT", f"{WORKSPACES}/{registry.name}", body=registry.workspace().document())
        return finished(_registry(answer))

    begin_create_or_update = begin_create

    def begin_delete(self, name: str, **kwargs: Any) -> Poller[None]:
        self.get(name)
        self._transport.call("DELETE", f"{WORKSPACES}/{name}")
        return finished(None)


def _registry(document: dict[str, Any]) -> Registry:
    names = ("id", "name", "description", "tags", "location", "creation_context")
    return Registry.answered({name: document[name] for name in names if name in document})

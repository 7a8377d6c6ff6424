"""The operations that nouns have in common, with the method names of `azure.ai.ml`: what is special of one stands in `nouns/`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..core.errors import Invalid
from ..spec.nouns import NOUNS, Noun
from .poller import Poller, finished
from .transport import Transport

if TYPE_CHECKING:
    from ..spec.fields import Spec
    from .upload import Progress

S = TypeVar("S", bound="Spec")
V = TypeVar("V")


class Operations:
    """Calls of the native REST API, in the client's workspace."""

    def __init__(self, transport: Transport, progress: Progress | None = None) -> None:
        self._transport = transport
        self._progress = progress

    def _path(self, path: str) -> str:
        return self._transport.workspace_path(path)

    def _call(self, method: str, path: str, **kwargs: Any) -> Any:
        return self._transport.call(method, self._path(path), **kwargs)

    def _pages(self, path: str, params: dict[str, Any] | None = None) -> Iterator[Any]:
        return self._transport.pages(self._path(path), params)

    def _sent(self, method: str, path: str, spec: Spec) -> Any:
        """Upload what is local, then send; problems that only the server could see are raised with the lines of the file."""
        from .localize import Localizer

        document = Localizer(self._transport, self._progress).document(spec)
        try:
            return self._call(method, path, body=document)
        except Invalid as error:
            raise spec.located(error) from None


class NounOperations(Operations, Generic[S]):
    noun: Noun

    def _answered(self, document: dict[str, Any]) -> S:
        read: S = self._transport.read(self.noun.name, document)
        return read


class NamedOperations(NounOperations[S]):
    """A noun with names: one document for each, replaced whole."""

    def _address(self, name: str | None = None) -> str:
        return f"/{self.noun.collection}" + ("" if name is None else f"/{name}")

    def list(self, **kwargs: Any) -> Iterator[S]:
        return map(self._answered, self._pages(self._address()))

    def get(self, name: str, **kwargs: Any) -> S:
        return self._answered(self._call("GET", self._address(name)))

    def begin_create_or_update(self, entity: S, **kwargs: Any) -> Poller[S]:
        """Local files that it names are uploaded first."""
        return finished(self._put(entity))

    def begin_delete(self, name: str, **kwargs: Any) -> Poller[None]:
        self._call("DELETE", self._address(name))
        return finished(None)

    def _put(self, entity: S) -> S:
        name = getattr(entity, "name", None)
        if not name:
            raise Invalid(f"a {self.noun.title} needs a name", code="invalid_name")
        return self._answered(self._sent("PUT", self._address(name), entity))


class DeploymentOperations(NounOperations[S]):
    """A noun whose resources belong to an endpoint."""

    def _address(self, endpoint: str, name: str | None = None) -> str:
        whole = f"/{NOUNS[self.noun.within].collection}/{endpoint}/{self.noun.collection}"
        return whole + ("" if name is None else f"/{name}")

    def list(self, endpoint_name: str, **kwargs: Any) -> Iterator[S]:
        return map(self._answered, self._pages(self._address(endpoint_name)))

    def get(self, name: str, endpoint_name: str, **kwargs: Any) -> S:
        return self._answered(self._call("GET", self._address(endpoint_name, name)))

    def begin_create_or_update(self, deployment: S, **kwargs: Any) -> Poller[S]:
        """Local files that it names are uploaded first."""
        return finished(self._put(deployment))

    def begin_delete(self, name: str, endpoint_name: str, **kwargs: Any) -> Poller[None]:
        self._call("DELETE", self._address(endpoint_name, name))
        return finished(None)

    def _put(self, deployment: Any) -> S:
        return self._answered(self._sent("PUT", self._address(deployment.endpoint_name, deployment.name), deployment))


class VersionedOperations(NounOperations[S]):
    """A noun whose names have versions, which never change."""

    def _address(self, name: str | None = None, version: str | None = None) -> str:
        whole = f"/{self.noun.collection}" + ("" if name is None else f"/{name}")
        return whole + ("" if version is None else f"/versions/{version}")

    def create_or_update(self, entity: S, **kwargs: Any) -> S:
        return self._answered(self._sent("POST", self._address(), entity))

    def get(self, name: str, version: str | None = None, label: str | None = None, **kwargs: Any) -> S:
        if "@" in name and label is None:
            name, _, label = name.partition("@")
        if ":" in name and version is None:
            name, _, version = name.partition(":")
        if version is not None:
            return self._answered(self._call("GET", self._address(name, version)))
        return self._answered(self._call("GET", self._address(name), params={"label": label}))

    def list(
        self, name: str | None = None, *, list_view_type: str = "ACTIVE_ONLY", max_results: int | None = None, **kwargs: Any
    ) -> Iterator[S]:
        documents = self._pages(self._address(), {"name": name, "archived": archived(list_view_type)})
        return map(self._answered, at_most(max_results, documents))

    def update(self, name: str, version: str, changes: dict[str, Any]) -> S:
        return self._answered(self._call("PATCH", self._address(name, version), body=changes))

    def archive(self, name: str, version: str | None = None, label: str | None = None, **kwargs: Any) -> None:
        self._call("POST", f"{self._address(name)}/archive", params={"version": self._labelled(name, version, label)})

    def restore(self, name: str, version: str | None = None, label: str | None = None, **kwargs: Any) -> None:
        self._call("POST", f"{self._address(name)}/restore", params={"version": self._labelled(name, version, label)})

    def share(
        self, name: str, version: str, *, registry_name: str, share_with_name: str | None = None, share_with_version: str | None = None
    ) -> S:
        """Make the same version in a registry, where every workspace can use it as azureml://registries/…"""
        body = {"registry": registry_name, "name": share_with_name, "version": share_with_version}
        return self._answered(self._call("POST", f"{self._address(name, version)}/share", body=body))

    def _labelled(self, name: str, version: str | None, label: str | None) -> str | None:
        return version or (str(getattr(self.get(name, label=label), "version", "")) if label else None)


def archived(list_view_type: str) -> str:
    """The word of the REST API for a `ListViewType`."""
    return {"ACTIVE_ONLY": "false", "ARCHIVED_ONLY": "true"}.get(str(list_view_type).rsplit(".", 1)[-1].upper(), "all")


def at_most(count: int | None, items: Iterable[V]) -> Iterator[V]:
    """The first `count`, or all; no page is read for more."""
    return islice(items, count)

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...spec.nouns import NOUNS
from ..resources import NamedOperations

if TYPE_CHECKING:
    from ...spec.datastore import Datastore


class DatastoreOperations(NamedOperations["Datastore"]):
    """As in azure.ai.ml, created and deleted without a poller."""

    noun = NOUNS["datastore"]

    def get_default(self, **kwargs: Any) -> Datastore:
        return self.get("workspaceblobstore")

    def create_or_update(self, datastore: Datastore) -> Datastore:
        return self._put(datastore)

    def delete(self, name: str) -> None:
        self.begin_delete(name)

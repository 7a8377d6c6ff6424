"""The record of one version of an asset."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ...core.clock import iso
from ...spec.loading import stored_spec


@dataclass(frozen=True)
class AssetVersion:
    kind: str
    name: str
    version: str
    stored: dict[str, Any]
    created_ms: int
    created_by: str
    made_in: str
    archived: bool
    content: str | None = None
    """Where its files stay as they were when the version was created, when others may write to its path too."""
    seen: str | None = None
    """The fingerprint or ETag of files that the yard does not store (a local datastore, the web), by which a later change shows."""

    @cached_property
    def spec(self) -> Any:
        """Of the kind's noun, such as `Data`."""
        return stored_spec(self.kind, self.stored, name=self.name, version=self.version)

    def document(self) -> dict[str, Any]:
        plural = {"data": "data", "environment": "environments"}.get(self.kind, self.kind + "s")
        return {
            **self.stored,
            "name": self.name,
            "version": self.version,
            "id": f"azureml://{plural}/{self.name}/versions/{self.version}",
            "creation_context": {"created_at": iso(self.created_ms), "created_by": self.created_by},
            **({"content": self.content} if self.kind == "data" and self.content is not None else {}),
        }

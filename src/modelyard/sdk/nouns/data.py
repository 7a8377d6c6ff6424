from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import Invalid
from ...spec.nouns import NOUNS
from ..resources import VersionedOperations

if TYPE_CHECKING:
    from ...spec.data import Data  # noqa: F401 (named as text)


class DataOperations(VersionedOperations["Data"]):
    noun = NOUNS["data"]

    def download(
        self, name: str, version: str | None = None, *, label: str | None = None, download_path: str | Path = ".", **kwargs: Any
    ) -> None:  # fmt: skip
        """The files of a version as they were when it was made, into `download_path/name`; azure.ai.ml has no such method.

        Raises Invalid for a version whose files do not lie in the yard.
        """
        from ...spec.references import DatastorePath, parse_reference
        from ..upload import download

        asset = self.get(name, version, label)
        path = asset.content or asset.path
        if not isinstance(parse_reference(path), DatastorePath):
            raise Invalid(f"data {asset.name}:{asset.version} lies at {path}, not in the yard", code="not_in_yard", hint="Read it there.")
        download(self._transport, path, Path(download_path) / str(asset.name), self._progress)

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import Invalid
from ...spec.nouns import NOUNS
from ..differences import differing
from ..resources import VersionedOperations

if TYPE_CHECKING:
    from ...spec.model import Model, ModelCard  # noqa: F401 (named as text)


class ModelOperations(VersionedOperations["Model"]):
    noun = NOUNS["model"]

    def delete(self, name: str, version: str | None = None) -> None:
        self._call("DELETE", self._address(name, version))

    def card(self, name: str, version: str) -> ModelCard:
        """What is on record: files, signature, run with metrics and params, data, code, environment, who uses it."""
        card: ModelCard = self._call("GET", f"{self._address(name, version)}/card")
        return card

    def card_text(self, name: str, version: str) -> str:
        """The card as Markdown."""
        with self._transport.stream(self._path(f"{self._address(name, version)}/card"), {"format": "markdown"}) as response:
            return response.text

    def compare(self, versions: Sequence[str]) -> list[dict[str, Any]]:
        """A row for each field in which `NAME:VERSION`s differ: metrics, params, signature, data, code, …"""
        return differing({ref: _parts(self.card(*_name_version(ref))) for ref in versions})

    def download(self, name: str, version: str, download_path: str | Path = ".", **kwargs: Any) -> None:
        """The model's files as they were when the version was made, into `download_path/name`."""
        from ..upload import download

        model = self.get(name, version)
        download(self._transport, model.content or model.path or "", Path(download_path) / name, self._progress)


def _name_version(ref: str) -> tuple[str, str]:
    from ...spec.references import asset_ref

    model = asset_ref(ref, "model")
    if model.version is None:
        raise Invalid(f"{ref!r} is not NAME:VERSION")
    return model.name, model.version


def _parts(card: ModelCard) -> dict[str, dict[str, Any]]:
    """A card as {part: {key: value}}; a column of the signature by its name."""
    model = card["model"]
    run: Mapping[str, Any] = card.get("run") or {}
    plain: dict[str, Any] = {key: model.get(key) for key in ("type", "stage", "description", "job_name")}
    plain |= {"files": card["files"]["digest"][:12], "code": card.get("code"), "environment": card.get("environment")}
    signature = {
        f"{part}.{item.get('name', index)}": item.get("type") or (item.get("tensor-spec") or {}).get("dtype")
        for part, items in card.get("signature", {}).items()
        for index, item in enumerate(items)
    }
    return {
        "": plain, "metrics": run.get("metrics", {}), "params": run.get("params", {}), "signature": signature,
        "data": card.get("data", {}), "flavors": card.get("flavors", {}), "git": card.get("git", {}), "tags": model.get("tags", {}),
    }  # fmt: skip

"""Whose an artifact is."""

from __future__ import annotations

from dataclasses import dataclass

from ...core.errors import Invalid
from ...spec.references import AssetRef, DatastorePath, RunArtifact


@dataclass(frozen=True)
class ArtifactPath:
    """Where an artifact path leads, and whose it is: a run's, a logged model's, a trace's, or nobody's."""

    at: DatastorePath
    run: str | None = None
    model: str | None = None
    trace: str | None = None


ModelSource = str | AssetRef | RunArtifact | ArtifactPath
"""What a model version is made from: an address elsewhere that only clients read, a version that is registered, a run's artifact, or
an artifact's path."""


def wrong_source(source: str) -> Invalid:
    return Invalid(
        f"Invalid model version source: '{source[:200]}'. It must be an absolute address without relative parts, contained in the run that the "
        "run_id request parameter names.",
        code="invalid_source",
    )

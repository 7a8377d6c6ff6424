"""Use cases of artifacts."""

from __future__ import annotations

from ...assets.files import service as files
from ...assets.files.model import artifact_place
from ...assets.models import service as models
from ...assets.models.model import ModelVersion
from ...core.actor import requires
from ...core.errors import Forbidden, NotFound
from ...spec.references import AssetRef, DatastorePath, RunArtifact
from ...storage.unit import Unit
from ..traces import service as traces
from ..tracking import service as tracking
from .model import ArtifactPath, ModelSource, wrong_source

UNOWNED = "mlflow/"
"""Below this prefix lies what MLflow clients keep under paths of no run."""


@requires("workspaces/experiments/runs/read")
def children(unit: Unit, folder: DatastorePath) -> list[tuple[str, bool, int]]:
    """What lies directly in a folder: (name, is a folder, size in bytes), sorted."""
    return files.children(unit, folder.datastore, folder.path)


@requires("workspaces/experiments/runs/write")
def check_writable(unit: Unit, path: ArtifactPath) -> None:
    """Before a byte is taken: the run, logged model or trace exists and the caller may write it. Raises NotFound, Forbidden."""
    if path.run:
        tracking.check_artifact_writable(unit, path.run)
    elif path.model:
        tracking.check_model_writable(unit, path.model)
    elif path.trace:
        traces.check_writable(unit, path.trace)
    elif unit.actor.bound_to:
        raise Forbidden(f"job {unit.actor.run} writes artifacts of its own run only")
    elif not path.at.path.startswith(UNOWNED):
        raise Forbidden("this path belongs to a datastore; upload to the datastore itself")


@requires("workspaces/experiments/runs/write")
def keep(unit: Unit, path: ArtifactPath, digest: str, size: int) -> None:
    """Point an artifact's path at a stored blob."""
    check_writable(unit, path)
    files.put_file(unit, path.at.datastore, path.at.path, digest, size, bounded=True)


@requires("workspaces/experiments/runs/write")
def delete(unit: Unit, path: ArtifactPath) -> None:
    check_writable(unit, path)
    files.delete_files(unit, path.at.datastore, path.at.path.rstrip("/"))


@requires("workspaces/models/write")
def register(
    unit: Unit, name: str, source: str, location: ModelSource | None, *, run_id: str | None, model_id: str | None, description: str,
    tags: dict[str, str],
) -> ModelVersion:  # fmt: skip
    """Create a model version from files of a run or logged model. `source` is `location` as the client wrote it; `location` is None for a prompt, a text in a tag.

    What lies in this yard must lie in the run or logged model that the request names, as MLflow 3.17 asks. Raises Invalid, NotFound.
    """
    path = ""
    if location is not None:
        if model_id:
            run_id = run_id or tracking.get_logged_model(unit, model_id).run_id
        path = _path_of_source(unit, source, location, run_id, model_id)
        if run_id:
            tracking.get_run(unit, run_id)
    return models.create_version(unit, name, path, source, run_id=run_id, model_id=model_id, description=description, tags=tags)


def _path_of_source(unit: Unit, source: str, location: ModelSource, run_id: str | None, model_id: str | None) -> str:
    if isinstance(location, str):
        return location
    if isinstance(location, AssetRef):
        return models.resolve(unit, location).path
    if isinstance(location, RunArtifact):
        if location.run != run_id:
            raise wrong_source(source)
        try:
            return str(files.output_place(unit, location))
        except NotFound:
            return str(artifact_place(location.run, location.path))
    if (location.run and location.run != run_id) or (location.model and model_id and location.model != model_id):
        raise wrong_source(source)
    return str(location.at)

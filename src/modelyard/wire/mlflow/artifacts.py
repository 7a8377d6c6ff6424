"""The artifact proxy: list, download with ranges, upload, delete; and `artifacts/list` of a run."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from ...assets.files import service as files
from ...assets.files.rest import blob_answer
from ...core.actor import requires
from ...core.errors import Forbidden, Invalid
from ...core.names import safe_path
from ...engine.http import Call, stream_of
from ...spec.references import DatastorePath
from ...storage.unit import Unit
from ...work.tracking import service as tracking
from . import shapes
from .app import route
from .bodies import needed, query
from .paths import Place, place_of


@requires("workspaces/experiments/runs/read")
def _children(unit: Unit, place: DatastorePath) -> list[tuple[str, bool, int]]:
    return files.children(unit, place.datastore, place.path)


@requires("workspaces/experiments/runs/write")
def _check_writable(unit: Unit, place: Place) -> None:
    """Before a byte is taken: the run or logged model exists and the caller may write it."""
    if place.run:
        tracking.check_artifact_writable(unit, place.run)
    elif place.model:
        tracking.check_model_writable(unit, place.model)
    elif unit.actor.run:
        raise Forbidden(f"job {unit.actor.run} writes artifacts of its own run only")
    elif not place.at.path.startswith("mlflow/"):
        raise Forbidden("this path belongs to a datastore; upload to the datastore itself")


@requires("workspaces/experiments/runs/write")
def _keep(unit: Unit, place: Place, digest: str, size: int) -> None:
    _check_writable(unit, place)
    files.put_file(unit, place.at.datastore, place.at.path, digest, size)


@requires("workspaces/experiments/runs/write")
def _delete(unit: Unit, place: Place) -> None:
    _check_writable(unit, place)
    files.delete_files(unit, place.at.datastore, place.at.path.rstrip("/"))


def _listed(base: str, found: list[tuple[str, bool, int]]) -> list[dict[str, Any]]:
    prefix = f"{base}/" if base else ""
    return [{"path": prefix + name, "is_dir": is_folder, **({} if is_folder else {"file_size": size})} for name, is_folder, size in found]


@route("GET", "mlflow-artifacts/artifacts")
async def list_proxied(call: Call, _: dict[str, str]) -> Any:
    place = place_of(query(call.request, "path"))
    return {"files": _listed("", await call.read(_children, place.at))}


@route("GET", "mlflow-artifacts/artifacts/{path:path}")
async def download(call: Call, path: dict[str, str]) -> Response:
    place = place_of(path["path"])
    file = await call.read(files.get_file, place.at.datastore, place.at.path)
    return blob_answer(call, file, call.request.headers.get("range"))


@route("PUT", "mlflow-artifacts/artifacts/{path:path}")
async def upload(call: Call, path: dict[str, str]) -> Any:
    if path["path"].endswith("/"):
        raise Invalid("an artifact path does not end with `/`", code="invalid_path")
    place = place_of(path["path"])
    await call.read(_check_writable, place)
    blob = await call.yard.objects.put_stream(stream_of(call.request), limit=call.yard.settings.max_upload_bytes)
    await call.write(_keep, place, blob.digest, blob.size)
    return {}


@route("DELETE", "mlflow-artifacts/artifacts/{path:path}")
async def delete(call: Call, path: dict[str, str]) -> Any:
    await call.write(_delete, place_of(path["path"]))
    return {}


@route("GET", "mlflow/artifacts/list")
async def list_of_run(call: Call, _: dict[str, str]) -> Any:
    id = query(call.request, "run_id") or query(call.request, "run_uuid")
    run = await call.read(tracking.get_run, needed(id, "run_id"))
    base = query(call.request, "path").strip("/")
    if base:
        base = safe_path(base, "artifact path")
    place = place_of(f"{run.experiment_id}/{run.id}/artifacts/{base}")
    return {"root_uri": shapes.artifact_uri(run), "files": _listed(base, await call.read(_children, place.at))}


@route("GET", "mlflow/logged-models/{model_id}/artifacts/directories")
async def list_of_logged_model(call: Call, path: dict[str, str]) -> Any:
    model = await call.read(tracking.get_logged_model, path["model_id"])
    base = query(call.request, "artifact_directory_path").strip("/")
    if base:
        base = safe_path(base, "artifact path")
    place = place_of(f"{model.experiment_id}/models/{model.id}/artifacts/{base}")
    return {
        "root_uri": shapes.logged_model(model)["info"]["artifact_uri"],
        "files": _listed(base, await call.read(_children, place.at)),
    }

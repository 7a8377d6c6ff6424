"""The artifact proxy: list, download with ranges, upload, delete; and `artifacts/list` of a run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

from starlette.responses import Response

from ...assets.files import service as files
from ...assets.files.intake import intake_of
from ...assets.files.rest import blob_answer
from ...assets.models import service as models
from ...core.errors import Invalid, NotFound
from ...core.ids import hex32
from ...core.names import safe_path
from ...engine.http import Call, stream_of
from ...ports.objects import File
from ...spec.references import DatastorePath, parse_reference
from ...work.artifacts import service
from ...work.artifacts.model import ArtifactPath
from ...work.tracking import service as tracking
from . import names, shapes
from .app import route
from .bodies import MultipartBody, body, needed, query
from .paths import artifact_path_of

MAX_PARTS = 10_000


async def _listed(call: Call, root: str, base: str) -> list[dict[str, Any]]:
    """What lies in the folder `base` of the artifact root `root`, by paths that begin with `base`."""
    shown = names.shown if names.is_python_client(call.request) else str
    prefix = f"{shown(base)}/" if base else ""
    children = []
    for folder in names.asked_folders(call.request, root + base):
        if children := await call.read(service.children, artifact_path_of(folder).at):
            break
    return [
        {"path": prefix + shown(name), "is_dir": is_folder, **({} if is_folder else {"file_size": size})}
        for name, is_folder, size in children
    ]


async def _file(call: Call, paths: Iterable[str]) -> File:
    """The first of these artifacts that there is. Raises NotFound of the first."""
    missing = None
    for path in paths:
        at = artifact_path_of(path).at
        try:
            return await call.read(files.get_file, at.datastore, at.path)
        except NotFound as error:
            missing = missing or error
    assert missing is not None
    raise missing


@route("GET", "mlflow-artifacts/artifacts")
async def list_proxied(call: Call, _: dict[str, str]) -> Any:
    return {"files": await _listed(call, query(call.request, "path").rstrip("/") + "/", "")}


@route("GET", "mlflow-artifacts/artifacts/{path:path}")
async def download(call: Call, path: dict[str, str]) -> Response:
    file = await _file(call, names.asked_names(call.request, path["path"]))
    return await blob_answer(call, file, call.request.headers.get("range"))


@route("PUT", "mlflow-artifacts/artifacts/{path:path}")
async def upload(call: Call, path: dict[str, str]) -> Any:
    if path["path"].endswith("/"):
        raise Invalid("an artifact path does not end with `/`", code="invalid_path")
    name = names.sent_name(call.request, path["path"])
    names.check_whole(call.request, name)
    return await _keep(call, artifact_path_of(name))


async def _keep(call: Call, target: ArtifactPath) -> dict[str, Any]:
    await call.read(service.check_writable, target)
    blob = await intake_of(call).take(call, stream_of(call.request))
    await call.write(service.keep, target, blob.digest, blob.size)
    return {}


@route("DELETE", "mlflow-artifacts/artifacts/{path:path}")
async def delete(call: Call, path: dict[str, str]) -> Any:
    await call.write(service.delete, artifact_path_of(names.sent_name(call.request, path["path"])))
    return {}


@route("POST", "mlflow-artifacts/mpu/create/{path:path}")
async def begin_parts(call: Call, path: dict[str, str]) -> Any:
    """Where to send each part: back here, with the caller's own token."""
    sent = await body(call, MultipartBody, service.check_writable)
    count = needed(sent.num_parts, "num_parts")
    if not 1 <= count <= MAX_PARTS:
        raise Invalid(f"an upload has 1 to {MAX_PARTS} parts, not {count}")
    await call.read(service.check_writable, _target(names.sent_name(call.request, path["path"]), sent))
    upload = hex32()
    base = f"{call.request.base_url}ws/{call.workspace}/api/2.0/mlflow-artifacts/mpu/parts/{upload}"
    headers = {"Authorization": call.request.headers.get("authorization", "")}
    credentials = [{"url": f"{base}/{number}", "part_number": number, "headers": headers} for number in range(1, count + 1)]
    return {"upload_id": upload, "credentials": credentials}


def _target(folder: str, sent: MultipartBody) -> ArtifactPath:
    name = needed(sent.path, "path").replace("\\", "/").rsplit("/", 1)[-1]
    return artifact_path_of(f"{folder.strip('/')}/{name}")


@route("PUT", "mlflow-artifacts/mpu/parts/{upload}/{number}")
async def take_part(call: Call, path: dict[str, str]) -> Response:
    if not path["number"].isdigit() or not 1 <= int(path["number"]) <= MAX_PARTS:
        raise Invalid(f"a part has a number from 1 to {MAX_PARTS}")
    call.permit(files.stage_part)
    await call.read(files.check_upload)
    blob = await intake_of(call).take(call, stream_of(call.request))
    await call.write(files.stage_part, path["upload"], int(path["number"]), blob.digest, blob.size)
    return Response(b"", headers={"ETag": f'"{blob.digest}"'})


@route("POST", "mlflow-artifacts/mpu/complete/{path:path}")
async def complete_parts(call: Call, path: dict[str, str]) -> Any:
    sent = await body(call, MultipartBody, service.check_writable)
    upload, target = needed(sent.upload_id, "upload_id"), _target(names.sent_name(call.request, path["path"]), sent)
    await call.read(service.check_writable, target)
    staged = await call.read(files.staged_parts, upload)
    numbers = [needed(part.part_number, "part_number") for part in sent.parts or ()]
    missing = [number for number in numbers if number not in staged]
    if missing or not numbers:
        raise Invalid(f"parts {missing[:10]} of upload {upload} have not come" if missing else "an upload has one part at least")
    chunks = _joined(call, [staged[number].digest for number in sorted(numbers)])
    blob = await intake_of(call).take(call, chunks)
    await call.write(service.keep, target, blob.digest, blob.size)
    await call.write(files.drop_parts, upload)
    return {}


async def _joined(call: Call, digests: list[str]) -> AsyncIterator[bytes]:
    for digest in digests:
        chunks = call.yard.objects.open(digest)
        while chunk := await asyncio.to_thread(next, chunks, b""):
            yield chunk


@route("POST", "mlflow-artifacts/mpu/abort/{path:path}")
async def abort_parts(call: Call, path: dict[str, str]) -> Any:
    sent = await body(call, MultipartBody, files.drop_parts)
    await call.write(files.drop_parts, needed(sent.upload_id, "upload_id"))
    return {}


@route("GET", "mlflow/artifacts/list")
async def list_of_run(call: Call, _: dict[str, str]) -> Any:
    id = query(call.request, "run_id") or query(call.request, "run_uuid")
    run = await call.read(tracking.get_run, needed(id, "run_id"))
    base = query(call.request, "path").strip("/")
    if base:
        base = safe_path(base, "artifact path")
    return {"root_uri": shapes.artifact_uri(run), "files": await _listed(call, f"{run.experiment_id}/{run.id}/artifacts/", base)}


@route("GET", "mlflow/logged-models/{model_id}/artifacts/directories")
async def list_of_logged_model(call: Call, path: dict[str, str]) -> Any:
    model = await call.read(tracking.get_logged_model, path["model_id"])
    base = query(call.request, "artifact_directory_path").strip("/")
    if base:
        base = safe_path(base, "artifact path")
    return {
        "root_uri": shapes.logged_model(model)["info"]["artifact_uri"],
        "files": await _listed(call, f"{model.experiment_id}/models/{model.id}/artifacts/", base),
    }


@route("GET", "get-artifact")
async def fetch_of_run(call: Call, _: dict[str, str]) -> Response:
    """As MLflow's own page fetches a file of a run."""
    id = query(call.request, "run_id") or query(call.request, "run_uuid")
    run = await call.read(tracking.get_run, needed(id, "run_id"))
    return await _fetch(call, f"{run.experiment_id}/{run.id}/artifacts", query(call.request, "path"))


@route("GET", "mlflow/logged-models/{model_id}/artifacts/files")
async def fetch_of_logged_model(call: Call, path: dict[str, str]) -> Response:
    model = await call.read(tracking.get_logged_model, path["model_id"])
    return await _fetch(call, f"{model.experiment_id}/models/{model.id}/artifacts", query(call.request, "artifact_file_path"))


@route("GET", "model-versions/get-artifact")
async def fetch_of_version(call: Call, _: dict[str, str]) -> Response:
    name, version = needed(query(call.request, "name"), "name"), needed(query(call.request, "version"), "version")
    registered = await call.read(models.get_version, name, version)
    location = parse_reference(registered.path) if registered.path else None
    if not isinstance(location, DatastorePath):
        raise NotFound(f"the files of {name} version {version} lie at {registered.source}, not in this yard")
    path = safe_path(needed(query(call.request, "path"), "path"), "artifact path")
    file = await call.read(files.get_file, location.datastore, f"{location.path.rstrip('/')}/{path}")
    return await blob_answer(call, file, call.request.headers.get("range"))


async def _fetch(call: Call, root: str, path: str) -> Response:
    target = artifact_path_of(f"{root}/{safe_path(needed(path, 'path'), 'artifact path')}")
    file = await call.read(files.get_file, target.at.datastore, target.at.path)
    return await blob_answer(call, file, call.request.headers.get("range"))


@route("POST", "mlflow/upload-artifact")
async def upload_to_run(call: Call, _: dict[str, str]) -> Any:
    id, path = query(call.request, "run_uuid") or query(call.request, "run_id"), query(call.request, "path")
    run = await call.read(tracking.get_run, needed(id, "run_uuid"))
    return await _keep(call, artifact_path_of(f"{run.experiment_id}/{run.id}/artifacts/{safe_path(needed(path, 'path'), 'artifact path')}"))

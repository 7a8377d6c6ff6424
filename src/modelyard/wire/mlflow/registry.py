"""Registered models, model versions, aliases, stages."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from ...assets.files.model import logged_model_place
from ...assets.models import service
from ...assets.models.model import PROMPT
from ...engine.http import Call
from ...spec.references import AssetRef, DatastorePath, RunArtifact, parse_reference
from ...work.artifacts import service as artifacts
from ...work.artifacts.model import ArtifactPath, ModelSource, wrong_source
from . import shapes
from .app import route
from .bodies import RegistryBody, body, needed, number, pairs, query
from .paths import artifact_path_of_uri, proxy_uri


@route("POST", "mlflow/registered-models/create")
async def create(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, RegistryBody, service.create_registered)
    tags = pairs(sent.tags)
    model = await call.write(service.create_registered, needed(sent.name, "name"), sent.description or "", tags)
    return {"registered_model": shapes.registered_model(model)}


@route("GET", "mlflow/registered-models/get")
async def get(call: Call, _: dict[str, str]) -> Any:
    model = await call.read(service.get_registered, needed(query(call.request, "name"), "name"))
    return {"registered_model": shapes.registered_model(model)}


@route("PATCH", "mlflow/registered-models/update")
async def update(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, RegistryBody, service.update_registered)
    model = await call.write(service.update_registered, needed(sent.name, "name"), sent.description or "")
    return {"registered_model": shapes.registered_model(model)}


@route("POST", "mlflow/registered-models/rename")
async def rename(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, RegistryBody, service.rename_registered)
    model = await call.write(service.rename_registered, needed(sent.name, "name"), needed(sent.new_name, "new_name"))
    return {"registered_model": shapes.registered_model(model)}


@route("DELETE", "mlflow/registered-models/delete")
async def delete(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, RegistryBody, service.delete_registered)
    await call.write(service.delete_registered, needed(sent.name or query(call.request, "name"), "name"))
    return {}


@route("GET", "mlflow/registered-models/search")
async def search(call: Call, _: dict[str, str]) -> Any:
    request = call.request
    order = request.query_params.getlist("order_by")
    page = await call.read(
        service.search_registered, query(request, "filter"), order, number(request, "max_results", 100),
        query(request, "page_token") or None,
    )  # fmt: skip
    models = [shapes.registered_model(record) for record in page.items]
    return {"registered_models": models, **({"next_page_token": page.next_token} if page.next_token else {})}


@route("GET POST", "mlflow/registered-models/get-latest-versions")
async def latest_versions(call: Call, _: dict[str, str]) -> Any:
    if call.request.method == "GET":
        name, stages = query(call.request, "name"), call.request.query_params.getlist("stages")
    else:
        sent = await body(call, RegistryBody, service.latest_versions)
        name, stages = sent.name or "", sent.stages or []
    versions = await call.read(service.latest_versions, needed(name, "name"), stages)
    return {"model_versions": [shapes.model_version(item) for item in versions]}


@route("POST", "mlflow/registered-models/set-tag")
async def set_tag(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, RegistryBody, service.set_registered_tag)
    await call.write(service.set_registered_tag, needed(sent.name, "name"), sent.key, sent.value)
    return {}


@route("DELETE", "mlflow/registered-models/delete-tag")
async def delete_tag(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, RegistryBody, service.delete_registered_tag)
    await call.write(service.delete_registered_tag, needed(sent.name, "name"), needed(sent.key, "key"))
    return {}


@route("POST", "mlflow/registered-models/alias")
async def set_alias(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, RegistryBody, service.set_alias)
    await call.write(service.set_alias, needed(sent.name, "name"), sent.alias, str(needed(sent.version, "version")))
    return {}


@route("GET", "mlflow/registered-models/alias")
async def get_alias(call: Call, _: dict[str, str]) -> Any:
    name, alias = needed(query(call.request, "name"), "name"), needed(query(call.request, "alias"), "alias")
    return {"model_version": shapes.model_version(await call.read(service.get_by_alias, name, alias))}


@route("DELETE", "mlflow/registered-models/alias")
async def delete_alias(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, RegistryBody, service.delete_alias)
    name, alias = sent.name or query(call.request, "name"), sent.alias or query(call.request, "alias")
    await call.write(service.delete_alias, needed(name, "name"), needed(alias, "alias"))
    return {}


@route("POST", "mlflow/model-versions/create")
async def create_version(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, RegistryBody, artifacts.register)
    source = needed(sent.source, "source")
    tags = pairs(sent.tags)
    location = _source_of(source) if tags.get(PROMPT) != "true" else None
    named = location.model if isinstance(location, ArtifactPath) and source.startswith("models:/m-") else sent.model_id
    version = await call.write(
        artifacts.register, needed(sent.name, "name"), source, location, run_id=sent.run_id or None, model_id=named or None,
        description=sent.description or "", tags=tags,
    )  # fmt: skip
    return {"model_version": shapes.model_version(version)}


def _source_of(source: str) -> ModelSource:
    """Parse the source of a model version: an artifact or asset of this yard, or an address elsewhere that only clients read. Raises Invalid."""
    if source.startswith("models:/m-"):
        model_path = source.removeprefix("models:/")
        return ArtifactPath(logged_model_place(model_path), model=model_path.split("/")[0])
    plain = unquote(unquote(source))
    if "\x00" in plain or "#" in source or "?" in source or ".." in plain.split("/"):
        raise wrong_source(source)
    if source.startswith(_ELSEWHERE):
        return source
    reference = parse_reference(source)
    return reference if isinstance(reference, (AssetRef, RunArtifact)) else artifact_path_of_uri(source)


_ELSEWHERE = ("s3:", "gs:", "dbfs:", "hdfs:", "viewfs:")


def _version_of(sent: RegistryBody) -> tuple[str, str]:
    return needed(sent.name, "name"), str(needed(sent.version, "version"))


def _requested_version(call: Call) -> tuple[str, str]:
    return needed(query(call.request, "name"), "name"), needed(query(call.request, "version"), "version")


@route("GET", "mlflow/model-versions/get")
async def get_version(call: Call, _: dict[str, str]) -> Any:
    return {"model_version": shapes.model_version(await call.read(service.get_version, *_requested_version(call)))}


@route("PATCH", "mlflow/model-versions/update")
async def update_version(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, RegistryBody, service.update_version)
    version = await call.write(service.update_version, *_version_of(sent), sent.description or "")
    return {"model_version": shapes.model_version(version)}


@route("DELETE", "mlflow/model-versions/delete")
async def delete_version(call: Call, _: dict[str, str]) -> Any:
    await call.write(service.delete_version, *_version_of(await body(call, RegistryBody, service.delete_version)))
    return {}


@route("POST", "mlflow/model-versions/transition-stage")
async def transition_stage(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, RegistryBody, service.transition_stage)
    archive = bool(sent.archive_existing_versions)
    version = await call.write(service.transition_stage, *_version_of(sent), sent.stage, archive)
    return {"model_version": shapes.model_version(version)}


@route("GET", "mlflow/model-versions/get-download-uri")
async def get_download_uri(call: Call, _: dict[str, str]) -> Any:
    version = await call.read(service.get_version, *_requested_version(call))
    location = parse_reference(version.path) if version.path else None
    return {"artifact_uri": proxy_uri(location) if isinstance(location, DatastorePath) else version.source}


@route("GET", "mlflow/model-versions/search")
async def search_versions(call: Call, _: dict[str, str]) -> Any:
    request = call.request
    order = request.query_params.getlist("order_by")
    page = await call.read(
        service.search_versions,
        query(request, "filter"),
        order,
        number(request, "max_results", 10_000),
        query(request, "page_token") or None,
    )
    versions = [shapes.model_version(item) for item in page.items]
    return {"model_versions": versions, **({"next_page_token": page.next_token} if page.next_token else {})}


@route("POST", "mlflow/model-versions/set-tag")
async def set_version_tag(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, RegistryBody, service.set_version_tag)
    await call.write(service.set_version_tag, *_version_of(sent), sent.key, sent.value)
    return {}


@route("DELETE", "mlflow/model-versions/delete-tag")
async def delete_version_tag(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, RegistryBody, service.delete_version_tag)
    await call.write(service.delete_version_tag, *_version_of(sent), needed(sent.key, "key"))
    return {}

"""Use cases of model cards."""

from __future__ import annotations

from typing import Any

from ...assets.files import service as files
from ...assets.models import service as models
from ...assets.models.model import ModelVersion
from ...assets.references import service as references
from ...core.actor import requires
from ...core.errors import NotFound
from ...spec.references import AssetRef, DatastorePath, parse_reference
from ...storage.unit import Unit
from ...work.jobs import service as jobs
from ...work.tracking import service as tracking
from ...work.tracking.model import in_document


@requires("workspaces/models/read")
def card(unit: Unit, ref: AssetRef) -> tuple[dict[str, Any], str | None]:
    """The card without what the model's own files say, and the digest of its MLmodel file when it has one."""
    version = models.resolve(unit, ref)
    location = parse_reference(version.path) if version.path else None
    tree = files.files_at(unit, location) if isinstance(location, DatastorePath) else None
    mlmodel = next((file.digest for file in tree.files if file.path == "MLmodel"), None) if tree else None
    used = references.holders_of(unit, "model", version.name, version.version)
    document = {
        "model": version.document(),
        "aliases": list(version.aliases),
        "files": {"count": len(tree.files), "size": tree.size, "digest": tree.digest} if tree else {"count": 0, "size": 0, "digest": ""},
        "used_by": [{"kind": kind, "name": name} for kind, name in used],
        **_origin(unit, version),
    }
    return document, mlmodel


def _origin(unit: Unit, version: ModelVersion) -> dict[str, Any]:
    if not version.run_id:
        return {}
    try:
        run = in_document(tracking.get_run(unit, version.run_id))
    except NotFound:
        return {}
    shown = {
        key: value for key, value in run["metrics"].items() if not key.startswith("system/")
    }  # how busy the machine was says nothing of the model
    origin: dict[str, Any] = {"run": {**{key: value for key, value in run.items() if key != "tags"}, "metrics": shown}}
    try:
        job = jobs.get(unit, version.run_id)
    except NotFound:
        return origin
    properties = job.properties
    origin["run"]["rerun"] = f"yard job rerun -n {job.name} --verify"
    return {
        **origin,
        "data": properties.inputs,
        "code": properties.code,
        "environment": properties.environment,
        "git": {key.removeprefix("azureml."): value for key, value in properties.git.items()},
        "machine": properties.machine or {},
    }

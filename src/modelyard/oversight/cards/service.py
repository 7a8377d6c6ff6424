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
    found = models.resolve(unit, ref)
    place = parse_reference(found.path) if found.path else None
    tree = files.files_at(unit, place) if isinstance(place, DatastorePath) else None
    mlmodel = next((file.digest for file in tree.files if file.path == "MLmodel"), None) if tree else None
    used = references.holders_of(unit, "model", found.name, found.version)
    document = {
        "model": found.document(),
        "aliases": list(found.aliases),
        "files": {"count": len(tree.files), "size": tree.size, "digest": tree.digest} if tree else {"count": 0, "size": 0, "digest": ""},
        "used_by": [{"kind": kind, "name": name} for kind, name in used],
        **_made_by(unit, found),
    }
    return document, mlmodel


def _made_by(unit: Unit, found: ModelVersion) -> dict[str, Any]:
    if not found.run_id:
        return {}
    try:
        run = in_document(tracking.get_run(unit, found.run_id))
    except NotFound:
        return {}
    shown = {
        key: value for key, value in run["metrics"].items() if not key.startswith("system/")
    }  # how busy the machine was says nothing of the model
    made: dict[str, Any] = {"run": {**{key: value for key, value in run.items() if key != "tags"}, "metrics": shown}}
    try:
        job = jobs.get(unit, found.run_id)
    except NotFound:
        return made
    properties = job.properties
    made["run"]["rerun"] = f"yard job rerun -n {job.name} --verify"
    return {
        **made,
        "data": properties.inputs,
        "code": properties.code,
        "environment": properties.environment,
        "git": {key.removeprefix("azureml."): value for key, value in properties.git.items()},
        "machine": properties.machine or {},
    }

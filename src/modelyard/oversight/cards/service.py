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
from ...spec.sweep import CHOSEN
from ...storage.unit import Unit
from ...work.jobs import service as jobs
from ...work.jobs.model import JobRecord
from ...work.tracking import service as tracking
from ...work.tracking.model import Run, in_document
from ..lineage import service as lineage


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
    """Of the run that made the version: for a pipeline or sweep that has taken it over, the step or trial that wrote it."""
    _, writers = references.makers_of(unit, "model", f"{version.name}:{version.version}")
    maker = _run(unit, writers[0] if writers else version.run_id)
    if maker is None:
        return {}
    run = in_document(maker)
    shown = {
        key: value for key, value in run["metrics"].items() if not key.startswith("system/")
    }  # how busy the machine was says nothing of the model
    origin: dict[str, Any] = {"run": {**{key: value for key, value in run.items() if key != "tags"}, "metrics": shown}}
    if writers and version.run_id:
        origin["run"]["taken_over_by"] = version.run_id
    origin["made_from"] = lineage.data_behind(unit, f"{version.name}:{version.version}")
    job = _job_of(unit, maker)
    if job is None:
        return origin
    properties = job.properties
    origin["run"]["rerun"] = f"yard job rerun -n {job.name} --verify"
    return {
        **origin,
        "inputs": _values_given(job),
        "data": properties.inputs,
        "code": properties.code,
        "environment": properties.environment,
        "git": {key.removeprefix("azureml."): value for key, value in properties.git.items()},
        "machine": properties.machine or {},
    }


def _values_given(job: JobRecord) -> dict[str, Any]:
    """The inputs of a job that are values, and what a sweep has chosen for it."""
    inputs = {
        port: value["value"] for port, value in (job.stored.get("inputs") or {}).items() if isinstance(value, dict) and "value" in value
    }
    chosen = {name.removeprefix(CHOSEN): value for name, value in (job.stored.get("tags") or {}).items() if name.startswith(CHOSEN)}
    return {**chosen, **inputs}


def _run(unit: Unit, id: str | None) -> Run | None:
    try:
        return tracking.get_run(unit, id) if id else None
    except NotFound:
        return None


def _job_of(unit: Unit, run: Run) -> JobRecord | None:
    """The job that a run is, or that it was made in: the nearest above it."""
    seen: set[str] = set()
    above: Run | None = run
    while above is not None and above.id not in seen:
        if (job := jobs.record_of(unit, above.id)) is not None:
            return job
        seen.add(above.id)
        above = _run(unit, above.parent)
    return None

"""Paths of the artifact proxy and the datastore paths they stand for."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

from ...assets.files.model import artifact_place, logged_model_place
from ...core.errors import Invalid
from ...core.names import safe_path
from ...spec.references import ARTIFACTSTORE, DatastorePath
from ...work.artifacts.model import ArtifactPath

_RUN = re.compile(r"^\d+/(?P<run>[^/]+)/artifacts(?:/(?P<rest>.*))?$")
_MODEL = re.compile(r"^\d+/models/(?P<model>[^/]+)/artifacts(?:/(?P<rest>.*))?$")
_TRACE = re.compile(r"^\d+/traces/(?P<trace>[^/]+)/artifacts(?:/(?P<rest>.*))?$")
_STORE = re.compile(r"^yard/(?P<store>[^/]+)/(?P<rest>.*)$")


def artifact_path_of(path: str) -> ArtifactPath:
    """The artifact at a proxy path such as `0/<run>/artifacts/model/MLmodel`. Raises Invalid for one that is not plain."""
    path = path.strip("/")
    if path:
        path = safe_path(path, "artifact path")
    if match := _MODEL.match(path):
        return ArtifactPath(logged_model_place(match["model"], match["rest"] or ""), model=match["model"])
    if match := _RUN.match(path):
        return ArtifactPath(artifact_place(match["run"], match["rest"] or ""), run=match["run"])
    if match := _TRACE.match(path):
        return ArtifactPath(DatastorePath(ARTIFACTSTORE, f"mlflow/{path}"), trace=match["trace"])
    if match := _STORE.match(path):
        return ArtifactPath(DatastorePath(match["store"], match["rest"]))
    return ArtifactPath(DatastorePath(ARTIFACTSTORE, f"mlflow/{path}"))


def proxy_uri(location: DatastorePath) -> str:
    """The address at which an MLflow client downloads what lies at `location`."""
    return f"mlflow-artifacts:/yard/{location.datastore}/{quote(location.path.rstrip('/'))}"


def artifact_path_of_uri(uri: str) -> ArtifactPath:
    """The artifact at a URI that a client names: `mlflow-artifacts:/…`, or the proxy's own http address."""
    if "#" in uri or "?" in uri:
        raise Invalid("an artifact URI carries no `#` or `?`", code="invalid_source")
    if uri.startswith("mlflow-artifacts:"):
        return artifact_path_of(unquote(re.sub(r"^mlflow-artifacts:/*(?:/[^/]*:\d+/)?", "", uri)))
    match = re.match(r"^https?://[^/]+(?:/ws/[^/]+)?/api/2\.0/mlflow-artifacts/artifacts/(.*)$", uri)
    if match:
        return artifact_path_of(unquote(match[1]))
    raise Invalid(f"Invalid model version source: {uri[:200]!r}. It must be an artifact of this yard.", code="invalid_source")

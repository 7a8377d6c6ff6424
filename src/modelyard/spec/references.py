"""The ways to name a resource: `azureml:` short names and URIs, `runs:/`, `models:/`, http(s), local paths.

`yard:` means the same as `azureml:` everywhere. Table of forms: reference `azure-v2-fields`, section 4.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..core.errors import Invalid

BLOBSTORE = "workspaceblobstore"
ARTIFACTSTORE = "workspaceartifactstore"

_WORKSPACE_PREFIX = re.compile(r"^subscriptions/[^/]+/resource[gG]roups/[^/]+/(?:providers/[^/]+/)?workspaces/([^/]+)/")
_ARM_ASSET = re.compile(r"^/subscriptions/.+/(?P<kind>\w+)/(?P<name>[^/]+)/versions/(?P<version>[^/]+)$")
_SHORT = re.compile(r"^(?P<name>[^:@/\\]+)(?::(?P<version>[^:@/\\]+)|@(?P<label>[^:@/\\]+))?$")


@dataclass(frozen=True)
class AssetRef:
    """A named asset: exactly one of `version` and `label`, or neither (the plain name). `registry` when it is shared."""

    name: str
    version: str | None = None
    label: str | None = None
    kind: str | None = None
    registry: str | None = None

    def __str__(self) -> str:
        tail = f":{self.version}" if self.version else f"@{self.label}" if self.label else ""
        return f"azureml:{self.name}{tail}"


@dataclass(frozen=True)
class DatastorePath:
    datastore: str
    path: str

    def __str__(self) -> str:
        return f"azureml://datastores/{self.datastore}/paths/{self.path}"


@dataclass(frozen=True)
class JobOutput:
    job: str
    output: str
    path: str = ""


@dataclass(frozen=True)
class RunArtifact:
    """`runs:/<run id>/<path>`"""

    run: str
    path: str


@dataclass(frozen=True)
class WebAddress:
    url: str


@dataclass(frozen=True)
class LocalPath:
    path: str


Reference = AssetRef | DatastorePath | JobOutput | RunArtifact | WebAddress | LocalPath


def is_local(text: str) -> bool:
    """Whether `text` names something on the client's own disk, so that the client has to upload it."""
    return isinstance(parse_reference(text), LocalPath)


def parse_reference(text: str) -> Reference:
    """Read any reference form. Raises Invalid for an `azureml:` form that is none of the documented ones."""
    if text.startswith("yard:"):
        text = "azureml:" + text.removeprefix("yard:")
    if text.startswith("azureml://"):
        return _uri(text)
    if text.startswith("azureml:"):
        remainder = text.removeprefix("azureml:")
        if arm := _ARM_ASSET.match(remainder):
            return AssetRef(arm["name"], version=arm["version"], kind=arm["kind"])
        match = _SHORT.match(remainder)
        if not match:
            raise _unknown(text)
        return AssetRef(match["name"], match["version"], match["label"])
    if text.startswith("runs:/"):
        run, _, path = text.removeprefix("runs:/").lstrip("/").partition("/")
        if not run:
            raise _unknown(text)
        return RunArtifact(run, path)
    if text.startswith("models:/"):
        return _model_uri(text)
    if text.startswith(("http://", "https://")):
        return WebAddress(text)
    if re.match(r"^(wasbs?|abfss?|adl|s3|gs|hdfs)://", text):
        return WebAddress(text)
    if arm := _ARM_ASSET.match(text):
        return AssetRef(arm["name"], version=arm["version"], kind=arm["kind"])
    return LocalPath(text.removeprefix("file://").removeprefix("file:"))


def _uri(text: str) -> Reference:
    remainder = text.removeprefix("azureml://")
    remainder = _WORKSPACE_PREFIX.sub("", remainder)
    remainder = re.sub(r"^locations/[^/]+/workspaces/[^/]+/", "", remainder)
    parts = remainder.split("/")
    match parts:
        case ["datastores", store, "paths", *path] if store:
            return DatastorePath(store, "/".join(path))
        case ["jobs", job, "outputs", output, "paths", *path] if job and output:
            return JobOutput(job, output, "/".join(path))
        case ["jobs", job, "outputs", output] if job and output:
            return JobOutput(job, output)
        case ["registries", registry, kind, name, "versions", version]:
            return AssetRef(name, version=version, kind=kind, registry=registry)
        case ["registries", registry, kind, name, "labels", label]:
            return AssetRef(name, label=label, kind=kind, registry=registry)
        case [("models" | "data" | "environments" | "components" | "codes") as kind, name, "versions", version]:
            return AssetRef(name, version=version, kind=kind)
        case [("models" | "data" | "environments" | "components") as kind, name, "labels", label]:
            return AssetRef(name, label=label, kind=kind)
    raise _unknown(text)


def _model_uri(text: str) -> AssetRef | DatastorePath:
    """`models:/name/version`, `models:/name@alias`, `models:/name/Stage`; `models:/m-<id>`, a logged model of MLflow 3."""
    remainder = text.removeprefix("models:/").lstrip("/")
    if re.fullmatch(r"m-[0-9a-f]{32}/?", remainder):
        return DatastorePath(ARTIFACTSTORE, f"LoggedModels/{remainder.rstrip('/')}/")
    if "@" in remainder:
        name, _, alias = remainder.rpartition("@")
        return AssetRef(name, label=alias, kind="models")
    name, slash, version = remainder.rpartition("/")
    if not slash or not name:
        raise _unknown(text)
    return AssetRef(name, label="latest", kind="models") if version == "latest" else AssetRef(name, version, kind="models")


def asset_ref(text: str, noun: str) -> AssetRef:
    """Read `text` as the name of an asset; a plain name is one too. Raises Invalid for paths and addresses."""
    reference = parse_reference(text)
    if isinstance(reference, AssetRef):
        return reference
    if isinstance(reference, LocalPath) and (match := _SHORT.match(reference.path)):
        return AssetRef(match["name"], match["version"], match["label"])
    raise Invalid(f"{text!r} does not name a {noun}", hint=f"Write azureml:NAME:VERSION or azureml:NAME@latest for a {noun}.")


def _unknown(text: str) -> Invalid:
    return Invalid(
        f"{text!r} is not a reference that can be read",
        code="invalid_reference",
        hint="Known forms: azureml:NAME:VERSION, azureml:NAME@LABEL, azureml://datastores/NAME/paths/PATH, "
        "azureml://jobs/NAME/outputs/NAME/paths/PATH, azureml://registries/…, runs:/ID/PATH, models:/NAME/VERSION, models:/m-ID, "
        "http(s) addresses and local paths.",
    )

"""Models: named, versioned files that can be deployed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema
from typing_extensions import TypedDict

from .fields import Entity, ShownAs, Spec, Version, read_only
from .local import Files, LocalPart
from .tracking import RunSummary


class DeploymentTemplateReference(Spec):
    asset_id: str | None = None


class Model(Entity):
    type: Literal["custom_model", "mlflow_model", "triton_model"] = "custom_model"
    path: str | None = None
    version: Version | None = None
    stage: str | None = None
    flavors: dict[str, Any] | None = None
    datastore: str | None = None
    system_metadata: dict[str, Any] | None = None
    default_deployment_template: DeploymentTemplateReference | None = None
    allowed_deployment_templates: list[DeploymentTemplateReference] | None = None
    job_name: str | None = None
    content: str | None = read_only()
    """Where the files stay as they were when the version was made, when others may write to its path too."""
    utc_time_created: SkipJsonSchema[str | None] = Field(default=None, exclude=True)
    latest_version: SkipJsonSchema[str | None] = Field(default=None, exclude=True)

    def local_parts(self) -> Iterator[LocalPart]:
        yield Files(("path",))


class ModelFiles(TypedDict):
    """`size` in bytes; `digest` over all files, empty of none."""

    count: int
    size: int
    digest: str


class UsedBy(TypedDict):
    kind: str
    name: str


class RunOfModel(RunSummary):
    """The run that made it; `rerun` is the command that makes it again. `taken_over_by`: the pipeline or sweep whose output it became."""

    rerun: NotRequired[str]
    taken_over_by: NotRequired[str]


class ModelCard(TypedDict):
    """What is on record about a model version."""

    model: Annotated[dict[str, Any], ShownAs(Model)]
    aliases: list[str]
    files: ModelFiles
    used_by: list[UsedBy]
    run: NotRequired[RunOfModel]
    inputs: NotRequired[dict[str, Any]]
    """Values that the job was given, by a sweep or a step."""
    data: NotRequired[dict[str, Any]]
    """Input → what it stood for."""
    made_from: NotRequired[list[str]]
    """All data behind it, through every job that led to it: `name:version`, `name@digest` of a dataset that a run named, or a path."""
    code: NotRequired[str | None]
    environment: NotRequired[str | None]
    git: NotRequired[dict[str, Any]]
    machine: NotRequired[dict[str, Any]]
    signature: NotRequired[dict[str, list[dict[str, Any]]]]
    """Columns of inputs, outputs and params, as the MLmodel file has them."""
    flavors: NotRequired[dict[str, str]]
    mlflow_version: NotRequired[str | None]


class ImportedVersions(TypedDict):
    """How many versions the model has now."""

    versions: int

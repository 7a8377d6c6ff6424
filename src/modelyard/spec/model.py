"""Models: named, versioned files that can be deployed."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from .fields import Entity, Spec, Version


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
    utc_time_created: str | None = Field(default=None, exclude=True)
    latest_version: str | None = Field(default=None, exclude=True)

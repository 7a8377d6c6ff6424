"""Batch endpoints and deployments: a pipeline behind an address (reference `azure-v2-fields`, section 7.11)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, field_validator, model_validator

from .fields import Entity, Spec
from .online import check_spec_name
from .pipeline import ComponentField, PipelineJob, PipelineJobSettings
from .workspace import Identity


class BatchEndpointDefaults(Spec):
    deployment_name: str | None = None


class BatchEndpoint(Entity):
    """`auth_mode: key` gives it two keys of its own; the yard's tokens work with every mode."""

    name: str
    auth_mode: Literal["aad_token", "aml_token", "key"] = "aad_token"
    defaults: BatchEndpointDefaults = Field(default_factory=BatchEndpointDefaults)
    location: str | None = None
    identity: Identity | None = None
    scoring_uri: str | None = None
    openapi_uri: str | None = None
    provisioning_state: str | None = None

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        return check_spec_name("batch endpoint", value)

    @field_validator("defaults", mode="before")
    @classmethod
    def _plain_default(cls, value: Any) -> Any:
        return {"deployment_name": value} if isinstance(value, str) else value or {}


def _pipeline(value: Any) -> Any:
    """A job definition is the name of a job (`azureml:NAME`) or a pipeline job itself."""
    return PipelineJob.model_validate(value) if isinstance(value, dict) else value


class PipelineComponentBatchDeployment(Entity):
    """One version of what the endpoint runs: a pipeline component, or a pipeline job whose inputs become parameters."""

    type: Literal["pipeline"] = "pipeline"
    name: str
    endpoint_name: str
    component: ComponentField = None
    job_definition: Annotated[str | SerializeAsAny[PipelineJob] | None, BeforeValidator(_pipeline)] = None
    settings: PipelineJobSettings = Field(default_factory=PipelineJobSettings)
    inputs: dict[str, dict[str, Any]] | None = None
    """Answered: the parameters, with their types, defaults and bounds."""
    outputs: dict[str, dict[str, Any]] | None = None
    provisioning_state: str | None = None

    @field_validator("name", "endpoint_name")
    @classmethod
    def _name(cls, value: str) -> str:
        return check_spec_name("batch deployment", value)

    @model_validator(mode="after")
    def _one_definition(self) -> PipelineComponentBatchDeployment:
        if (self.component is None) == (self.job_definition is None):
            raise ValueError("a pipeline deployment has either a component or a job_definition")
        return self


BatchDeployment = PipelineComponentBatchDeployment

"""Batch endpoints and deployments: a pipeline behind an address (reference `azure-v2-fields`, section 7.11)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, field_validator, model_validator
from typing_extensions import TypedDict

from .component import ComponentInputs, ComponentOutputs
from .fields import Entity, ReadFile, ShownAs, Spec, read_only
from .inputs import Inputs, Outputs
from .local import Inside, LocalPart
from .online import check_spec_name
from .pipeline import PipelineJob
from .states import ProvisioningState
from .step import ComponentField, PipelineJobSettings
from .unused import CLOUD, IDENTITY
from .workspace import Identity


class BatchEndpointDefaults(Spec):
    deployment_name: str | None = None


class BatchEndpoint(Entity):
    """`auth_mode: key` gives it two keys of its own; the yard's tokens work with every mode."""

    name: str
    auth_mode: Literal["aad_token", "aml_token", "key"] = "aad_token"
    defaults: BatchEndpointDefaults = Field(default_factory=BatchEndpointDefaults)
    location: Annotated[str | None, CLOUD] = None
    identity: Annotated[Identity | None, IDENTITY] = None
    scoring_uri: str | None = read_only()
    openapi_uri: str | None = read_only()
    provisioning_state: Annotated[str | None, ShownAs(ProvisioningState)] = read_only()

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
    inputs: Annotated[dict[str, dict[str, Any]] | None, ShownAs(ComponentInputs)] = read_only()
    """The parameters, with their types, defaults and bounds."""
    outputs: Annotated[dict[str, dict[str, Any]] | None, ShownAs(ComponentOutputs)] = read_only()
    provisioning_state: Annotated[str | None, ShownAs(ProvisioningState)] = read_only()

    def local_parts(self) -> Iterator[LocalPart]:
        for name in ("component", "job_definition"):
            if isinstance(part := getattr(self, name), Spec):
                yield Inside((name,), part)

    def read_files(self, read: ReadFile) -> None:
        self._read_file("component", "component", read)
        self._read_file("job_definition", "job", read)

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


class AzureInvocation(TypedDict, total=False):
    """The form that Azure's clients send: `{jobInputType, uri}` or `{jobInputType: literal, value}` by name."""

    inputData: dict[str, Any]
    outputData: dict[str, Any]
    displayName: str | None
    experimentName: str | None
    tags: dict[str, Any]


class InvocationRequest(TypedDict, total=False):
    """What a run differs in; inputs and outputs as in a job. `properties` alone is Azure's form."""

    inputs: Inputs
    outputs: Outputs
    deployment_name: str | None
    job_name: str | None
    experiment_name: str | None
    display_name: str | None
    tags: dict[str, Any]
    properties: AzureInvocation

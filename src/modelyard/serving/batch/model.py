"""Records of batch endpoints and deployments, and what a request to run one says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ...core.clock import iso
from ...core.errors import Invalid, Problem
from ...core.names import nearest
from ...spec.batch import BatchDeployment, BatchEndpoint
from ...spec.component import Component, ComponentInput
from ...spec.fields import from_row
from ...spec.properties import BatchDeploymentProperties, noted
from ...spec.states import ProvisioningState

ANSWERED = (
    "id", "creation_context", "provisioning_state", "scoring_uri", "openapi_uri", "name", "endpoint_name", "inputs", "outputs",
    "job_definition",
)  # fmt: skip

ARGUMENT = ("type", "path", "mode", "value", "default", "description")
JOB_TYPES = {
    "urifile": "uri_file", "urifolder": "uri_folder", "mltable": "mltable", "custommodel": "custom_model", "mlflowmodel": "mlflow_model",
    "tritonmodel": "triton_model",
}  # fmt: skip
"""Azure's `jobInputType` and `jobOutputType`, squashed → the type in a spec."""
AZURE = ("inputData", "outputData", "displayName", "experimentName", "tags")
INPUT, OUTPUT = ("jobInputType", "uri", "value", "mode", "description"), ("jobOutputType", "uri", "mode", "description")
"""What a request in Azure's form may say, in any case: the documentation writes `InputData`, the clients `inputData`."""
ANONYMOUS = ("UriFile", "UriFolder")
"""The names by which Azure's clients send a single input that the caller did not name."""


@dataclass(frozen=True)
class BatchEndpointRecord:
    workspace: str
    name: str
    stored: dict[str, Any]
    created_ms: int
    created_by: str
    notes: tuple[str, ...] = ()
    """Notes for the caller that has just created or updated it; never stored."""

    @cached_property
    def spec(self) -> BatchEndpoint:
        return from_row(BatchEndpoint, self.stored, name=self.name)

    def document(self, url: str) -> dict[str, Any]:
        answer = {
            **self.stored,
            "name": self.name,
            "scoring_uri": f"{url}/api/v1/workspaces/{self.workspace}/batch-endpoints/{self.name}/jobs",
            "provisioning_state": ProvisioningState.SUCCEEDED,
            "id": f"azureml:{self.name}",
            "creation_context": {"created_at": iso(self.created_ms), "created_by": self.created_by},
        }
        return noted(answer, list(self.notes))


@dataclass(frozen=True)
class BatchDeploymentRecord:
    """The `component` of `spec` is a version's name, or the whole of one that has none."""

    workspace: str
    endpoint: str
    name: str
    stored: dict[str, Any]
    created_ms: int
    created_by: str

    @cached_property
    def spec(self) -> BatchDeployment:
        return from_row(BatchDeployment, self.stored, name=self.name, endpoint_name=self.endpoint)

    def document(self, component: Component) -> dict[str, Any]:
        ports = component.document()
        properties = BatchDeploymentProperties(pipeline=f"{component.name}:{component.version or '-'}")
        return {
            **self.stored,
            "name": self.name,
            "endpoint_name": self.endpoint,
            "inputs": ports.get("inputs", {}),
            "outputs": ports.get("outputs", {}),
            "properties": properties.over(self.stored.get("properties", {})),
            "provisioning_state": ProvisioningState.SUCCEEDED,
            "id": f"azureml:{self.endpoint}:{self.name}",
            "creation_context": {"created_at": iso(self.created_ms), "created_by": self.created_by},
        }


@dataclass(frozen=True)
class Invocation:
    """What a run differs in. `inputs` and `outputs` as in a job's YAML."""

    inputs: dict[str, Any]
    outputs: dict[str, Any]
    deployment: str | None
    job_name: str | None
    experiment_name: str | None
    display_name: str | None
    tags: dict[str, str]


def read_invocation(body: Mapping[str, Any], deployment: str | None) -> Invocation:
    """The body of a request: the yard's form (`inputs`, `outputs`, `deployment_name`, …), or Azure's with `properties.inputData`.

    Raises Invalid for anything else.
    """
    known = ("inputs", "outputs", "deployment_name", "job_name", "experiment_name", "display_name", "tags", "properties")
    body = {"properties" if name.lower() == "properties" else name: value for name, value in body.items()}
    for name in body:
        if name not in known:
            raise Invalid(f"the request has a field {str(name)[:80]!r}{nearest(str(name), known)}", code="invalid_invocation")
    sent = dict(body)
    azure = sent.pop("properties", None)
    if azure is not None:
        azure = _spelled(azure, AZURE, "`properties`")
        sent |= {
            "inputs": {name: _from_azure(value, INPUT, f"inputData.{name}") for name, value in _mapping(azure, "inputData").items()},
            "outputs": {name: _from_azure(value, OUTPUT, f"outputData.{name}") for name, value in _mapping(azure, "outputData").items()},
            "display_name": azure.get("displayName"),
            "experiment_name": azure.get("experimentName"),
            "tags": azure.get("tags") or {},
        }
    texts = {name: sent.get(name) for name in ("deployment_name", "job_name", "experiment_name", "display_name")}
    for name, value in texts.items():
        if value is not None and not isinstance(value, str):
            raise Invalid(f"`{name}` is text", code="invalid_invocation")
    return Invocation(
        _mapping(sent, "inputs"), _mapping(sent, "outputs"), deployment or texts["deployment_name"], texts["job_name"],
        texts["experiment_name"], texts["display_name"], {str(key): str(value) for key, value in _mapping(sent, "tags").items()},
    )  # fmt: skip


def _mapping(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    mapping = document.get(name)
    if mapping is None:
        return {}
    if not isinstance(mapping, dict):
        raise Invalid(f"`{name}` maps names to values", code="invalid_invocation")
    return mapping


def _spelled(document: Any, names: tuple[str, ...], what: str) -> dict[str, Any]:
    """An object of Azure's REST API by the usual spelling of its names, which are taken in any case. Raises Invalid for any other name."""
    if not isinstance(document, dict):
        raise Invalid(f"{what} is an object with {' and '.join(names[:2])}", code="invalid_invocation")
    usual = {name.lower(): name for name in names}
    spelled: dict[str, Any] = {}
    for name, value in document.items():
        key = usual.get(name.lower())
        if key is None:
            raise Invalid(
                f"{what} has a field {name[:80]!r}{nearest(name, names)}", code="invalid_invocation", hint=f"Known: {', '.join(names)}."
            )
        if key in spelled:
            raise Invalid(f"{what} has {key} twice", code="invalid_invocation")
        spelled[key] = value
    return spelled


def _from_azure(value: Any, names: tuple[str, ...], what: str) -> Any:
    """An input or output in Azure's form as one in the yard's."""
    if not isinstance(value, dict):
        return value
    entry = _spelled(value, names, what)
    kind = str(entry.get(names[0]) or ("literal" if "value" in entry else ""))
    if kind.lower() == "literal":
        return entry.get("value")
    known = {"type": JOB_TYPES.get(kind.lower().replace("_", ""), kind), "path": entry.get("uri"), "mode": entry.get("mode")}
    return {key: item for key, item in known.items() if item}


def arguments(component: Component, requested: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs of a job for the component's ports. Raises Invalid with every problem of the request."""
    named = dict(requested)
    data = [name for name, port in component.inputs.items() if not port.is_literal]
    if len(named) == 1 and next(iter(named)) in ANONYMOUS and next(iter(named)) not in component.inputs and len(data) == 1:
        named = {data[0]: next(iter(named.values()))}
    problems: list[Problem] = []
    accepted: dict[str, Any] = {}
    for name, value in named.items():
        port = component.inputs.get(name)
        if port is None:
            problems.append(Problem(f"there is no parameter {name!r}{nearest(name, component.inputs)}", f"inputs.{name}"))
            continue
        try:
            accepted[name] = _argument(port, value)
        except ValueError as error:
            problems.append(Problem(str(error), f"inputs.{name}"))
    for name, port in component.inputs.items():
        if name not in named and port.default is None and port.path is None and not port.optional:
            problems.append(Problem(f"parameter {name!r} ({port.type}) is required", f"inputs.{name}"))
    if problems:
        raise Invalid("this request cannot be run", code="invalid_inputs", problems=tuple(problems))
    return accepted


_SHELL_ACTS_ON = frozenset("`$\\;&|<>()\"'\n\r\0")


def _inert(value: Any) -> Any:
    """A literal that no shell acts on. The caller of an endpoint did not write its commands and may not add to them."""
    if isinstance(value, str) and (refused := _SHELL_ACTS_ON & set(value)):
        shown = " ".join(repr(char)[1:-1] for char in sorted(refused))
        raise ValueError(f"text for a command has none of the characters {shown}, on which a shell acts; send such text as a file")
    return value


def _argument(port: ComponentInput, value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        for name in value:
            if name not in ARGUMENT:
                raise ValueError(f"there is no field {name[:80]!r}{nearest(name, ARGUMENT)}")
    if port.is_literal:
        plain = value.get("value", value.get("default")) if isinstance(value, dict) else value
        if plain is None or isinstance(plain, (dict, list)):
            raise ValueError(f"a value of type {port.type} is needed")
        return {"type": port.type, "value": _inert(port.checked(plain))}
    if isinstance(value, str):
        return {"type": port.type, "path": value}
    if not isinstance(value, dict) or not isinstance(value.get("path"), str):
        raise ValueError(f"data of type {port.type} is needed: a path, or {{type, path}}")
    return {"type": port.type, **{key: item for key, item in value.items() if key in ("type", "path", "mode") and item is not None}}

"""Use cases of batch endpoints: publish a pipeline, run it by its address."""

from __future__ import annotations

from typing import Any

from ...assets.components import service as components
from ...assets.references import service as references
from ...core.actor import requires
from ...core.errors import Conflict, Forbidden, Invalid, NotFound
from ...core.names import nearest
from ...ports.executor import Share
from ...ports.vault import Vault
from ...spec.batch import BatchDeployment, BatchEndpoint
from ...spec.fields import parse
from ...spec.pipeline import PipelineComponent, PipelineJob
from ...spec.properties import BatchDeploymentProperties, BatchEndpointProperties, JobProperties, noted
from ...spec.references import asset_ref
from ...spec.unused import unused
from ...storage.unit import Unit
from ...tenancy.access import service as access
from ...tenancy.secrets import service as secrets
from ...work.jobs import service as jobs
from ...work.pipelines import service as pipelines
from . import store
from .model import ANSWERED, BatchDeploymentRecord, BatchEndpointRecord, Invocation, arguments

KEYS = ("primary", "secondary")
MAX_LISTED = 1000


def _resource(endpoint: str) -> str:
    return f"batch-endpoint/{endpoint}"


def _secret(endpoint: str, key: str) -> str:
    return f"{_resource(endpoint)}/{key}"


# Endpoints


@requires("workspaces/batchEndpoints/write")
def put_endpoint(unit: Unit, spec: BatchEndpoint, vault: Vault) -> BatchEndpointRecord:
    """Create or update. Keys come and go with `auth_mode: key`; the default can only be a deployment that is there."""
    earlier = store.get_endpoint(unit, spec.name)
    default = spec.defaults.deployment_name
    if default is not None and store.get_deployment(unit, spec.name, default) is None:
        known = [item.name for item in store.list_deployments(unit, spec.name)]
        raise Invalid(
            f"endpoint {spec.name} has no deployment {default}{nearest(default, known)}", code="unknown_deployment",
            hint="Create the deployment first, then make it the default: yard batch-deployment create … --set-default",
        )  # fmt: skip
    document = {key: value for key, value in spec.document().items() if key not in ANSWERED}
    document["properties"] = BatchEndpointProperties.kept(document["properties"])
    created = (earlier.created_ms, earlier.created_by) if earlier else (unit.now, unit.actor.name)
    record = BatchEndpointRecord(
        unit.workspace, spec.name, document, *created, (*unused(spec), *BatchEndpointProperties.check(spec.properties))
    )
    store.put_endpoint(unit, record)
    had_keys = earlier is not None and earlier.spec.auth_mode == "key"
    if spec.auth_mode == "key" and not had_keys:
        for key in KEYS:
            secrets.put(unit, vault, _secret(spec.name, key), access.create_key(unit, vault, _resource(spec.name)))
    elif spec.auth_mode != "key" and had_keys:
        _drop_keys(unit, spec.name)
    unit.record("batch_endpoint.updated" if earlier else "batch_endpoint.created", spec.name, default=default)
    return record


def _drop_keys(unit: Unit, name: str) -> None:
    access.drop_keys(unit, _resource(name))
    secrets.delete(unit, f"{_resource(name)}/")


@requires("workspaces/batchEndpoints/read")
def get_endpoint(unit: Unit, name: str) -> BatchEndpointRecord:
    return _endpoint(unit, name)


def _endpoint(unit: Unit, name: str) -> BatchEndpointRecord:
    endpoint = store.get_endpoint(unit, name)
    if endpoint is None:
        raise NotFound(
            f"there is no batch endpoint {name} in workspace {unit.workspace}", code="endpoint_not_found",
            hint="`yard batch-endpoint list` shows them.",
        )  # fmt: skip
    return endpoint


@requires("workspaces/batchEndpoints/read")
def list_endpoints(unit: Unit) -> list[BatchEndpointRecord]:
    return store.list_endpoints(unit)


@requires("workspaces/batchEndpoints/delete")
def delete_endpoint(unit: Unit, name: str) -> None:
    """The endpoint, its deployments and keys go; the jobs it ran stay."""
    _endpoint(unit, name)
    for deployment in store.list_deployments(unit, name):
        references.release(unit, "batch_deployment", f"{name}/{deployment.name}")
    _drop_keys(unit, name)
    store.delete_endpoint(unit, name)
    unit.record("batch_endpoint.deleted", name)


@requires("workspaces/batchEndpoints/listKeys/action")
def get_keys(unit: Unit, vault: Vault, name: str) -> dict[str, str]:
    _with_keys(unit, name)
    return {f"{key}Key": secrets.get(unit, vault, _secret(name, key)) for key in KEYS}


@requires("workspaces/batchEndpoints/regenerateKeys/action")
def regenerate_key(unit: Unit, vault: Vault, name: str, key: str) -> None:
    """Replace one key; the other goes on working, so that callers can change over without a failed request."""
    _with_keys(unit, name)
    if key not in KEYS:
        raise Invalid(f"there is no {key[:40]} key; there are {', '.join(KEYS)}")
    access.drop_keys(unit, _resource(name), secrets.get(unit, vault, _secret(name, key)))
    secrets.put(unit, vault, _secret(name, key), access.create_key(unit, vault, _resource(name)))
    unit.record("batch_endpoint.key_regenerated", name, key=key)


def _with_keys(unit: Unit, name: str) -> None:
    if _endpoint(unit, name).spec.auth_mode != "key":
        raise Conflict(
            f"batch endpoint {name} has no keys; it takes the yard's tokens", code="no_keys",
            hint=f"Give it keys: yard batch-endpoint update -n {name} --set auth_mode=key",
        )  # fmt: skip


# Deployments


@requires("workspaces/batchEndpoints/deployments/write")
def put_deployment(unit: Unit, spec: BatchDeployment) -> dict[str, Any]:
    """Create or update. The whole pipeline is checked, and its components are fixed to the versions of now."""
    _endpoint(unit, spec.endpoint_name)
    component, settings = _definition(unit, spec)
    pipelines.check(unit, component)
    named = isinstance(spec.component, str) and asset_ref(spec.component, "component").registry is None
    body = {
        **{key: value for key, value in spec.document().items() if key not in ANSWERED},
        "properties": BatchDeploymentProperties.kept(spec.properties),
        "component": f"azureml:{component.name}:{component.version}" if named else component.document(),
        "settings": {**settings, **spec.settings.document()},
    }
    earlier = store.get_deployment(unit, spec.endpoint_name, spec.name)
    holder = f"{spec.endpoint_name}/{spec.name}"
    references.release(unit, "batch_deployment", holder)
    if named:
        references.hold(unit, "batch_deployment", holder, "component", str(component.name), str(component.version))
    created = (earlier.created_ms, earlier.created_by) if earlier else (unit.now, unit.actor.name)
    record = BatchDeploymentRecord(unit.workspace, spec.endpoint_name, spec.name, body, *created)
    store.put_deployment(unit, record)
    unit.record("batch_deployment.updated" if earlier else "batch_deployment.created", holder, component=component.name)
    return noted(record.document(component), BatchDeploymentProperties.check(spec.properties))


def _definition(unit: Unit, spec: BatchDeployment) -> tuple[PipelineComponent, dict[str, Any]]:
    """What the deployment runs, and the settings that come with it."""
    if spec.component is not None:
        component: Any = components.resolve(unit, spec.component) if isinstance(spec.component, str) else spec.component
        if not isinstance(component, PipelineComponent):
            raise Invalid(
                f"component {component.name} is of type {component.type}; a batch deployment runs a pipeline", code="invalid_component"
            )
        return components.expanded(unit, component), {}
    definition: Any = spec.job_definition
    job = PipelineJob.model_validate(jobs.definition(unit, definition)) if isinstance(definition, str) else definition
    return components.expanded(unit, pipelines.as_component(unit, job)), job.settings.document()


def _component(unit: Unit, record: BatchDeploymentRecord) -> PipelineComponent:
    reference = record.spec.component
    component = components.resolve(unit, reference) if isinstance(reference, str) else reference
    assert isinstance(component, PipelineComponent)
    return component


@requires("workspaces/batchEndpoints/deployments/read")
def get_deployment(unit: Unit, endpoint: str, name: str) -> dict[str, Any]:
    record = _deployment(unit, endpoint, name)
    return record.document(_component(unit, record))


def _deployment(unit: Unit, endpoint: str, name: str) -> BatchDeploymentRecord:
    _endpoint(unit, endpoint)
    deployment = store.get_deployment(unit, endpoint, name)
    if deployment is None:
        known = ", ".join(item.name for item in store.list_deployments(unit, endpoint)) or "none"
        raise NotFound(f"batch endpoint {endpoint} has no deployment {name}; it has {known}", code="deployment_not_found")
    return deployment


@requires("workspaces/batchEndpoints/deployments/read")
def list_deployments(unit: Unit, endpoint: str) -> list[dict[str, Any]]:
    _endpoint(unit, endpoint)
    return [record.document(_component(unit, record)) for record in store.list_deployments(unit, endpoint)]


@requires("workspaces/batchEndpoints/deployments/delete")
def delete_deployment(unit: Unit, endpoint: str, name: str) -> None:
    _deployment(unit, endpoint, name)
    if _endpoint(unit, endpoint).spec.defaults.deployment_name == name:
        raise Conflict(
            f"deployment {name} is the default of endpoint {endpoint}", code="is_default",
            hint=f"Make another the default first: yard batch-endpoint update -n {endpoint} --defaults deployment_name=OTHER",
        )  # fmt: skip
    store.delete_deployment(unit, endpoint, name)
    references.release(unit, "batch_deployment", f"{endpoint}/{name}")
    unit.record("batch_deployment.deleted", f"{endpoint}/{name}")


# Runs


@requires("workspaces/batchEndpoints/score/action")
def invoke(unit: Unit, name: str, sent: Invocation, machine: Share) -> dict[str, Any]:
    """Submit the pipeline of the named deployment, or of the default one, with these inputs."""
    _check_key(unit, name)
    endpoint = _endpoint(unit, name)
    deployment_name = sent.deployment or endpoint.spec.defaults.deployment_name
    if deployment_name is None:
        raise Conflict(
            f"batch endpoint {name} has no default deployment", code="no_default",
            hint=f"Name one in the request, or set it: yard batch-endpoint update -n {name} --defaults deployment_name=NAME",
        )  # fmt: skip
    deployment = _deployment(unit, name, deployment_name)
    component = _component(unit, deployment)
    body = {
        "type": "pipeline", "component": component.document(), "inputs": arguments(component, sent.inputs), "outputs": sent.outputs,
        "settings": deployment.spec.settings.document(),
        "name": sent.job_name, "experiment_name": sent.experiment_name or name, "display_name": sent.display_name, "tags": sent.tags,
        "properties": JobProperties(batch_endpoint=name, batch_deployment=deployment_name).over({}),
    }  # fmt: skip
    job = parse(PipelineJob, {key: value for key, value in body.items() if value is not None}, what="request")
    submitted = jobs.submit_any(unit.trusted(), job, machine)
    store.insert_job(unit, submitted.name, name, deployment_name)
    references.hold(unit, "job", submitted.name, "batch_deployment", f"{name}/{deployment_name}", "", strong=False)
    unit.record("batch_endpoint.invoked", name, deployment=deployment_name, job=submitted.name)
    return submitted.document()


def _check_key(unit: Unit, name: str) -> None:
    if unit.actor.key_of not in (None, _resource(name)):
        raise Forbidden(f"this key does not open batch endpoint {name}")


@requires("workspaces/batchEndpoints/jobs/read")
def list_jobs(unit: Unit, name: str, deployment: str | None) -> list[dict[str, Any]]:
    """The runs of an endpoint or one of its deployments, the newest first."""
    _check_key(unit, name)
    _endpoint(unit, name)
    documents = []
    for job in store.jobs_of(unit, name, deployment, MAX_LISTED):
        record = jobs.record_of(unit, job)
        if record is not None:
            documents.append(record.document())
    return documents


@requires("workspaces/batchEndpoints/jobs/read")
def get_job(unit: Unit, name: str, job: str) -> dict[str, Any]:
    _check_key(unit, name)
    record = jobs.record_of(unit, job) if store.has_job(unit, name, job) else None
    if record is None:
        raise NotFound(f"batch endpoint {name} has run no job {job}", code="job_not_found")
    return record.document()

from __future__ import annotations

from fastapi import APIRouter, Response

from ...engine.http import CallDep, accepts, answer, listing
from ...spec.batch import BatchDeployment, BatchEndpoint
from ...work.compute.model import machine
from . import service
from .model import read_invocation

router = APIRouter(prefix="/workspaces/{workspace}/batch-endpoints", tags=["batch endpoints"])


@router.get("")
async def list_(call: CallDep) -> Response:
    return listing([record.document(call.yard.url) for record in await call.read(service.list_endpoints)])


@router.get("/{name}")
async def get(call: CallDep, name: str) -> Response:
    return answer((await call.read(service.get_endpoint, name)).document(call.yard.url))


@router.put("/{name}", openapi_extra=accepts(BatchEndpoint))
async def put(call: CallDep, name: str) -> Response:
    spec = await call.body(BatchEndpoint, name=name)
    return answer((await call.write(service.put_endpoint, call.yard.vault, spec)).document(call.yard.url))


@router.delete("/{name}", status_code=204)
async def delete(call: CallDep, name: str) -> Response:
    await call.write(service.delete_endpoint, name)
    return Response(status_code=204)


@router.post("/{name}/keys")
async def keys(call: CallDep, name: str) -> Response:
    return answer(await call.read(service.get_keys, call.yard.vault, name))


@router.post("/{name}/regenerate-keys", status_code=204)
async def regenerate(call: CallDep, name: str) -> Response:
    key = str((await call.json()).get("key_type", "primary")).lower()
    await call.write(service.regenerate_key, call.yard.vault, name, key)
    return Response(status_code=204)


@router.post("/{name}/jobs", status_code=201)
async def invoke(call: CallDep, name: str) -> Response:
    """The scoring address: `{"inputs": {…}}`, or Azure's `{"properties": {"inputData": {…}}}`, with a token or a key of the endpoint."""
    sent = read_invocation(await call.json(), call.request.headers.get("azureml-model-deployment"))
    made = await call.write(service.invoke, name, sent, machine(call.yard.settings.cpu_slots))
    return answer(made, 201)


@router.get("/{name}/jobs")
async def list_jobs(call: CallDep, name: str, deployment: str | None = None) -> Response:
    return listing(await call.read(service.list_jobs, name, deployment))


@router.get("/{name}/jobs/{job}")
async def get_job(call: CallDep, name: str, job: str) -> Response:
    return answer(await call.read(service.get_job, name, job))


@router.get("/{endpoint}/deployments")
async def list_deployments(call: CallDep, endpoint: str) -> Response:
    return listing(await call.read(service.list_deployments, endpoint))


@router.get("/{endpoint}/deployments/{name}")
async def get_deployment(call: CallDep, endpoint: str, name: str) -> Response:
    return answer(await call.read(service.get_deployment, endpoint, name))


@router.put("/{endpoint}/deployments/{name}", openapi_extra=accepts(BatchDeployment))
async def put_deployment(call: CallDep, endpoint: str, name: str) -> Response:
    spec = await call.body(BatchDeployment, name=name, endpoint_name=endpoint)
    return answer(await call.write(service.put_deployment, spec))


@router.delete("/{endpoint}/deployments/{name}", status_code=204)
async def delete_deployment(call: CallDep, endpoint: str, name: str) -> Response:
    await call.write(service.delete_deployment, endpoint, name)
    return Response(status_code=204)

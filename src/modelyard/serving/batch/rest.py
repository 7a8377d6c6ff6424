from __future__ import annotations

from fastapi import APIRouter, Response

from ...engine.http import CallDep, answer, listing
from ...engine.openapi import answers
from ...spec.answers import Page
from ...spec.batch import BatchDeployment, BatchEndpoint, InvocationRequest
from ...spec.online import EndpointKeys, KeyChoice
from ...spec.pipeline import PipelineJob
from . import service
from .model import read_invocation

router = APIRouter(prefix="/workspaces/{workspace}/batch-endpoints", tags=["batch endpoints"])


@router.get("")
@answers(Page[BatchEndpoint])
async def list_(call: CallDep) -> Response:
    return listing([record.document(call.yard.url) for record in await call.read(service.list_endpoints)])


@router.get("/{name}")
@answers(BatchEndpoint)
async def get(call: CallDep, name: str) -> Response:
    return answer((await call.read(service.get_endpoint, name)).document(call.yard.url))


@router.put("/{name}")
@answers(BatchEndpoint, body=BatchEndpoint)
async def create_or_update(call: CallDep, name: str) -> Response:
    spec = await call.body(BatchEndpoint, name=name)
    record = await call.write(service.put_endpoint, call.yard.vault, spec, show=lambda record: record.document(call.yard.url))
    return answer(record.document(call.yard.url))


@router.delete("/{name}")
@answers(status=204)
async def delete(call: CallDep, name: str) -> Response:
    await call.write(service.delete_endpoint, name)
    return Response(status_code=204)


@router.post("/{name}/keys")
@answers(EndpointKeys)
async def get_keys(call: CallDep, name: str) -> Response:
    return answer(await call.read(service.get_keys, call.yard.vault, name))


@router.post("/{name}/regenerate-keys")
@answers(status=204, body=KeyChoice)
async def regenerate_keys(call: CallDep, name: str) -> Response:
    key = str((await call.json()).get("key_type", "primary")).lower()
    await call.write(service.regenerate_key, call.yard.vault, name, key)
    return Response(status_code=204)


@router.post("/{name}/jobs")
@answers(PipelineJob, 201, body=InvocationRequest, headers={"azureml-model-deployment": "The deployment, in place of the default one."})
async def invoke(call: CallDep, name: str) -> Response:
    """The scoring address: `{"inputs": {…}}`, or Azure's `{"properties": {"inputData": {…}}}`, with a token or a key of the endpoint."""
    sent = read_invocation(await call.json(), call.request.headers.get("azureml-model-deployment"))
    made = await call.write(service.invoke, name, sent, call.yard.executor.capacity())
    return answer(made, 201)


@router.get("/{name}/jobs")
@answers(Page[PipelineJob])
async def list_jobs(call: CallDep, name: str, deployment: str | None = None) -> Response:
    return listing(await call.read(service.list_jobs, name, deployment))


@router.get("/{name}/jobs/{job}")
@answers(PipelineJob)
async def get_job(call: CallDep, name: str, job: str) -> Response:
    return answer(await call.read(service.get_job, name, job))


@router.get("/{endpoint}/deployments")
@answers(Page[BatchDeployment])
async def list_deployments(call: CallDep, endpoint: str) -> Response:
    return listing(await call.read(service.list_deployments, endpoint))


@router.get("/{endpoint}/deployments/{name}")
@answers(BatchDeployment)
async def get_deployment(call: CallDep, endpoint: str, name: str) -> Response:
    return answer(await call.read(service.get_deployment, endpoint, name))


@router.put("/{endpoint}/deployments/{name}")
@answers(BatchDeployment, body=BatchDeployment)
async def create_or_update_deployment(call: CallDep, endpoint: str, name: str) -> Response:
    spec = await call.body(BatchDeployment, name=name, endpoint_name=endpoint)
    return answer(await call.write(service.put_deployment, spec))


@router.delete("/{endpoint}/deployments/{name}")
@answers(status=204)
async def delete_deployment(call: CallDep, endpoint: str, name: str) -> Response:
    await call.write(service.delete_deployment, endpoint, name)
    return Response(status_code=204)

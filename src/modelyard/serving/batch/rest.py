from __future__ import annotations

from fastapi import Response

from ...engine.http import CallDep, answer, listing
from ...engine.openapi import answers
from ...engine.resources import Cases, add_deployment_routes, named_routes
from ...spec.answers import Page
from ...spec.batch import InvocationRequest
from ...spec.nouns import NOUNS
from ...spec.online import EndpointKeys, KeyChoice
from ...spec.pipeline import PipelineJob
from . import service
from .model import read_invocation

router = named_routes(
    NOUNS["batch_endpoint"],
    Cases(service.list_endpoints, service.get_endpoint, service.put_endpoint, service.delete_endpoint),
    needs=lambda call: (call.yard.vault,),
    shown=lambda call, record: record.document(call.yard.url),
)


@router.post("/{name}/keys")
@answers(EndpointKeys)
async def get_keys(call: CallDep, name: str) -> Response:
    return answer(await call.read(service.get_keys, call.yard.vault, name))


@router.post("/{name}/regenerate-keys")
@answers(status=204, body=KeyChoice)
async def regenerate_keys(call: CallDep, name: str) -> Response:
    key = str((await call.json(service.regenerate_key)).get("key_type", "primary")).lower()
    await call.write(service.regenerate_key, call.yard.vault, name, key)
    return Response(status_code=204)


@router.post("/{name}/jobs")
@answers(PipelineJob, 201, body=InvocationRequest, headers={"azureml-model-deployment": "The deployment, in place of the default one."})
async def invoke(call: CallDep, name: str) -> Response:
    """The scoring address: `{"inputs": {…}}`, or Azure's `{"properties": {"inputData": {…}}}`, with a token or a key of the endpoint."""
    sent = read_invocation(await call.json(service.invoke), call.request.headers.get("azureml-model-deployment"))
    job = await call.write(service.invoke, name, sent, call.yard.executor.capacity())
    return answer(job, 201)


@router.get("/{name}/jobs")
@answers(Page[PipelineJob])
async def list_jobs(call: CallDep, name: str, deployment: str | None = None) -> Response:
    return listing(await call.read(service.list_jobs, name, deployment))


@router.get("/{name}/jobs/{job}")
@answers(PipelineJob)
async def get_job(call: CallDep, name: str, job: str) -> Response:
    return answer(await call.read(service.get_job, name, job))


add_deployment_routes(
    router,
    NOUNS["batch_deployment"],
    Cases(service.list_deployments, service.get_deployment, service.put_deployment, service.delete_deployment),
)

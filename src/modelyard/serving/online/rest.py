from __future__ import annotations

import asyncio
from pathlib import Path

from fastapi import Response

from ...core import trees
from ...core.errors import NotFound
from ...engine.http import Call, CallDep, answer, listing
from ...engine.openapi import TEXT, answers
from ...engine.resources import Cases, add_deployment_routes, named_routes
from ...spec.answers import Page
from ...spec.nouns import NOUNS
from ...spec.online import (
    AnsweredRequest,
    EndpointKeys,
    EndpointToken,
    KeyChoice,
    OnlineDeployment,
    OnlineEndpoint,
    Rollout,
    RolloutStatus,
)
from . import service
from .health import instances
from .replicas import LOG_BYTES, RouterTable, folder_of
from .traffic import answered


async def _push(call: Call) -> None:
    """The router applies the change before the caller gets its answer."""
    await call.yard.one(RouterTable).push()


router = named_routes(
    NOUNS["online_endpoint"],
    Cases(service.list_endpoints, service.get_endpoint, service.put_endpoint, service.delete_endpoint),
    needs=lambda call: (call.yard.vault,),
    shown=lambda call, record: record.document(call.yard.router_url),
    after=_push,
    without=("get",),
)


@router.get("/{name}")
@answers(OnlineEndpoint)
async def get(call: CallDep, name: str) -> Response:
    rollout = await call.read(service.rollout_of, name)
    document = (await call.read(service.get_endpoint, name)).document(call.yard.router_url)
    return answer({**document, "rollout": rollout} if rollout is not None else document)


@router.post("/{name}/keys")
@answers(EndpointKeys)
async def get_keys(call: CallDep, name: str) -> Response:
    return answer(await call.read(service.get_keys, call.yard.vault, name))


@router.post("/{name}/rollout")
@answers(RolloutStatus, 201, body=Rollout)
async def start_rollout(call: CallDep, name: str) -> Response:
    rollout = await call.write(service.start_rollout, name, await call.body(service.start_rollout, Rollout))
    await _push(call)
    return answer(rollout, 201)


@router.delete("/{name}/rollout")
@answers(RolloutStatus)
async def abort_rollout(call: CallDep, name: str) -> Response:
    ended = await call.write(service.abort_rollout, name)
    await _push(call)
    return answer(ended)


@router.get("/{name}/requests")
@answers(Page[AnsweredRequest])
async def list_requests(
    call: CallDep, name: str, deployment: str | None = None, failed: bool = False, prediction_id: str | None = None, limit: int = 100
) -> Response:
    """What was answered, the newest first."""
    record = await call.read(service.get_endpoint, name)
    table = call.yard.one(RouterTable)
    requests = await asyncio.to_thread(
        answered, table.log, f"{record.workspace}/{record.name}",
        deployment=deployment, failed=failed, prediction_id=prediction_id, limit=max(1, min(limit, 10_000)),
    )  # fmt: skip
    return listing(requests)


@router.post("/{name}/token")
@answers(EndpointToken)
async def get_token(call: CallDep, name: str) -> Response:
    return answer(await call.write(service.get_token, call.yard.vault, name))


@router.post("/{name}/regenerate-keys")
@answers(status=204, body=KeyChoice)
async def regenerate_keys(call: CallDep, name: str) -> Response:
    key = str((await call.json(service.regenerate_key)).get("key_type", "primary")).lower()
    await call.write(service.regenerate_key, call.yard.vault, name, key)
    await _push(call)
    return Response(status_code=204)


add_deployment_routes(
    router,
    NOUNS["online_deployment"],
    Cases(service.list_deployments, service.get_deployment, service.put_deployment, service.delete_deployment),
    after=_push,
    without=("get",),
)


@router.get("/{endpoint}/deployments/{name}")
@answers(OnlineDeployment)
async def get_deployment(call: CallDep, endpoint: str, name: str) -> Response:
    record = await call.read(service.get_deployment, endpoint, name)
    return answer({**record.document(), "instances": await instances(call.yard, record)})


CONTAINERS = {"inference-server": "server.log", "storage-initializer": "build.log"}


@router.get("/{endpoint}/deployments/{name}/logs")
@answers(TEXT)
async def get_logs(call: CallDep, endpoint: str, name: str, lines: int = 5000, container: str = "inference-server") -> Response:
    """The last lines of each instance's server log, or of the environment's build (`storage-initializer`)."""
    record = await call.read(service.get_deployment, endpoint, name)
    if container not in CONTAINERS:
        raise NotFound(f"there is no container {container[:40]}; there are {', '.join(CONTAINERS)}")
    parts = []
    many = max(record.first_instances, record.live_instances, record.scale.most if record.scale else 1)
    for index in range(many):
        folder = folder_of(call.yard, record, index, record.generation)
        text = _last_lines(folder / CONTAINERS[container], max(1, min(lines, 100_000)))
        if text:
            parts.append(f"==> instance {index} <==\n{text}" if many > 1 else text)
    return Response("\n".join(parts), media_type="text/plain; charset=utf-8")


def _last_lines(path: Path, count: int) -> str:
    lines: list[str] = []
    for part in (path.with_name(path.name + ".1"), path):
        try:
            lines += trees.read_end(part, LOG_BYTES).decode(errors="replace").splitlines()
        except OSError:
            continue
    return "\n".join(lines[-count:]) + ("\n" if lines else "")

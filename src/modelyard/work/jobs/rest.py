from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import asdict
from functools import partial

from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse

from ...core.errors import NotFound
from ...core.paging import Page as Records
from ...engine.http import Call, CallDep, answer, listing
from ...engine.openapi import TEXT, answers
from ...engine.resources import page_of
from ...ports.executor import LOG
from ...spec.job import JobChanges, JobMetrics, JobOutput, Verification
from ...spec.loading import any_of, spec_class
from ...spec.nouns import NOUNS
from ...spec.states import JOB
from ..tracking import service as tracking
from . import logs as job_logs
from . import reruns, service
from .model import SYSTEM_LOG, JobRecord

router = APIRouter(prefix="/workspaces/{workspace}/jobs", tags=["jobs"])
AnyJob = any_of(NOUNS["job"])
POLL_S = 0.15
CHUNK = 1 << 16
log = logging.getLogger(__name__)


def _shown(call: Call, record: JobRecord) -> dict[str, object]:
    return record.document(call.yard.url)


@router.get("")
@answers(page_of(AnyJob))
async def list_(
    call: CallDep, limit: int = 50, token: str | None = None, archived: str = "false", status: str | None = None,
    experiment: str | None = None, compute: str | None = None, user: str | None = None, tag: str | None = None,
    parent: str | None = None,
) -> Response:  # fmt: skip
    only = {"false": False, "true": True}.get(archived)
    filters = {"status": status, "experiment": experiment, "compute": compute, "user": user, "tag": tag, "parent": parent}

    def shown(page: Records[JobRecord]) -> Response:
        return listing([_shown(call, record) for record in page.items], page.next_token)

    return await call.shown(shown, service.search, limit, token, only, **filters)


@router.post("")
@answers(AnyJob, 201, body=AnyJob)
async def create(call: CallDep) -> Response:
    job = await call.spec(service.submit_shown, partial(spec_class, "job"))
    return answer(await call.write(service.submit_shown, job, call.yard.executor.capacity(), call.yard.url), 201)


@router.get("/{name}")
@answers(AnyJob)
async def get(call: CallDep, name: str) -> Response:
    return answer(await call.read(service.show, name, call.yard.url))


@router.patch("/{name}")
@answers(AnyJob, body=JobChanges)
async def update(call: CallDep, name: str) -> Response:
    return answer(_shown(call, await call.write(service.update, name, await call.json(service.update), show=partial(_shown, call))))


@router.post("/{name}/cancel")
@answers(AnyJob)
async def cancel(call: CallDep, name: str) -> Response:
    record = await call.write(service.cancel, name, show=partial(_shown, call))
    if record.attempt_to_end is not None:
        await call.yard.executor.cancel(record.attempt_to_end)
    return answer(_shown(call, record))


@router.post("/{name}/rerun")
@answers(AnyJob, 201)
async def rerun(call: CallDep, name: str, from_failed: bool = False) -> Response:
    machine = call.yard.executor.capacity()
    return answer(_shown(call, await call.write(reruns.rerun, name, machine, from_failed, show=partial(_shown, call))), 201)


@router.get("/{name}/verify")
@answers(Verification)
async def verify(call: CallDep, name: str, against: str) -> Response:
    """Whether `against` came to what `name` came to, bit by bit."""
    return answer(await call.read(reruns.verify, name, against))


@router.delete("/{name}")
@answers(status=204)
async def delete(call: CallDep, name: str) -> Response:
    """For good: the job, its run with what was logged, its artifacts and outputs."""
    await call.write(service.delete, name)
    await call.yard.executor.release(name, logs=True)
    try:
        await asyncio.to_thread(job_logs.remove, call.yard.home, name)
    except OSError as error:
        log.warning("the folder of job %s could not be removed, `yard gc` tries again: %s", name, error)
    return Response(status_code=204)


@router.post("/{name}/archive")
@answers(AnyJob)
async def archive(call: CallDep, name: str) -> Response:
    return answer(_shown(call, await call.write(service.set_archived, name, True, show=partial(_shown, call))))


@router.post("/{name}/restore")
@answers(AnyJob)
async def restore(call: CallDep, name: str) -> Response:
    return answer(_shown(call, await call.write(service.set_archived, name, False, show=partial(_shown, call))))


@router.get("/{name}/metrics")
@answers(JobMetrics)
async def metrics(call: CallDep, name: str) -> Response:
    """What the job logged through MLflow: the latest value of each metric with its step, and the params."""
    await call.read(service.get, name)
    run = await call.read(tracking.get_run, name)
    points = [{"metric": point.key, "value": None if point.is_nan else point.value, "step": point.step} for point in run.metrics]
    return answer({"metrics": points, "params": run.params})


@router.get("/{name}/outputs")
@answers(dict[str, JobOutput])
async def outputs(call: CallDep, name: str) -> Response:
    named = await call.read(service.outputs_of, name)
    return answer({port: {key: value for key, value in asdict(output).items() if value} for port, output in named.items()})


@router.get("/{name}/logs")
@answers(TEXT)
async def logs(call: CallDep, name: str, offset: int = 0, follow: bool = False, file: str = LOG) -> Response:
    """The log from `offset` bytes on, as text; with `follow` until the job has ended. `X-Log-Offset` is where it began."""
    record = await call.read(service.get, name)
    if file not in (LOG, SYSTEM_LOG):
        raise NotFound(f"job {name} has no log {file[:80]}; it has {LOG} and {SYSTEM_LOG}")
    await job_logs.read(call.yard, record, file, 0, 0)
    return StreamingResponse(_tail(call, record, file, max(0, offset), follow), media_type="text/plain; charset=utf-8")


async def _tail(call: Call, record: JobRecord, file: str, offset: int, follow: bool) -> AsyncIterator[bytes]:
    ended = not follow
    while True:
        while chunk := await job_logs.read(call.yard, record, file, offset, CHUNK):
            offset += len(chunk)
            yield chunk
        if ended:
            return
        await asyncio.sleep(POLL_S)
        ended = (await call.read(service.get, record.name)).state in JOB.terminal

"""Which queued jobs run next: fair between workspaces, in order within one. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from ...ports.executor import Share
from .model import JobRecord


def fair_share(capacity: Share, active: Sequence[JobRecord], heads: Mapping[str, Sequence[JobRecord]]) -> list[JobRecord]:
    """Those of the queued jobs that fit into what the active ones leave, always from the workspace that has the fewest running.

    `heads`: workspace → the first of its queued jobs, in order. A job that does not fit keeps its workspace's queue waiting, so that small
    ones do not starve it; one whose compute is full (`max_instances`) is overtaken.
    """
    free = _left(capacity, active)
    running = Counter(record.workspace for record in active)
    on_compute = Counter((record.workspace, record.compute) for record in active)
    waiting = {workspace: list(queue) for workspace, queue in heads.items()}
    chosen: list[JobRecord] = []
    while waiting:
        workspace = min(waiting, key=lambda name: running[name])
        record = next((record for record in waiting[workspace] if not _is_full(record, on_compute)), None)
        if record is None or not record.share.fits(free):
            del waiting[workspace]
            continue
        waiting[workspace].remove(record)
        free = free.minus(record.share)
        running[workspace] += 1
        on_compute[workspace, record.compute] += 1
        chosen.append(record)
    return chosen


def free_gpus(capacity: Share, active: Iterable[JobRecord], count: int) -> str:
    """The first `count` GPUs that no active job has, by number, with commas between them."""
    used = {id for record in active for id in record.gpu_ids.split(",") if id}
    return ",".join([str(id) for id in range(capacity.gpus) if str(id) not in used][:count])


def _left(capacity: Share, active: Iterable[JobRecord]) -> Share:
    for record in active:
        capacity = capacity.minus(record.share)
    return capacity


def _is_full(record: JobRecord, on_compute: Mapping[tuple[str, str], int]) -> bool:
    return record.max_instances is not None and on_compute[record.workspace, record.compute] >= record.max_instances

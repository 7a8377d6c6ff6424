"""The fair queue, by itself: who runs next, in what order, with which GPUs."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from modelyard.ports.executor import Share
from modelyard.spec.states import JobState
from modelyard.testing.memory.executor import Process
from modelyard.testing.yard import InProcessYard
from modelyard.work.jobs.model import JobRecord
from modelyard.work.jobs.queue import fair_share, free_gpus


def job(name: str, workspace: str = "a", **more: Any) -> JobRecord:
    record = JobRecord(
        name=name, workspace=workspace, stored={}, state=JobState.QUEUED, attempt=0, node=None, created_ms=0, created_by="x", started_ms=None,
        ended_ms=None, error=None, cancel_requested=False, archived=False, experiment="e", compute="local", max_instances=None, cpus=1, memory=0,
        gpus=0, gpu_ids="",
    )  # fmt: skip
    return replace(record, **more)


def chosen(capacity: Share, active: list[JobRecord], *queues: list[JobRecord]) -> list[str]:
    return [record.name for record in fair_share(capacity, active, {queue[0].workspace: queue for queue in queues})]


def test_a_workspace_with_a_long_queue_does_not_starve_another() -> None:
    busy = [job(f"busy{n}") for n in range(30)]
    assert chosen(Share(4), [], busy, [job("mine", "b")]) == ["busy0", "mine", "busy1", "busy2"]


def test_a_running_yard_starts_jobs_in_that_order(tmp_path: Path) -> None:
    started: list[str] = []

    def answer(process: Process) -> int | None:
        started.append(process.command)
        return None if process.command == "hold" else 0

    yard = InProcessYard(tmp_path / "home", answer=answer)
    yard.call("PUT", "/api/v1/workspaces/other", json={}, expect=200)

    def submit(command: str, workspace: str = "default") -> str:
        body = {"type": "command", "command": command, "environment": {"pip": []}}
        return str(yard.call("POST", f"/api/v1/workspaces/{workspace}/jobs", json=body, expect=201).json()["name"])

    slots = yard.executor.capacity().cpus
    held = [submit("hold") for _ in range(slots)]
    yard.settle()
    for number in range(30):
        submit(f"busy {number}")
    submit("mine", "other")
    yard.settle()
    assert started == ["hold"] * slots
    for name in held:
        yard.executor.finish(name)
    yard.settle()
    busy = [command for command in started if command.startswith("busy")]
    assert busy == [f"busy {number}" for number in range(30)] and started.index("mine") <= 2 * slots
    yard.close()


def test_who_has_the_fewest_running_comes_next() -> None:
    active = [job("r1", "a"), job("r2", "a"), job("r3", "b")]
    assert chosen(Share(6), active, [job("a1"), job("a2")], [job("b1", "b"), job("b2", "b")]) == ["b1", "a1", "b2"]


def test_within_a_workspace_nothing_small_overtakes_what_waits_for_room() -> None:
    queue = [job("large", cpus=4), job("small")]
    assert chosen(Share(4), [job("running", cpus=2)], queue) == []
    assert chosen(Share(4), [job("running", cpus=2)], queue, [job("other", "b")]) == ["other"], "other workspaces go on"
    assert chosen(Share(5), [], queue) == ["large", "small"]


def test_memory_and_gpus_are_shared_out_too() -> None:
    capacity = Share(8, memory=100, gpus=1)
    assert chosen(capacity, [], [job("m1", memory=60), job("m2", memory=60)]) == ["m1"]
    assert chosen(capacity, [], [job("g1", gpus=1)], [job("g2", "b", gpus=1)]) == ["g1"]


def test_a_full_compute_is_overtaken_and_others_of_the_same_name_are_not_it() -> None:
    queue = [job("one", compute="gpu", max_instances=1), job("two", compute="gpu", max_instances=1), job("three", compute="cpu")]
    assert chosen(Share(8), [], queue) == ["one", "three"]
    running = job("running", compute="gpu", max_instances=1)
    assert chosen(Share(8), [running], queue) == ["three"]
    assert chosen(Share(8), [replace(running, workspace="b")], queue) == ["one", "three"], "the compute of another workspace"


def test_gpus_that_are_taken_are_not_given_again() -> None:
    active = [job("x", gpu_ids="0"), job("y", gpu_ids="2,3"), job("z")]
    assert free_gpus(Share(1, gpus=5), active, 2) == "1,4"
    assert free_gpus(Share(1, gpus=5), active, 0) == ""


MOST = {"free": None, "one": 1, "two": 2}
"""Compute → how many jobs it takes at a time."""
records = st.fixed_dictionaries(
    {"workspace": st.sampled_from("abc"), "cpus": st.integers(1, 4), "memory": st.integers(0, 8), "gpus": st.integers(0, 2),
     "compute": st.sampled_from(list(MOST))}
).map(lambda fields: {**fields, "max_instances": MOST[fields["compute"]]})  # fmt: skip


@given(st.lists(records, max_size=6), st.lists(records, max_size=20), st.integers(1, 12), st.integers(0, 20), st.integers(0, 4))
def test_whatever_is_queued_no_more_is_chosen_than_fits_and_no_place_is_left_that_somebody_first_in_line_could_take(
    running: list[dict[str, Any]], queued: list[dict[str, Any]], cpus: int, memory: int, gpus: int
) -> None:
    capacity = Share(cpus, memory, gpus)
    active: list[JobRecord] = []
    for number, fields in enumerate(running):
        record = job(f"r{number}", **fields)
        if record.share.fits(_left(capacity, active)):
            active.append(record)
    heads: dict[str, list[JobRecord]] = {}
    for number, fields in enumerate(queued):
        heads.setdefault(fields["workspace"], []).append(job(f"q{number}", **fields))
    found = fair_share(capacity, active, heads)
    left = _left(capacity, [*active, *found])
    assert left.cpus >= 0 and left.memory >= 0 and left.gpus >= 0 and len({record.name for record in found}) == len(found)
    instances = Counter((record.workspace, record.compute) for record in [*active, *found])
    for record in found:
        before = sum((other.workspace, other.compute) == (record.workspace, record.compute) for other in active)
        assert record.max_instances is None or instances[record.workspace, record.compute] <= max(record.max_instances, before)
    for workspace, queue in heads.items():
        order = [record.name for record in queue]
        positions = [order.index(record.name) for record in found if record.workspace == workspace]
        assert positions == sorted(positions)
        waiting = [record for record in queue if record not in found]
        first = next((r for r in waiting if r.max_instances is None or instances[r.workspace, r.compute] < r.max_instances), None)
        assert first is None or not first.share.fits(left), f"{first} could have run"


def _left(capacity: Share, taken: list[JobRecord]) -> Share:
    for record in taken:
        capacity = capacity.minus(record.share)
    return capacity

"""States: which may follow which, asked where a row changes."""

from __future__ import annotations

import itertools
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from modelyard.core.errors import Conflict, Superseded
from modelyard.drivers.vault.local import LocalVault
from modelyard.spec.states import DEPLOYMENT, JOB, ROLLOUT, STEP, TRIAL, JobState, ProvisioningState, RolloutState, StepState, Transitions
from modelyard.storage.unit import Unit
from rows import found, queued

J, P, R, T = JobState, ProvisioningState, RolloutState, StepState
LEGAL: dict[str, tuple[Transitions[Any], type[StrEnum], set[tuple[str, str]]]] = {
    "job": (
        JOB, J,
        {(J.QUEUED, J.PREPARING), (J.QUEUED, J.CANCELED), (J.PREPARING, J.RUNNING), (J.PREPARING, J.FAILED), (J.PREPARING, J.CANCELED),
         (J.RUNNING, J.FINALIZING), (J.RUNNING, J.COMPLETED), (J.RUNNING, J.FAILED), (J.RUNNING, J.CANCELED),
         (J.FINALIZING, J.COMPLETED), (J.FINALIZING, J.FAILED), (J.FINALIZING, J.CANCELED)},
    ),
    "trial": (
        TRIAL, J,
        {(old, new) for index, old in enumerate((J.QUEUED, J.PREPARING, J.RUNNING, J.FINALIZING))
         for new in (*(J.PREPARING, J.RUNNING, J.FINALIZING)[index:], J.COMPLETED, J.FAILED, J.CANCELED)},
    ),
    "step": (STEP, T, {(T.RUNNING, T.RUNNING), (T.RUNNING, T.COMPLETED), (T.RUNNING, T.FAILED), (T.RUNNING, T.CANCELED)}),
    "deployment": (
        DEPLOYMENT, P,
        {(P.CREATING, P.CREATING), (P.CREATING, P.SUCCEEDED), (P.CREATING, P.FAILED), (P.CREATING, P.DELETING),
         (P.UPDATING, P.UPDATING), (P.UPDATING, P.SUCCEEDED), (P.UPDATING, P.FAILED), (P.UPDATING, P.DELETING),
         (P.SUCCEEDED, P.UPDATING), (P.SUCCEEDED, P.DELETING),
         (P.FAILED, P.CREATING), (P.FAILED, P.UPDATING), (P.FAILED, P.DELETING)},
    ),
    "rollout": (ROLLOUT, R, {(R.RUNNING, R.COMPLETED), (R.RUNNING, R.ABORTED)}),
}  # fmt: skip


@pytest.mark.parametrize("noun", LEGAL)
def test_every_legal_transition_is_accepted_and_every_other_refused(noun: str) -> None:
    table, states, legal = LEGAL[noun]
    assert set(table.table) == set(states)
    for old, new in itertools.product(states, states):
        if (old, new) in legal:
            assert table.transition(old, new) is new and old in table.before(new)
            continue
        with pytest.raises(Conflict, match=f"{old} does not become {new}") as refused:
            table.transition(old, new)
        assert refused.value.code == "illegal_transition" and old not in table.before(new)
    for state in states:
        assert (state in table.terminal) == (not any(old == state for old, _ in legal))
        if state not in table.begins:
            with pytest.raises(Conflict, match=f"does not begin as {state}"):
                table.begin(state)


def test_a_job_that_has_ended_stays_as_it_ended(db: Any, tmp_path: Path) -> None:
    from modelyard.work.jobs import service, store

    def ended(unit: Unit) -> str:
        claimed, _ = service.begin_attempt(unit, queued(unit), "node", "", LocalVault(tmp_path / "key"))
        service.set_running(unit, "j", claimed.attempt)
        service.end(unit, "j", claimed.attempt, J.COMPLETED, None)
        for code, late in (
            ("illegal_transition", lambda: service.end(unit, "j", claimed.attempt, J.FAILED, {"code": "late", "message": "late"})),
            ("illegal_transition", lambda: service.set_finalizing(unit, "j", claimed.attempt)),
            ("stale_attempt", lambda: service.end(unit, "j", claimed.attempt - 1, J.FAILED, None)),
            ("stale_attempt", lambda: store.set_active(unit, found(unit), cancel_requested=True)),
        ):
            with pytest.raises(Conflict) as refused:
                late()
            assert refused.value.code == code
        with pytest.raises(Conflict, match="does not begin as Completed"):
            store.insert(unit, replace(found(unit), name="k"))
        return str(unit.value(sa.text("SELECT state FROM jobs")))

    assert db.write_now(ended, workspace="default") == "Completed"


def test_a_claim_that_comes_after_a_cancel_has_lost_a_race_and_broken_no_rule(db: Any, tmp_path: Path) -> None:
    from modelyard.work.jobs import service

    def raced(unit: Unit) -> None:
        seen = queued(unit)
        assert service.cancel(unit, "j").state is J.CANCELED
        with pytest.raises(Superseded) as refused:
            service.begin_attempt(unit, seen, "node", "", LocalVault(tmp_path / "key"))
        assert refused.value.code == "stale_attempt"

    db.write_now(raced, workspace="default")


def test_a_deployment_and_a_rollout_go_no_way_that_the_table_does_not_know(db: Any) -> None:
    from modelyard.serving.online import store
    from modelyard.serving.online.rollout import RolloutRecord

    def walked(unit: Unit) -> tuple[str, str]:
        body = {"type": "managed", "instance_count": 1}
        store.insert_deployment(unit, "e", "d", spec=body, state=P.CREATING, error=None, warnings=[], resolved={})
        made = store.get_deployment(unit, "e", "d")
        assert made is not None
        with pytest.raises(Conflict, match="Creating does not become Updating"):
            store.transition_deployment(unit, made, P.UPDATING, generation=2)
        store.transition_deployment(unit, made, P.SUCCEEDED, live=1, live_instances=1)
        with pytest.raises(Conflict) as refused:
            store.transition_deployment(unit, made, P.FAILED)  # as it was read before: others have moved it on
        assert refused.value.code == "stale_generation"
        rollout = RolloutRecord(
            "default", "e", {"to": "d", "steps": [50, 100]}, R.RUNNING, 0, {"c": 100}, {}, "", unit.now, unit.now, "admin"
        )
        store.put_rollout(unit, rollout)
        store.end_rollout(unit, rollout, R.ABORTED, "enough")
        ended = store.get_rollout(unit, "e")
        assert ended is not None
        with pytest.raises(Conflict, match="Aborted does not become Completed"):
            store.end_rollout(unit, ended, R.COMPLETED, "late")
        with pytest.raises(Conflict, match="does not begin as Aborted"):
            store.put_rollout(unit, ended)
        return str(unit.value(sa.text("SELECT state FROM deployments"))), str(unit.value(sa.text("SELECT state FROM rollouts")))

    assert db.write_now(walked, workspace="default") == ("Succeeded", "Aborted")

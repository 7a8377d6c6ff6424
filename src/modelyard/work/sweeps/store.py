from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from ...spec.states import TRIAL, JobState
from ...storage.tables import Json, metadata
from ...storage.unit import Unit

sweep_trials = sa.Table(
    "sweep_trials",
    metadata,
    sa.Column("sweep", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("job", sa.Text, nullable=False),
    sa.Column("params", Json, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("metric", sa.Double),
    sa.Column("stopped", sa.Boolean, nullable=False),
)


@dataclass
class Trial:
    """`params` holds the `values`, the `point` they were drawn at, up to which interval it was `judged`, and why it was stopped."""

    number: int
    job: str
    params: dict[str, Any]
    state: JobState
    metric: float | None = None
    stopped: bool = False

    def transition(self, state: JobState) -> None:
        """Adopt the state of its job. Raises Conflict when that cannot follow the present one."""
        self.state = state if state is self.state else TRIAL.transition(self.state, state)


def trials(unit: Unit, sweep: str) -> list[Trial]:
    t = sweep_trials.c
    rows = unit.rows(sa.select(sweep_trials).where(t.sweep == sweep).order_by(t.number))
    return [Trial(r.number, r.job, r.params, JobState(r.state), r.metric, r.stopped) for r in rows]


def put(unit: Unit, sweep: str, trial: Trial) -> None:
    unit.upsert(sweep_trials, {"sweep": sweep, **trial.__dict__})


def delete(unit: Unit, sweep: str) -> None:
    unit.run(sa.delete(sweep_trials).where(sweep_trials.c.sweep == sweep))

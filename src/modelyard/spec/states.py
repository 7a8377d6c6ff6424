"""The states of everything that has a life of its own, and which may follow which: read by services, SDK and command line.

The values are the words of the database, of REST answers and of events.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Generic, TypeVar

from ..core.errors import Conflict, Invalid


class JobState(StrEnum):
    QUEUED = "Queued"
    PREPARING = "Preparing"
    RUNNING = "Running"
    FINALIZING = "Finalizing"
    COMPLETED = "Completed"
    FAILED = "Failed"
    CANCELED = "Canceled"


CANCEL_REQUESTED = "CancelRequested"
"""The status of a job that is asked to end and has not ended yet, whatever its state."""


class StepState(StrEnum):
    """Of a pipeline's step; one that waits for others has no row and no state yet."""

    RUNNING = "Running"
    COMPLETED = "Completed"
    FAILED = "Failed"
    CANCELED = "Canceled"
    SKIPPED = "Skipped"


class ProvisioningState(StrEnum):
    """Of a deployment. Endpoints and computes are rows alone, and always `Succeeded`."""

    CREATING = "Creating"
    UPDATING = "Updating"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    DELETING = "Deleting"


class RolloutState(StrEnum):
    RUNNING = "Running"
    COMPLETED = "Completed"
    ABORTED = "Aborted"


class InstanceState(StrEnum):
    """Of one process of a deployment, as it is found when somebody asks; nothing is kept of it."""

    RUNNING = "Running"
    STARTING = "Starting"
    BACK_OFF = "CrashLoopBackOff"
    MISSING = "Missing"


class RunState(StrEnum):
    """Of a tracked run, in the order of MLflow's numbers for them. No table: an MLflow client sets whichever it likes at any time, and the
    run of a job has what its job comes to."""

    RUNNING = "RUNNING"
    SCHEDULED = "SCHEDULED"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    KILLED = "KILLED"

    @classmethod
    def of(cls, value: object) -> RunState:
        """By its word, or by MLflow's number (`RunStatus` of its protocol). Raises Invalid."""
        return list(cls)[value - 1] if isinstance(value, int) and 0 < value <= len(cls) else _read(cls, value, "run status")


class TraceState(StrEnum):
    """Of a trace; like those of runs they are set by whoever writes it."""

    UNSPECIFIED = "STATE_UNSPECIFIED"
    OK = "OK"
    ERROR = "ERROR"
    IN_PROGRESS = "IN_PROGRESS"

    @classmethod
    def of(cls, value: object) -> TraceState:
        """Raises Invalid."""
        return _read(cls, value, "trace state")


S = TypeVar("S", bound=StrEnum)


def _read(states: type[S], value: object, what: str) -> S:
    try:
        return states(str(value))
    except ValueError:
        code = "invalid_" + what.rpartition(" ")[2]
        raise Invalid(f"Invalid {what} {str(value)[:40]!r}; it must be one of {', '.join(states)}", code=code) from None


class Transitions(Generic[S]):
    """Which state may follow which: `begins` are those that something new may have, a state that nothing follows is terminal."""

    def __init__(self, noun: str, begins: Iterable[S], table: Mapping[S, Iterable[S]]) -> None:
        self.noun = noun
        self.begins = frozenset(begins)
        self.table = {state: frozenset(following) for state, following in table.items()}
        self.terminal = frozenset(state for state, following in self.table.items() if not following)

    def begin(self, new: S) -> S:
        """The first state of something new. Raises Conflict for one that it cannot begin with."""
        if new not in self.begins:
            raise Conflict(f"a {self.noun} does not begin as {new}", code="illegal_transition")
        return new

    def transition(self, old: S, new: S) -> S:
        """The state that follows. Raises Conflict when `new` does not follow `old`."""
        if new not in self.table[old]:
            raise Conflict(f"a {self.noun} that is {old} does not become {new}", code="illegal_transition")
        return new

    def before(self, new: S) -> tuple[S, ...]:
        """The states that `new` may follow."""
        return tuple(state for state, following in self.table.items() if new in following)

    def at_intervals(self) -> Transitions[S]:
        """The same as it is seen by one who looks now and then, and misses states in between."""
        reachable = {state: set(following) for state, following in self.table.items()}
        for _ in reachable:
            for following in reachable.values():
                following.update(*(reachable[state] for state in tuple(following)))
        return Transitions(self.noun, reachable, reachable)


J, P, R, T = JobState, ProvisioningState, RolloutState, StepState

JOB = Transitions(
    "job",
    # A job that other jobs carry out runs from the start.
    (J.QUEUED, J.RUNNING),
    {
        J.QUEUED: (J.PREPARING, J.CANCELED),
        J.PREPARING: (J.RUNNING, J.FAILED, J.CANCELED),
        J.RUNNING: (J.FINALIZING, J.COMPLETED, J.FAILED, J.CANCELED),
        J.FINALIZING: (J.COMPLETED, J.FAILED, J.CANCELED),
        J.COMPLETED: (),
        J.FAILED: (),
        J.CANCELED: (),
    },
)
TRIAL = JOB.at_intervals()
"""A trial is its job, as the sweep sees it whenever it is taken further."""
STEP = Transitions(
    "step",
    # Conditions and steps whose results are reused complete at once; what cannot be started has failed.
    (T.RUNNING, T.COMPLETED, T.FAILED, T.SKIPPED),
    {
        # Running again: another try, or the next look at a loop.
        T.RUNNING: (T.RUNNING, T.COMPLETED, T.FAILED, T.CANCELED),
        T.COMPLETED: (),
        T.FAILED: (),
        T.CANCELED: (),
        T.SKIPPED: (),
    },
)
DEPLOYMENT = Transitions(
    "deployment",
    (P.CREATING,),
    {
        # A change makes a new generation: updating while an earlier one serves, creating while none does.
        P.CREATING: (P.CREATING, P.SUCCEEDED, P.FAILED, P.DELETING),
        P.UPDATING: (P.UPDATING, P.SUCCEEDED, P.FAILED, P.DELETING),
        P.SUCCEEDED: (P.UPDATING, P.DELETING),
        P.FAILED: (P.CREATING, P.UPDATING, P.DELETING),
        P.DELETING: (),
    },
)
ROLLOUT = Transitions("rollout", (R.RUNNING,), {R.RUNNING: (R.COMPLETED, R.ABORTED), R.COMPLETED: (), R.ABORTED: ()})

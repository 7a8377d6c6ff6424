"""Sweeps: many trials of one command over a search space (reference `azure-v2-fields`, section 7.2)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NotRequired

from pydantic import BeforeValidator, Field, model_validator
from typing_extensions import TypedDict

from .component import CommandComponent
from .fields import Command, ReadFile, ShownAs, Spec, Variables, read_only
from .inputs import Inputs, Outputs, input_files
from .job import Distribution, EnvironmentField, Job, JobResourceConfiguration, QueueSettings
from .local import Code, EnvironmentFiles, Inside, LocalPart
from .states import JobState

Number = int | float


CHOSEN = "hyperparam."
"""Prefix of the tags of a trial that say what was chosen for it."""


class Choice(Spec):
    """Values, or mappings whose entries are values or distributions of their own (a nested space)."""

    type: Literal["choice"] = "choice"
    values: list[Any] = Field(min_length=1)

    @model_validator(mode="after")
    def _nested(self) -> Choice:
        for value in self.values:
            if isinstance(value, dict):
                for name, inner in value.items():
                    if isinstance(inner, dict):
                        distribution(inner, f"{name}: ")
            elif isinstance(value, list):
                raise ValueError("a choice is between values or mappings, not lists")
            elif isinstance(value, str) and "${{" in value:
                raise ValueError(f"{value!r} is not a value: a search space has no expressions")
        return self


class Uniform(Spec):
    type: Literal["uniform", "loguniform"]
    min_value: Number
    max_value: Number

    @model_validator(mode="after")
    def _points(self) -> Uniform:
        if self.min_value >= self.max_value:
            raise ValueError(f"min_value {self.min_value} is not less than max_value {self.max_value}: there is no point to try")
        if self.type == "loguniform" and self.max_value > 700:
            raise ValueError("the bounds of a loguniform are exponents of e; 700 at most")
        return self


class QUniform(Spec):
    type: Literal["quniform", "qloguniform"]
    min_value: Number
    max_value: Number
    q: Number = Field(gt=0)

    @model_validator(mode="after")
    def _points(self) -> QUniform:
        if self.min_value > self.max_value:
            raise ValueError(f"min_value {self.min_value} is greater than max_value {self.max_value}: there is no point to try")
        return self


class Normal(Spec):
    type: Literal["normal", "lognormal"]
    mu: Number
    sigma: Number = Field(gt=0)


class QNormal(Spec):
    type: Literal["qnormal", "qlognormal"]
    mu: Number
    sigma: Number = Field(gt=0)
    q: Number = Field(gt=0)


class Randint(Spec):
    """0 to upper - 1."""

    type: Literal["randint"] = "randint"
    upper: int = Field(ge=1)


Space = Choice | Uniform | QUniform | Normal | QNormal | Randint
_KINDS: dict[str, type[Spec]] = {
    "choice": Choice, "uniform": Uniform, "loguniform": Uniform, "quniform": QUniform, "qloguniform": QUniform,
    "normal": Normal, "lognormal": Normal, "qnormal": QNormal, "qlognormal": QNormal, "randint": Randint,
}  # fmt: skip


def distribution(value: Any, where: str = "") -> Any:
    """A distribution by its `type`. Raises ValueError."""
    if isinstance(value, Spec):
        return value
    kind = str(value.get("type", "")).lower().replace("_", "") if isinstance(value, dict) else ""
    if kind not in _KINDS:
        raise ValueError(f"{where}a distribution has a type: {', '.join(_KINDS)}")
    return _KINDS[kind].model_validate(value)


class SamplingAlgorithm(Spec):
    """`rule` sobol spreads the points of random sampling evenly; `logbase` is the base of log distributions' exponents."""

    type: Literal["random", "grid", "bayesian"]
    seed: int | None = None
    rule: Literal["random", "sobol"] | None = None
    logbase: Number | str | None = None


class SweepObjective(Spec):
    goal: Literal["minimize", "maximize"]
    primary_metric: str = Field(min_length=1)


class SweepJobLimits(Spec):
    """`timeout` of the sweep and `trial_timeout` of each trial in seconds."""

    max_concurrent_trials: int | None = Field(default=None, ge=1)
    max_total_trials: int = Field(ge=1, le=100_000)
    timeout: int | None = Field(default=None, ge=1)
    trial_timeout: int | None = Field(default=None, ge=1)


class BanditPolicy(Spec):
    type: Literal["bandit"] = "bandit"
    evaluation_interval: int = Field(default=0, ge=0)
    delay_evaluation: int = Field(default=0, ge=0)
    slack_factor: float = Field(default=0, ge=0)
    slack_amount: float = Field(default=0, ge=0)


class MedianStoppingPolicy(Spec):
    type: Literal["median_stopping"] = "median_stopping"
    evaluation_interval: int = Field(default=1, ge=0)
    delay_evaluation: int = Field(default=0, ge=0)


class TruncationSelectionPolicy(Spec):
    type: Literal["truncation_selection"] = "truncation_selection"
    evaluation_interval: int = Field(default=0, ge=0)
    delay_evaluation: int = Field(default=0, ge=0)
    truncation_percentage: int = Field(ge=1, le=99)


EarlyTermination = Annotated[BanditPolicy | MedianStoppingPolicy | TruncationSelectionPolicy, Field(discriminator="type")]


class ParameterizedCommand(Spec):
    command: Command = Field(min_length=1)
    code: str | None = None
    environment: EnvironmentField
    environment_variables: Variables = Field(default_factory=dict)
    resources: JobResourceConfiguration | None = None
    distribution: Distribution | None = None
    queue_settings: QueueSettings | None = None

    def local_parts(self) -> Iterator[LocalPart]:
        yield from (Code(), EnvironmentFiles())


def _sampling(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


def _trial(value: Any) -> Any:
    """An inline command; a component when it has ports or says so."""
    if isinstance(value, dict) and ("inputs" in value or "outputs" in value or value.get("type") == "command"):
        return CommandComponent.model_validate({"name": "trial", **value})
    return ParameterizedCommand.model_validate(value) if isinstance(value, dict) else value


class SweepFields(Spec):
    """What sweep jobs and sweep steps share."""

    sampling_algorithm: Annotated[SamplingAlgorithm, BeforeValidator(_sampling)] = Field(
        default_factory=lambda: SamplingAlgorithm(type="random")
    )
    search_space: dict[str, Annotated[Space, BeforeValidator(distribution)]] = Field(default_factory=dict)
    objective: SweepObjective
    early_termination: EarlyTermination | None = None
    limits: SweepJobLimits
    queue_settings: QueueSettings | None = None
    resources: JobResourceConfiguration | None = None
    trial: Annotated[str | CommandComponent | ParameterizedCommand, BeforeValidator(_trial)]

    def local_parts(self) -> Iterator[LocalPart]:
        if isinstance(self.trial, Spec):
            yield Inside(("trial",), self.trial)
        yield from super().local_parts()

    def read_files(self, read: ReadFile) -> None:
        self._read_file("trial", "component", read)
        super().read_files(read)

    @model_validator(mode="after")
    def _sensible(self) -> SweepFields:
        if not self.search_space:
            raise ValueError("search_space is empty: there is nothing to vary")
        if self.sampling_algorithm.type == "grid":
            continuous = [name for name, space in self.search_space.items() if not isinstance(space, (Choice, Randint, QUniform))]
            if continuous:
                raise ValueError(f"grid sampling needs points to count; {', '.join(continuous)} of the search space has none")
        return self


class TrialStatus(TypedDict):
    """One trial: its job, its parameters, and the primary metric that it came to."""

    number: int
    job_name: str | None
    status: JobState
    params: dict[str, Any]
    metric: float | None
    stopped: NotRequired[str]
    """Why it was ended early."""


class SweepJob(Job, SweepFields):
    type: Literal["sweep"] = "sweep"
    inputs: Inputs = Field(default_factory=dict)
    outputs: Outputs = Field(default_factory=dict)
    parent_job_name: str | None = read_only()
    trials: Annotated[list[dict[str, Any]] | None, ShownAs(list[TrialStatus])] = read_only()
    best: Annotated[dict[str, Any] | None, ShownAs(TrialStatus)] = read_only()

    def local_parts(self) -> Iterator[LocalPart]:
        yield from input_files(self.inputs)
        yield from super().local_parts()


def points_of(space: Spec) -> list[Any]:
    """All points of a distribution that has countably many, for a grid."""
    if isinstance(space, Choice):
        return list(space.values)
    if isinstance(space, Randint):
        return list(range(space.upper))
    assert isinstance(space, QUniform)
    low, high = (space.min_value, space.max_value) if space.type == "quniform" else (math.exp(space.min_value), math.exp(space.max_value))
    first, last = round(low / space.q), round(high / space.q)
    return [step * space.q for step in range(first, min(last, first + 100_000) + 1)]

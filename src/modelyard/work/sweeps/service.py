"""Use cases of sweeps. `advance` records trials that ended, stops those that fall behind, and starts new ones up to the limits, all in one unit."""

from __future__ import annotations

import re
from typing import Any

from pydantic import ValidationError

from ...assets.components import service as components
from ...assets.environments import service as environments
from ...assets.files import service as files
from ...core.actor import internal, requires
from ...core.errors import Invalid, NotFound, Problem
from ...core.names import nearest
from ...ports.executor import Share
from ...spec.component import CommandComponent
from ...spec.fields import problems_of
from ...spec.job import CommandJob
from ...spec.states import JOB, JobState
from ...spec.sweep import CHOSEN, SweepJob
from ...storage.unit import Unit
from ..jobs import outputs as job_outputs
from ..jobs import resolution
from ..jobs import service as jobs
from ..jobs.model import JobRecord, literal_text
from ..tracking import service as tracking
from . import store
from .policies import to_stop
from .search import Tried, dimensions, grid_size, propose, sobol
from .store import Trial

MOST_NAMED = 10
"""Metrics in one message."""
_SEARCH = re.compile(r"\$\{\{\s*search_space\.([\w-]+)\s*\}\}")


@requires("workspaces/jobs/write")
def submit(unit: Unit, spec: SweepJob, machine: Share, parent: JobRecord | None = None) -> JobRecord:
    """Check the search space and a trial as it would be submitted, then begin the sweep."""
    if isinstance(spec.trial, str):
        component = components.resolve(unit, spec.trial)
        if not isinstance(component, CommandComponent):
            raise Invalid(f"trial {spec.trial} is a component of type {component.type}; a sweep varies a command", code="invalid_trial")
        spec.trial = component
    problems = [*_problems(spec)]

    def attempt(where: str, look: Any) -> None:
        try:
            look()
        except (NotFound, Invalid) as error:
            problems.append(Problem(error.message, where))

    trial = spec.trial
    assert not isinstance(trial, str)
    if trial.code is not None:
        code = trial.code
        attempt("trial.code", lambda: resolution.check_code(unit, code))
    attempt("trial.environment", lambda: environments.resolve(unit, trial.environment))
    for port, value in spec.inputs.items():
        if value.path is not None:
            attempt(f"inputs.{port}", lambda value=value: resolution.check_input(unit, value))
    for port, output in spec.outputs.items():
        attempt(f"outputs.{port}", lambda port=port, output=output: resolution.check_output(unit, resolution.PLACEHOLDER, port, output))
    if problems:
        raise Invalid("this sweep cannot run", code="invalid_sweep", problems=tuple(problems))
    return jobs.begin(unit, spec, parent, [])


def _problems(spec: SweepJob) -> list[Problem]:
    problems = []
    trial = spec.trial
    if isinstance(trial, CommandComponent):
        used = set(_SEARCH.findall(trial.command))
        for name in spec.search_space:
            if name in used and name not in trial.inputs:
                continue
            if name not in trial.inputs:
                problems.append(Problem(f"the trial has no input {name!r}", f"search_space.{name}"))
            elif not trial.inputs[name].is_literal:
                problems.append(Problem(f"input {name} of the trial is {trial.inputs[name].type}, not a value", f"search_space.{name}"))
        for name in spec.inputs:
            if name not in trial.inputs:
                problems.append(Problem(f"the trial has no input {name!r}", f"inputs.{name}"))
        for name, port in trial.inputs.items():
            if name not in spec.inputs and name not in spec.search_space and port.default is None and not port.optional:
                problems.append(Problem(f"input {name!r} of the trial ({port.type}) is required", "inputs"))
    assert not isinstance(trial, str)
    unknown = sorted(set(_SEARCH.findall(trial.command)) - set(spec.search_space))
    problems += [Problem(f"${{{{search_space.{name}}}}} is not in the search space", "trial.command") for name in unknown]
    try:
        if spec.sampling_algorithm.rule == "sobol":
            sobol(0, len(dimensions(spec.search_space)))
        proposal = propose(spec.search_space, spec.sampling_algorithm, "check", 0, ())
    except (Invalid, ValueError, OverflowError) as error:
        return [*problems, Problem(str(error), "search_space")]
    if not problems and proposal is not None:
        try:
            _trial_job(spec, proposal[1], 0)
        except ValidationError as error:
            problems += problems_of(error, CommandJob)
        except (Invalid, ValueError) as error:
            problems.append(Problem(str(error), "trial"))
    return problems


@internal
def details(unit: Unit, record: JobRecord) -> dict[str, Any]:
    trials = store.trials(unit, record.name)
    shown = [
        {
            "number": trial.number, "job_name": trial.job, "status": trial.state, "params": trial.params["values"], "metric": trial.metric,
            **({"stopped": trial.params.get("why", "")} if trial.stopped else {}),
        }
        for trial in trials
    ]  # fmt: skip
    best = _best(_sweep(record), trials)
    best_shown = next((item for item in shown if best is not None and item["number"] == best.number), None)
    return {"trials": shown, **({"best": best_shown} if best_shown else {})}


@internal
def forget(unit: Unit, name: str) -> None:
    store.delete(unit, name)


def _sweep(record: JobRecord) -> SweepJob:
    assert isinstance(record.spec, SweepJob)
    return record.spec


def _best(spec: SweepJob, trials: list[Trial]) -> Trial | None:
    sign = _sign(spec)
    ended = [trial for trial in trials if trial.metric is not None and trial.state == JobState.COMPLETED]
    return min(ended, key=lambda trial: (sign * (trial.metric or 0.0), trial.number), default=None)


def _sign(spec: SweepJob) -> float:
    """The factor that turns the metric into a loss."""
    return 1.0 if spec.objective.goal == "minimize" else -1.0


@internal
def is_watched(unit: Unit, name: str) -> bool:
    """Whether a sweep can change without a job's end: by early termination, or by its timeout."""
    record = jobs.record_of(unit, name)
    if record is None:
        return False
    try:
        spec = _sweep(record)
    except Invalid:
        return True  # `advance` ends it, with the reason
    return spec.early_termination is not None or spec.limits.timeout is not None


@internal
def advance(unit: Unit, name: str, machine: Share) -> None:
    jobs.clear_due(unit, name)
    record = jobs.record_of(unit, name)
    if record is None or record.state in JOB.terminal:
        return
    spec = _sweep(record)
    trials = store.trials(unit, name)
    histories = _fold(unit, spec, record, trials)
    late = spec.limits.timeout is not None and unit.now - (record.started_ms or unit.now) > spec.limits.timeout * 1000
    if record.cancel_requested or late:
        for trial in trials:
            if trial.state not in JOB.terminal:
                jobs.cancel(unit, trial.job)
        if any(jobs.states_of(unit, [trial.job])[trial.job][0] not in JOB.terminal for trial in trials):
            return
        _fold(unit, spec, record, trials)
        _end(unit, record, spec, trials, late)
        return
    _stop_early(unit, spec, record, trials, histories)
    complete = _start(unit, spec, record, trials, machine)
    if complete and all(trial.state in JOB.terminal for trial in trials):
        _end(unit, record, spec, trials, late)


def _fold(unit: Unit, spec: SweepJob, record: JobRecord, trials: list[Trial]) -> dict[int, list[float]]:
    """Update each trial's state and metric from its job. Returns losses by trial number, of ended trials only where a policy compares with them."""
    sign, histories = _sign(spec), {}
    states = jobs.states_of(unit, [trial.job for trial in trials])
    for trial in trials:
        state = states[trial.job][0] if trial.job in states else JobState.FAILED
        ended = trial.state in JOB.terminal
        if ended and spec.early_termination is None:
            continue
        points = tracking.metric_points(unit, trial.job, spec.objective.primary_metric)
        histories[trial.number] = [sign * value for value in points]
        if ended:
            continue
        known = [value for value in histories[trial.number] if value == value]
        metric = sign * min(known) if known else None
        if state != trial.state or metric != trial.metric:
            trial.transition(state)
            trial.metric = metric
            store.put(unit, record.name, trial)
    return histories


def _stop_early(unit: Unit, spec: SweepJob, record: JobRecord, trials: list[Trial], histories: dict[int, list[float]]) -> None:
    if spec.early_termination is None:
        return
    by_number = {trial.number: trial for trial in trials}
    running = [trial.number for trial in trials if trial.state not in JOB.terminal and not trial.stopped]
    judged = {number: int(by_number[number].params.get("judged", 0)) for number in running}
    before = dict(judged)
    for number, why in to_stop(spec.early_termination, histories, running, judged, _sign(spec)).items():
        trial = by_number[number]
        trial.stopped = True
        trial.params = {**trial.params, "why": why}
        jobs.cancel(unit, trial.job)
    for number in running:
        if judged.get(number, 0) != before[number] or by_number[number].stopped:
            by_number[number].params = {**by_number[number].params, "judged": judged.get(number, 0)}
            store.put(unit, record.name, by_number[number])


def _start(unit: Unit, spec: SweepJob, record: JobRecord, trials: list[Trial], machine: Share) -> bool:
    """Start trials up to the concurrency. True when no further trial will be started."""
    limit = spec.limits.max_total_trials
    if spec.sampling_algorithm.type == "grid":
        limit = min(limit, grid_size(spec.search_space))
    max_concurrent = spec.limits.max_concurrent_trials or limit
    active = sum(trial.state not in JOB.terminal for trial in trials)
    seed = str(spec.sampling_algorithm.seed if spec.sampling_algorithm.seed is not None else record.name)
    sign = _sign(spec)
    while len(trials) < limit and active < max_concurrent:
        number = len(trials)
        tried = [Tried(trial.params.get("point") or {}, None if trial.metric is None else sign * trial.metric) for trial in trials]
        proposal = propose(spec.search_space, spec.sampling_algorithm, seed, number, tried)
        if proposal is None:
            break
        point, values = proposal
        try:
            job = _trial_job(spec, values, number)
        except ValueError as error:
            raise Invalid(f"trial {number} with {values} cannot be made: {error}", code="invalid_trial") from None
        child = jobs.submit_any(unit, job, machine, record)
        trial = Trial(number, child.name, {"values": values, "point": point}, child.state)
        store.put(unit, record.name, trial)
        trials.append(trial)
        active += 1
    return len(trials) >= limit


def _trial_job(spec: SweepJob, values: dict[str, Any], number: int) -> CommandJob:
    trial = spec.trial
    assert not isinstance(trial, str)
    inputs = {port: value.document() for port, value in spec.inputs.items()}
    outputs = {
        port: {key: value for key, value in output.document().items() if key in ("type", "mode")} for port, output in spec.outputs.items()
    }
    command = trial.command
    if isinstance(trial, CommandComponent):
        for port, port_spec in trial.inputs.items():
            if port in values:
                inputs[port] = {"type": port_spec.type, "value": port_spec.checked(values[port])}
            elif port not in inputs and port_spec.default is not None:
                inputs[port] = {"type": port_spec.type, ("value" if port_spec.is_literal else "path"): port_spec.default}
            elif port not in inputs:
                inputs[port] = {"type": port_spec.type, "optional": True}
        for port, declared in trial.outputs.items():
            outputs.setdefault(port, {"type": declared.travels_as})
    command = _SEARCH.sub(lambda match: literal_text(values[match[1]]), command)
    resources = spec.resources or trial.resources
    body: dict[str, Any] = {
        "type": "command", "command": command, "inputs": inputs, "outputs": outputs, "display_name": f"trial {number}", "compute": spec.compute,
        "environment": trial.environment if isinstance(trial.environment, str) else trial.environment.document(),
        "environment_variables": trial.environment_variables, "experiment_name": spec.experiment_name,
        "tags": {CHOSEN + name: str(value) for name, value in values.items()}, "code": trial.code,
        "resources": resources.document() if resources else None, "distribution": trial.distribution.document() if trial.distribution else None,
        "limits": {"timeout": spec.limits.trial_timeout} if spec.limits.trial_timeout else None,
    }  # fmt: skip
    return CommandJob.model_validate({key: value for key, value in body.items() if value is not None})


def _end(unit: Unit, record: JobRecord, spec: SweepJob, trials: list[Trial], late: bool) -> None:
    """The best trial's outputs become the sweep's."""
    best = _best(spec, trials)
    registered: dict[str, str] = {}
    state, error = JobState.COMPLETED, None
    if record.cancel_requested:
        state = JobState.CANCELED
    elif best is None:
        state, error = JobState.FAILED, _no_result(unit, record, spec, trials, late)
    else:
        for port in files.outputs_of(unit, best.job):
            files.pass_output_on(unit, best.job, port, record.name, port)
            output = spec.outputs.get(port)
            if output is not None and output.name:
                registered[port] = job_outputs.promote(unit, record.name, port, output.name, output.version)
    jobs.end(unit, record.name, record.attempt, state, error, registered=registered)


def _no_result(unit: Unit, record: JobRecord, spec: SweepJob, trials: list[Trial], late: bool) -> dict[str, Any]:
    """Why no trial is the best one: what the trials logged instead, or how the first of them failed."""
    metric, in_time = spec.objective.primary_metric, " in time" if late else ""
    completed = [trial for trial in trials if trial.state == JobState.COMPLETED]
    if completed:
        logged = tracking.logged_names(unit, completed[0].job)
        instead = f"they logged {', '.join(logged[:MOST_NAMED])}{nearest(metric, logged)}" if logged else "they logged no metric at all"
        hint = "Name in primary_metric what the trials log, or log it there." if logged else f"yard job stream -n {completed[0].job}"
        return {"code": "no_result", "message": f"no trial logged the metric {metric!r}{in_time}: {instead}", "hint": hint}
    ends = jobs.states_of(unit, [trial.job for trial in trials])
    failed = next((trial for trial in trials if trial.state == JobState.FAILED and ends.get(trial.job, ("", None))[1]), None)
    if failed is None:
        return {"code": "no_result", "message": f"no trial completed{in_time}", "hint": f"yard job show -n {record.name}"}
    reason = ends[failed.job][1] or {}
    error = {
        "code": "no_result",
        "message": f"no trial completed{in_time}; trial {failed.number} failed: {reason.get('message', '')}",
        "hint": f"yard job stream -n {failed.job}",
    }
    return {**error, **({"log_tail": reason["log_tail"]} if reason.get("log_tail") else {})}

"""Early termination as Azure defines it: an interval is one value of the primary metric that a trial has logged. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable

from ...spec.sweep import BanditPolicy, MedianStoppingPolicy, TruncationSelectionPolicy

Policy = BanditPolicy | MedianStoppingPolicy | TruncationSelectionPolicy
Histories = dict[int, list[float]]
"""Trial → its values of the primary metric in the order they were logged, as losses: less is better."""


def to_stop(policy: Policy, histories: Histories, running: list[int], judged: dict[int, int], sign: float = 1.0) -> dict[int, str]:
    """Which of the running trials end now, and why. `judged` maps a trial to the interval up to which it was compared; it is updated.
    `sign` makes the metric of a loss, for the reasons: -1 where the metric is maximized."""
    every = max(1, policy.evaluation_interval)
    ended: dict[int, str] = {}
    for trial in running:
        history = histories.get(trial, [])
        last = len(history) - len(history) % every
        if last <= judged.get(trial, 0) or last < policy.delay_evaluation:
            continue
        for interval in range(judged.get(trial, 0) + every - judged.get(trial, 0) % every, last + 1, every):
            if interval < policy.delay_evaluation or trial in ended:
                continue
            if why := _worse(policy, histories, trial, interval, sign):
                ended[trial] = f"{policy.type} at interval {interval}: {why}"
        judged[trial] = last
    return ended


def _worse(policy: Policy, histories: Histories, trial: int, interval: int, sign: float) -> str:
    others = {other: values[:interval] for other, values in histories.items() if len(values) >= interval}
    own = _best(others[trial])
    shown = _shown(own, sign)
    if isinstance(policy, BanditPolicy):
        allowed = _allowed(policy, min(_best(values) for values in others.values()))
        return f"{shown} is outside {_shown(allowed, sign)}" if own > allowed else ""
    if isinstance(policy, MedianStoppingPolicy):
        median = statistics.median(_averages(others.values()) or [own])
        return f"{shown} is worse than the median {_shown(median, sign)}" if own > median else ""
    ranked = sorted(_best(values) for values in others.values())
    # In whole numbers: as a float, 30 % of ten trials are a little more than three.
    remaining = len(ranked) - len(ranked) * policy.truncation_percentage // 100
    return f"{shown} is among the worst {policy.truncation_percentage}%" if own > ranked[remaining - 1] else ""


def _shown(loss: float, sign: float) -> str:
    return f"{sign * loss + 0.0:.6g}"  # + 0.0: there is no -0


def _allowed(policy: BanditPolicy, best: float) -> float:
    """The largest loss within the slack."""
    if policy.slack_amount:
        return best + policy.slack_amount
    # A factor of the best value: losses of a maximized metric are negative, so the allowance goes towards zero.
    return best * (1 + policy.slack_factor) if best >= 0 else best / (1 + policy.slack_factor)


def _best(values: list[float]) -> float:
    return min(_numbers(values), default=math.inf)


def _averages(histories: Iterable[list[float]]) -> list[float]:
    """The running average of each trial that has logged a number."""
    return [statistics.fmean(numbers) for values in histories if (numbers := _numbers(values))]


def _numbers(values: list[float]) -> list[float]:
    """What is no NaN, within the bound."""
    return [max(-_BOUND, min(value, _BOUND)) for value in values if not math.isnan(value)]


_BOUND = 1e300
"""Sums of values within it are finite. MLflow stores an infinite metric as the largest float, two of which are too much."""

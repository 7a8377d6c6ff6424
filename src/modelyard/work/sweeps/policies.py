"""Early termination as Azure defines it: an interval is one value of the primary metric that a trial has logged. Pure."""

from __future__ import annotations

import math
import statistics

from ...spec.sweep import BanditPolicy, MedianStoppingPolicy, TruncationSelectionPolicy

Policy = BanditPolicy | MedianStoppingPolicy | TruncationSelectionPolicy
Histories = dict[int, list[float]]
"""Trial → its values of the primary metric in the order they were logged, as losses: less is better."""


def to_stop(policy: Policy, histories: Histories, running: list[int], judged: dict[int, int]) -> dict[int, str]:
    """Which of the running trials end now, and why. `judged` says up to which interval each was looked at; it is moved on."""
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
            if why := _worse(policy, histories, trial, interval):
                ended[trial] = f"{policy.type} at interval {interval}: {why}"
        judged[trial] = last
    return ended


def _worse(policy: Policy, histories: Histories, trial: int, interval: int) -> str:
    others = {other: values[:interval] for other, values in histories.items() if len(values) >= interval}
    own = _best(others[trial])
    if isinstance(policy, BanditPolicy):
        best = min(_best(values) for values in others.values())
        # A factor of the best value: losses of a maximized metric are negative, so the allowance goes towards zero.
        allowed = best + abs(best) * policy.slack_factor if best >= 0 else best / (1 + policy.slack_factor)
        allowed = best + policy.slack_amount if policy.slack_amount else allowed
        return f"{abs(own):.6g} is outside {abs(allowed):.6g}" if own > allowed else ""
    if isinstance(policy, MedianStoppingPolicy):
        median = statistics.median(statistics.fmean(values) for values in others.values())
        return f"{abs(own):.6g} is worse than the median {abs(median):.6g}" if own > median else ""
    ranked = sorted(_best(values) for values in others.values())
    kept = math.ceil(len(ranked) * (1 - policy.truncation_percentage / 100))
    if kept >= len(ranked) or own <= ranked[max(0, kept - 1)]:
        return ""
    return f"{abs(own):.6g} is among the worst {policy.truncation_percentage}%"


def _best(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return min(known) if known else math.inf

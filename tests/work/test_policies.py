"""Early termination against Azure's definitions, by examples and by an oracle that counts in metrics, not in losses.

The definitions: a policy is applied at every multiple of `evaluation_interval` that is at least `delay_evaluation`, an interval
being one value of the primary metric. Bandit: the best metric so far is outside the slack around the best of all trials.
Median stopping: it is worse than the median of the running averages. Truncation: it is among the worst percentage.
"""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.spec.sweep import BanditPolicy, MedianStoppingPolicy, TruncationSelectionPolicy
from modelyard.work.sweeps.policies import Policy, to_stop

NAN = math.nan


def stopped(policy: Policy, *histories: list[float], maximize: bool = False) -> set[int]:
    """The trials that end when every one is running and looked at for the first time."""
    losses = {number: [-value if maximize else value for value in values] for number, values in enumerate(histories)}
    return set(to_stop(policy, losses, list(losses), {}))


# When a policy is applied


@pytest.mark.parametrize("policy", [BanditPolicy(), MedianStoppingPolicy(), TruncationSelectionPolicy(truncation_percentage=99)])
def test_one_trial_alone_is_never_stopped(policy: Policy) -> None:
    assert stopped(policy, [3.0]) == stopped(policy, [NAN]) == stopped(policy, []) == set()


@pytest.mark.parametrize("interval", [0, 1])
def test_without_an_interval_every_value_is_one(interval: int) -> None:
    assert stopped(BanditPolicy(evaluation_interval=interval), [1.0], [2.0]) == {1}


@pytest.mark.parametrize(("logged", "applied"), [(1, False), (2, False), (3, True), (4, True)])
def test_a_policy_waits_for_a_whole_interval(logged: int, applied: bool) -> None:
    policy = BanditPolicy(evaluation_interval=3)
    assert stopped(policy, [1.0] * 9, [2.0] * logged) == ({1} if applied else set())


@pytest.mark.parametrize(("logged", "applied"), [(4, False), (5, False), (6, True)])
def test_a_policy_is_first_applied_at_the_multiple_that_reaches_the_delay(logged: int, applied: bool) -> None:
    policy = BanditPolicy(evaluation_interval=2, delay_evaluation=5)
    assert stopped(policy, [1.0] * 9, [2.0] * logged) == ({1} if applied else set())


def test_a_delay_that_is_a_multiple_itself_is_applied_at_it() -> None:
    assert stopped(BanditPolicy(evaluation_interval=5, delay_evaluation=5), [1.0] * 5, [2.0] * 5) == {1}


def test_trials_that_have_not_come_as_far_are_not_compared_with() -> None:
    assert stopped(BanditPolicy(evaluation_interval=2), [0.0], [2.0, 2.0]) == set()


def test_a_trial_is_compared_with_what_others_had_at_its_own_interval() -> None:
    slow, later = [5.0, 5.0], [5.0, 5.0, 5.0, 0.0]
    assert stopped(BanditPolicy(evaluation_interval=2), slow, later) == set()
    assert stopped(BanditPolicy(evaluation_interval=4), [*slow, 5.0, 5.0], later) == {0}


def test_several_intervals_that_came_at_once_are_each_looked_at() -> None:
    reasons = to_stop(
        BanditPolicy(evaluation_interval=2), {0: [1.0] * 6, 1: [1.0, 1.0, 1.0, 1.0, 1.0, 1.0], 2: [2.0] * 3 + [0.5] * 3}, [2], {}
    )
    assert reasons == {2: "bandit at interval 2: 2 is outside 1"}


def test_an_interval_is_judged_once() -> None:
    policy, judged = MedianStoppingPolicy(), {0: 0, 1: 0}
    histories = {0: [1.0, 1.0], 1: [1.0, 1.0]}
    assert to_stop(policy, histories, [0, 1], judged) == {} and judged == {0: 2, 1: 2}
    histories[1][1] = 9.0
    assert to_stop(policy, histories, [0, 1], judged) == {}
    histories[1].append(9.0)
    histories[1][0] = 9.0
    histories[0].append(1.0)
    assert set(to_stop(policy, histories, [0, 1], judged)) == {1} and judged == {0: 3, 1: 3}


def test_trials_that_have_ended_are_compared_with_and_not_stopped() -> None:
    histories = {0: [1.0], 1: [9.0], 2: [2.0]}
    assert set(to_stop(BanditPolicy(), histories, [2], {})) == {2}


# Bandit


@pytest.mark.parametrize(("metric", "ends"), [(0.66, True), (0.67, False), (0.8, False), (0.9, False)])
def test_the_slack_factor_divides_a_metric_that_is_maximized(metric: float, ends: bool) -> None:
    """Azure's own example: best 0.8, slack_factor 0.2, so that all below 0.8 / 1.2 = 0.6667 end."""
    assert (1 in stopped(BanditPolicy(slack_factor=0.2), [0.8], [metric], maximize=True)) == ends


@pytest.mark.parametrize(("metric", "ends"), [(0.97, True), (0.95, False), (0.8, False)])
def test_the_slack_factor_multiplies_a_metric_that_is_minimized(metric: float, ends: bool) -> None:
    assert (1 in stopped(BanditPolicy(slack_factor=0.2), [0.8], [metric])) == ends


@pytest.mark.parametrize("maximize", [False, True])
def test_slack_allows_what_is_worse_also_where_metrics_are_negative(maximize: bool) -> None:
    best, near, far = (-10.0, -11.0, -13.0) if maximize else (-10.0, -9.0, -8.0)
    assert stopped(BanditPolicy(slack_factor=0.2), [best], [near], [far], maximize=maximize) == {2}


@pytest.mark.parametrize("maximize", [False, True])
def test_the_slack_amount_is_a_distance(maximize: bool) -> None:
    near, far = (0.75, 0.5) if maximize else (1.25, 1.5)
    assert stopped(BanditPolicy(slack_amount=0.25), [1.0], [near], [far], maximize=maximize) == {2}


def test_a_slack_amount_goes_before_a_slack_factor() -> None:
    assert stopped(BanditPolicy(slack_amount=0.1, slack_factor=9), [1.0], [2.0]) == {1}


@pytest.mark.parametrize(("sign", "reason"), [(1.0, "-2 is outside -5"), (-1.0, "2 is outside 5")])
def test_a_reason_shows_the_metric_as_it_was_logged(sign: float, reason: str) -> None:
    assert to_stop(BanditPolicy(), {0: [-5.0], 1: [-2.0]}, [1], {}, sign) == {1: f"bandit at interval 1: {reason}"}


def test_a_trial_is_judged_by_its_best_value_and_not_by_its_last() -> None:
    assert stopped(BanditPolicy(evaluation_interval=3), [1.0, 1.0, 1.0], [1.0, 7.0, 7.0]) == set()


@pytest.mark.parametrize("policy", [BanditPolicy(), MedianStoppingPolicy(), TruncationSelectionPolicy(truncation_percentage=50)])
def test_trials_that_are_equal_all_go_on(policy: Policy) -> None:
    assert stopped(policy, *[[4.0, 4.0]] * 5) == stopped(policy, *[[0.1] * 10] * 5) == set()


# Median stopping


def test_the_median_is_one_of_running_averages() -> None:
    averages_2_4_6 = ([3.0, 1.0], [4.0, 4.0], [5.0, 7.0])
    assert stopped(MedianStoppingPolicy(evaluation_interval=2), *averages_2_4_6) == {2}
    assert stopped(MedianStoppingPolicy(evaluation_interval=2), *averages_2_4_6, maximize=True) == {0}


def test_of_two_trials_the_median_lies_between() -> None:
    assert stopped(MedianStoppingPolicy(), [1.0], [2.0]) == {1}


# Truncation selection


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7, 10, 20, 50])
def test_truncation_ends_the_worst_percentage_rounded_down(count: int) -> None:
    for percentage in range(1, 100):
        ended = stopped(TruncationSelectionPolicy(truncation_percentage=percentage), *[[float(number)] for number in range(count)])
        assert ended == set(range(count - count * percentage // 100, count)), percentage


def test_truncation_never_ends_the_best_trial() -> None:
    assert 0 not in stopped(TruncationSelectionPolicy(truncation_percentage=99), *[[float(number)] for number in range(500)])


# Values that are not numbers


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize(
    "policy", [BanditPolicy(slack_factor=0.5), BanditPolicy(), MedianStoppingPolicy(), TruncationSelectionPolicy(truncation_percentage=34)]
)
def test_a_trial_that_logs_nothing_but_nan_is_the_worst(policy: Policy, maximize: bool) -> None:
    assert stopped(policy, [2.0], [2.0], [NAN], maximize=maximize) == {2}


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2)])
def test_a_nan_among_numbers_is_passed_over(order: tuple[int, ...]) -> None:
    """A NaN among the running averages would make the median depend on the order of the trials."""
    values = {0: [1.0, NAN], 1: [2.0, 2.0], 2: [NAN, NAN], 3: [3.0, 3.0]}
    policy = MedianStoppingPolicy(evaluation_interval=2)
    assert set(to_stop(policy, {number: values[number] for number in order}, list(order), {})) == {2, 3}


@pytest.mark.parametrize("policy", [BanditPolicy(), MedianStoppingPolicy(), TruncationSelectionPolicy(truncation_percentage=50)])
def test_where_no_trial_has_a_number_none_is_stopped(policy: Policy) -> None:
    assert stopped(policy, [NAN], [NAN], [NAN]) == set()


LARGEST = 1.7976931348623157e308
"""What an infinite metric is stored as, as in MLflow."""


@pytest.mark.parametrize("diverged", [[LARGEST, LARGEST, LARGEST], [math.inf, math.inf, math.inf], [math.inf, -math.inf, NAN]])
def test_a_trial_that_diverged_is_judged_like_any_other(diverged: list[float]) -> None:
    policy = MedianStoppingPolicy(evaluation_interval=3)
    reached_the_best = -math.inf in diverged  # its best value counts
    assert (2 in stopped(policy, [1.0] * 3, [1.0] * 3, diverged)) == (not reached_the_best)
    assert stopped(policy, diverged, diverged, diverged) == set()


# A whole sweep, value by value


def oracle(policy: Policy, metrics: dict[int, list[int]], trial: int, interval: int, maximize: bool) -> bool:
    """Whether Azure's definition ends this trial at this interval, in exact numbers of the metric itself."""
    if interval % max(1, policy.evaluation_interval) or interval < policy.delay_evaluation:
        return False
    at = {other: values[:interval] for other, values in metrics.items() if len(values) >= interval}
    best = max if maximize else min
    own, top = best(at[trial]), best(value for values in at.values() for value in values)
    if isinstance(policy, BanditPolicy):
        slack = Fraction(policy.slack_amount)
        if not slack:
            worse = 1 / (1 + Fraction(policy.slack_factor)) if maximize == (top > 0) else 1 + Fraction(policy.slack_factor)
            slack = abs(top * worse - top)
        return abs(own - top) > slack
    if isinstance(policy, MedianStoppingPolicy):
        averages = sorted(Fraction(sum(values), len(values)) for values in at.values())
        low, high = averages[(len(averages) - 1) // 2], averages[len(averages) // 2]
        median = (low + high) / 2
        return own < median if maximize else own > median
    better = sum((best(values) > own) if maximize else (best(values) < own) for values in at.values())
    return better >= len(at) - len(at) * policy.truncation_percentage // 100


intervals = {"evaluation_interval": st.integers(0, 3), "delay_evaluation": st.integers(0, 4)}
slacks = st.sampled_from([0.0, 0.25, 0.5, 1.0])
policies = st.one_of(
    st.builds(BanditPolicy, slack_factor=slacks, slack_amount=slacks, **intervals),
    st.builds(MedianStoppingPolicy, **intervals),
    st.builds(TruncationSelectionPolicy, truncation_percentage=st.integers(1, 99), **intervals),
)


@given(policies, st.booleans(), st.lists(st.tuples(st.integers(0, 5), st.integers(-6, 6)), max_size=40))
@settings(max_examples=200)
def test_a_sweep_ends_the_trials_that_the_definitions_end(policy: Policy, maximize: bool, logged: list[tuple[int, int]]) -> None:
    metrics: dict[int, list[int]] = {number: [] for number in range(6)}
    judged: dict[int, int] = {}
    running = list(metrics)
    for trial, value in logged:
        if trial not in running:
            continue
        metrics[trial].append(value)
        losses = {number: [float(-item if maximize else item) for item in values] for number, values in metrics.items()}
        ended = set(to_stop(policy, losses, running, judged))
        expected = {trial} if oracle(policy, metrics, trial, len(metrics[trial]), maximize) else set()
        assert ended == expected
        running = [number for number in running if number not in ended]


@given(policies, st.lists(st.lists(st.integers(-9, 9), min_size=4, max_size=4), min_size=2, max_size=6), st.permutations(range(6)))
@settings(max_examples=200)
def test_the_order_of_the_trials_decides_nothing(policy: Policy, values: list[list[int]], order: list[int]) -> None:
    histories = {number: [float(value) for value in row] for number, row in enumerate(values)}
    shuffled = [number for number in order if number in histories]
    one = to_stop(policy, histories, list(histories), {})
    other = to_stop(policy, {number: histories[number] for number in shuffled}, shuffled, {})
    assert one == other


@given(
    st.lists(st.integers(1, 99), min_size=2, max_size=5, unique=True).map(sorted), st.lists(st.integers(-50, 50), min_size=2, max_size=30)
)
@settings(max_examples=100)
def test_a_larger_percentage_ends_no_fewer_trials(percentages: list[int], values: list[int]) -> None:
    ended = [
        stopped(TruncationSelectionPolicy(truncation_percentage=percentage), *[[float(value)] for value in values])
        for percentage in percentages
    ]
    assert all(fewer <= more for fewer, more in pairwise(ended))

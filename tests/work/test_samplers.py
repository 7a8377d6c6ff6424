"""Points of search spaces, against SciPy's distributions and Sobol sequence and Optuna's estimator."""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from modelyard.core.errors import Invalid
from modelyard.spec.sweep import Choice, Randint, SamplingAlgorithm, Space, Uniform, distribution
from modelyard.work.sweeps.search import Tried, dimensions, grid_size, propose, sobol, value_at

RANDOM = SamplingAlgorithm(type="random")
BAYESIAN = SamplingAlgorithm(type="bayesian")
GRID = SamplingAlgorithm(type="grid")


def space(**parts: dict[str, Any]) -> dict[str, Space]:
    return {name: distribution(part) for name, part in parts.items()}


def values(part: dict[str, Any], count: int, seed: str = "7", **algorithm: Any) -> list[Any]:
    """What the trials of a sweep over one dimension are given."""
    sampler = SamplingAlgorithm(type="random", **algorithm)
    return [proposed(space(x=part), sampler, number, seed)["x"] for number in range(count)]


def proposed(parts: dict[str, Space], algorithm: SamplingAlgorithm, number: int, seed: str = "7", tried: Any = ()) -> dict[str, Any]:
    proposal = propose(parts, algorithm, seed, number, tried)
    assert proposal is not None
    return proposal[1]


# Distributions

LEAST = 0.001
"""The probability under which a sample is no sample of the distribution. Seeds are fixed: a test that passes goes on to pass."""
DRAWS = 2000

CONTINUOUS = [
    ({"type": "uniform", "min_value": -2, "max_value": 5}, {}, stats.uniform(-2, 7)),
    ({"type": "loguniform", "min_value": -6, "max_value": 2}, {}, stats.loguniform(math.exp(-6), math.exp(2))),
    ({"type": "loguniform", "min_value": -6, "max_value": 2}, {"logbase": 10}, stats.loguniform(1e-6, 1e2)),
    ({"type": "loguniform", "min_value": -6, "max_value": 2}, {"logbase": "2"}, stats.loguniform(2**-6, 4)),
    ({"type": "normal", "mu": 10, "sigma": 3}, {}, stats.norm(10, 3)),
    ({"type": "lognormal", "mu": 0.5, "sigma": 0.75}, {}, stats.lognorm(0.75, scale=math.exp(0.5))),
    ({"type": "lognormal", "mu": 0.5, "sigma": 0.75}, {"logbase": 10}, stats.lognorm(0.75 * math.log(10), scale=10**0.5)),
]
STEPPED = [
    ({"type": "quniform", "min_value": 0, "max_value": 10, "q": 2}, stats.uniform(0, 10)),
    ({"type": "quniform", "min_value": -1, "max_value": 1, "q": 0.25}, stats.uniform(-1, 2)),
    ({"type": "qloguniform", "min_value": 0, "max_value": 4, "q": 5}, stats.loguniform(1, math.exp(4))),
    ({"type": "qnormal", "mu": 10, "sigma": 3, "q": 2}, stats.norm(10, 3)),
    ({"type": "qlognormal", "mu": 1, "sigma": 0.5, "q": 1}, stats.lognorm(0.5, scale=math.e)),
]


@pytest.mark.parametrize(("part", "algorithm", "expected"), CONTINUOUS)
def test_a_continuous_distribution_is_scipys(part: dict[str, Any], algorithm: dict[str, Any], expected: Any) -> None:
    drawn = values(part, DRAWS, **algorithm)
    assert stats.kstest(drawn, expected.cdf).pvalue > LEAST
    low, high = expected.support()
    assert low <= min(drawn) and max(drawn) <= high


def test_another_distribution_would_be_noticed() -> None:
    drawn = values({"type": "normal", "mu": 10, "sigma": 3}, DRAWS)
    assert stats.kstest(drawn, stats.norm(10, 3.5).cdf).pvalue < LEAST and stats.kstest(drawn, stats.norm(10.5, 3).cdf).pvalue < LEAST


def counted(drawn: list[Any], shares: dict[Any, float]) -> float:
    """The p-value of counts, those that are expected less than five times taken together."""
    counts = Counter(drawn)
    assert set(counts) <= set(shares)
    often = [value for value, share in shares.items() if share * len(drawn) >= 5]
    seen, expected = [counts[value] for value in often], [shares[value] * len(drawn) for value in often]
    if len(drawn) - sum(expected) > 1e-6:
        seen, expected = [*seen, len(drawn) - sum(seen)], [*expected, len(drawn) - sum(expected)]
    return float(stats.chisquare(seen, expected).pvalue)


@pytest.mark.parametrize(("part", "continuous"), STEPPED)
def test_a_distribution_in_steps_is_the_continuous_one_rounded_to_multiples(part: dict[str, Any], continuous: Any) -> None:
    q = part["q"]
    drawn = values(part, DRAWS)
    steps = range(round(min(drawn) / q) - 50, round(max(drawn) / q) + 50)
    shares = {step * q: float(continuous.cdf((step + 0.5) * q) - continuous.cdf((step - 0.5) * q)) for step in steps}
    assert counted(drawn, {value: share for value, share in shares.items() if share > 0}) > LEAST
    assert {type(value) for value in drawn} == {type(q)}


def test_a_randint_is_each_number_below_its_bound_equally_often() -> None:
    drawn = values({"type": "randint", "upper": 7}, DRAWS)
    assert counted(drawn, dict.fromkeys(range(7), 1 / 7)) > LEAST and {type(value) for value in drawn} == {int}


def test_a_choice_is_each_of_its_values_equally_often() -> None:
    options = ["relu", 3, 0.5, True, None]
    drawn = values({"type": "choice", "values": options}, DRAWS)
    assert counted([repr(value) for value in drawn], {repr(value): 1 / 5 for value in options}) > LEAST


def test_dimensions_are_drawn_independently() -> None:
    parts = space(x={"type": "uniform", "min_value": 0, "max_value": 1}, y={"type": "uniform", "min_value": 0, "max_value": 1})
    drawn = [proposed(parts, RANDOM, number) for number in range(DRAWS)]
    assert abs(stats.pearsonr([item["x"] for item in drawn], [item["y"] for item in drawn]).statistic) < 0.08


bounds = st.tuples(st.integers(-40, 40), st.integers(-40, 40)).map(sorted).filter(lambda pair: pair[0] < pair[1])


@given(bounds, st.sampled_from([0.1, 0.5, 1, 3]), st.floats(0, 1))
def test_every_value_lies_within_its_bounds(pair: list[int], q: float, u: float) -> None:
    low, high = pair
    at = {"x": u}
    assert low <= value_at("x", distribution({"type": "uniform", "min_value": low, "max_value": high}), at) < high
    assert 0 <= value_at("x", Randint(upper=high - low), at) < high - low
    stepped = value_at("x", distribution({"type": "quniform", "min_value": low, "max_value": high, "q": q}), at)
    assert round(low / q) * q <= stepped <= round(high / q) * q and stepped / q == pytest.approx(round(stepped / q))
    assert math.isfinite(value_at("x", distribution({"type": "normal", "mu": low, "sigma": 1}), at))
    assert math.exp(low) * (1 - 1e-12) <= value_at("x", distribution({"type": "loguniform", "min_value": low, "max_value": high}), at)


@pytest.mark.parametrize("base", [1, 0.5, 0, -2, "x", "0"])
def test_a_base_that_is_none_is_refused(base: Any) -> None:
    with pytest.raises(Invalid, match="is not `e` or a number above 1"):
        proposed(space(x={"type": "randint", "upper": 2}), SamplingAlgorithm(type="random", logbase=base), 0)


# Nested choices

NESTED = space(
    model={
        "type": "choice",
        "values": [{"name": "tree", "depth": {"type": "randint", "upper": 4}}, {"name": "line", "l2": {"type": "uniform", "min_value": 1, "max_value": 2}}],
    },
    lr={"type": "uniform", "min_value": 0, "max_value": 1},
)  # fmt: skip


def test_a_nested_choice_has_dimensions_of_its_own() -> None:
    assert dimensions(NESTED) == ["model", "model/0/depth", "model/1/l2", "lr"]


def test_a_mapping_of_a_nested_choice_is_given_as_json_with_its_values_drawn() -> None:
    drawn = [json.loads(proposed(NESTED, RANDOM, number)["model"]) for number in range(100)]
    trees, lines = ([item for item in drawn if item["name"] == name] for name in ("tree", "line"))
    assert {item["depth"] for item in trees} == {0, 1, 2, 3} and all(set(item) == {"name", "depth"} for item in trees)
    assert len({item["l2"] for item in lines}) == len(lines) > 30 and all(1 <= item["l2"] <= 2 for item in lines)


# Seeds


@pytest.mark.parametrize("algorithm", [RANDOM, BAYESIAN])
def test_a_seed_decides_every_point_and_another_seed_others(algorithm: SamplingAlgorithm) -> None:
    tried = [Tried({name: number / 20 for name in dimensions(NESTED)}, float(number)) for number in range(20)]
    one, again, other = ([propose(NESTED, algorithm, seed, number, tried) for number in range(20)] for seed in ("1", "1", "2"))
    assert one == again and not any(left == right for left, right in zip(one, other, strict=True))
    assert len({json.dumps(point) for point, _ in filter(None, one)}) == 20


def test_a_value_is_that_of_its_point() -> None:
    proposal = propose(NESTED, RANDOM, "1", 0, ())
    assert proposal is not None
    point, drawn = proposal
    assert drawn == {name: value_at(name, part, point) for name, part in NESTED.items()}


# Sobol


def test_sobol_points_are_scipys() -> None:
    reference = stats.qmc.Sobol(21, scramble=False, rng=np.random.default_rng(0))
    reference.fast_forward(1)  # the origin is left out
    assert np.array([sobol(number, 21) for number in range(255)]).tolist() == reference.random(255).tolist()


def test_sobol_points_far_out_are_scipys() -> None:
    reference = stats.qmc.Sobol(5, scramble=False, rng=np.random.default_rng(0))
    reference.fast_forward(1_000_001)
    assert sobol(1_000_000, 5) == reference.random(1)[0].tolist()


def test_sobol_spreads_more_evenly_than_chance() -> None:
    parts = {f"x{number}": distribution({"type": "uniform", "min_value": 0, "max_value": 1}) for number in range(6)}
    spread, drawn = (
        [list(proposed(parts, algorithm, number).values()) for number in range(128)]
        for algorithm in (SamplingAlgorithm(type="random", rule="sobol"), RANDOM)
    )
    assert stats.qmc.discrepancy(spread) < stats.qmc.discrepancy(drawn) / 5


def test_sobol_has_a_limit_and_says_it() -> None:
    with pytest.raises(Invalid, match="sobol spreads over 21 dimensions at most, not 22"):
        sobol(0, 22)


# Grid


def test_a_grid_is_every_combination_once_in_the_order_of_the_file() -> None:
    parts = space(
        a={"type": "choice", "values": ["x", "y"]}, b={"type": "randint", "upper": 3},
        c={"type": "quniform", "min_value": 1, "max_value": 9, "q": 4}, d={"type": "qloguniform", "min_value": 0, "max_value": 2, "q": 3},
    )  # fmt: skip
    expected = [dict(zip("abcd", row, strict=True)) for row in itertools.product(["x", "y"], [0, 1, 2], [0, 4, 8], [0, 3, 6])]
    assert grid_size(parts) == len(expected) == 54
    assert [proposed(parts, GRID, number) for number in range(54)] == expected
    assert propose(parts, GRID, "7", 54, ()) is None


def test_a_grid_holds_what_random_sampling_draws() -> None:
    part = {"type": "quniform", "min_value": 0.3, "max_value": 2.2, "q": 0.5}
    counted_out = [proposed(space(x=part), GRID, number)["x"] for number in range(grid_size(space(x=part)))]
    assert set(values(part, 300)) == set(counted_out)


# Bayesian

Objective = Callable[[dict[str, Any]], float]


def sphere(point: dict[str, Any]) -> float:
    return float((point["x"] - 0.7) ** 2 + (point["y"] + 1.3) ** 2)


def branin(point: dict[str, Any]) -> float:
    """Three valleys with a least value of 0.398."""
    x, y = point["x"], point["y"]
    return float((y - 5.1 / (4 * math.pi**2) * x**2 + 5 / math.pi * x - 6) ** 2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10)


def training(point: dict[str, Any]) -> float:
    """As a training has them: a rate over five decades, a kind, a depth."""
    kind = {"a": 0.5, "b": 0.0, "c": 1.0}[point["kind"]]
    return float((math.log10(point["rate"]) + 2.5) ** 2 + kind + 0.1 * abs(point["depth"] - 6))


def square(low: float, high: float) -> dict[str, Any]:
    return {"type": "uniform", "min_value": low, "max_value": high}


OBJECTIVES: list[tuple[Objective, dict[str, Space]]] = [
    (sphere, space(x=square(-5, 5), y=square(-5, 5))),
    (branin, space(x=square(-5, 10), y=square(0, 15))),
    (
        training,
        space(
            rate={"type": "loguniform", "min_value": math.log(1e-5), "max_value": 0},
            kind={"type": "choice", "values": ["a", "b", "c"]},
            depth={"type": "randint", "upper": 12},
        ),
    ),
]
TRIALS, SEEDS = 30, range(20)


def best_of(objective: Objective, parts: dict[str, Space], algorithm: SamplingAlgorithm, seed: int) -> float:
    tried: list[Tried] = []
    for number in range(TRIALS):
        proposal = propose(parts, algorithm, str(seed), number, tried)
        assert proposal is not None
        tried.append(Tried(proposal[0], objective(proposal[1])))
    return min(item.loss for item in tried if item.loss is not None)


def best_of_optuna(objective: Objective, parts: dict[str, Space], seed: int) -> float:
    def suggested(trial: optuna.Trial, name: str, part: Space) -> Any:
        if isinstance(part, Choice):
            return trial.suggest_categorical(name, part.values)
        if isinstance(part, Randint):
            return trial.suggest_int(name, 0, part.upper - 1)
        assert isinstance(part, Uniform)
        if part.type == "loguniform":
            return trial.suggest_float(name, math.exp(part.min_value), math.exp(part.max_value), log=True)
        return trial.suggest_float(name, part.min_value, part.max_value)

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    study.optimize(lambda trial: objective({name: suggested(trial, name, part) for name, part in parts.items()}), n_trials=TRIALS)
    return study.best_value


@pytest.mark.parametrize(("objective", "parts"), OBJECTIVES)
def test_bayesian_sampling_is_as_good_as_optunas_and_far_better_than_chance(objective: Objective, parts: dict[str, Space]) -> None:
    ours = statistics.median(best_of(objective, parts, BAYESIAN, seed) for seed in SEEDS)
    chance = statistics.median(best_of(objective, parts, RANDOM, seed) for seed in SEEDS)
    theirs = statistics.median(best_of_optuna(objective, parts, seed) for seed in SEEDS)
    assert ours <= 1.25 * theirs
    assert ours <= chance / 2


def test_bayesian_sampling_begins_with_chance() -> None:
    tried = [Tried({"x": 0.5}, 1.0)] * 9 + [Tried({"x": 0.5}, None), Tried({"x": 0.5}, math.nan)]
    parts = space(x=square(0, 1))
    drawn = [proposed(parts, BAYESIAN, number, tried=tried)["x"] for number in range(300)]
    assert stats.kstest(drawn, stats.uniform(0, 1).cdf).pvalue > LEAST


def test_bayesian_sampling_seeks_where_it_was_good_and_looks_elsewhere_too() -> None:
    tried = [Tried({"x": (number + 0.5) / 40}, abs((number + 0.5) / 40 - 0.8)) for number in range(40)]
    drawn = [proposed(space(x=square(0, 1)), BAYESIAN, number, tried=tried)["x"] for number in range(200)]
    assert statistics.median(abs(value - 0.8) for value in drawn) < 0.05 and all(0 <= value < 1 for value in drawn)


def test_trials_without_a_number_teach_nothing() -> None:
    tried = [Tried({"x": number / 20}, float(number)) for number in range(20)]
    silent = [Tried({"x": 0.99}, None), Tried({"x": 0.98}, math.nan)]
    parts = space(x=square(0, 1))
    assert propose(parts, BAYESIAN, "1", 22, [*silent, *tried]) == propose(parts, BAYESIAN, "1", 22, tried)


@pytest.mark.parametrize("loss", [5.0, math.inf, -math.inf])
def test_points_that_are_all_alike_and_of_one_loss_are_no_obstacle(loss: float) -> None:
    tried = [Tried(dict.fromkeys(dimensions(NESTED), edge), loss) for edge in (0.0, 1.0) for _ in range(15)]
    assert proposed(NESTED, BAYESIAN, 30, tried=tried).keys() == NESTED.keys()


def test_a_space_of_many_dimensions_is_no_obstacle() -> None:
    wide: dict[str, Space] = {f"c{number}": Choice(values=list(range(50))) for number in range(60)}
    wide |= {f"u{number}": Uniform(type="uniform", min_value=0, max_value=1) for number in range(60)}
    tried = [Tried({name: (number * (index + 1)) % 97 / 97 for index, name in enumerate(wide)}, float(number)) for number in range(15)]
    assert proposed(wide, BAYESIAN, 15, tried=tried).keys() == wide.keys()

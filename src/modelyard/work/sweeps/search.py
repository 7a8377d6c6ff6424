"""Points of a search space. Every dimension is a number from 0 to 1; distributions are its quantiles. Pure.

`random` draws, `sobol` spreads (Joe and Kuo, 2008), `grid` counts, `bayesian` is the tree-structured Parzen estimator
(Bergstra et al., 2011) on the unit cube.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist
from typing import Any

import orjson

from ...core.errors import Invalid
from ...spec.sweep import Choice, Normal, QNormal, QUniform, Randint, SamplingAlgorithm, Space, Uniform, distribution, points_of

Point = dict[str, float]
"""Dimension → where in it, from 0 to 1. A nested choice has dimensions of its own: `model`, `model/0/depth`."""


@dataclass(frozen=True)
class Tried:
    """A point and its loss: less is better. None when its trial has no metric."""

    point: Point
    loss: float | None


def dimensions(space: dict[str, Space]) -> list[str]:
    names: list[str] = []
    for name, inner in space.items():
        names.append(name)
        if isinstance(inner, Choice):
            for index, value in enumerate(inner.values):
                if isinstance(value, dict):
                    nested = {f"{name}/{index}/{key}": distribution(part) for key, part in value.items() if isinstance(part, dict)}
                    names += dimensions(nested)
    return names


def grid_size(space: dict[str, Space]) -> int:
    return math.prod(len(points_of(inner)) for inner in space.values())


def propose(
    space: dict[str, Space], algorithm: SamplingAlgorithm, seed: str, number: int, tried: Sequence[Tried]
) -> tuple[Point, dict[str, Any]] | None:
    """The point of trial `number` and its parameters; None when a grid has no more."""
    base = _base(algorithm)
    if algorithm.type == "grid":
        return _grid(space, number)
    names = dimensions(space)
    rng = random.Random(f"{seed}:{number}")
    if algorithm.type == "random" and algorithm.rule == "sobol":
        point = dict(zip(names, sobol(number, len(names)), strict=True))
    elif algorithm.type == "bayesian":
        point = _parzen(space, names, rng, tried)
    else:
        point = {name: rng.random() for name in names}
    return point, {name: value_at(name, inner, point, base) for name, inner in space.items()}


def _base(algorithm: SamplingAlgorithm) -> float:
    logbase = algorithm.logbase
    if logbase is None or logbase == "e":
        return math.e
    try:
        base = float(logbase)
    except ValueError:
        base = 0
    if base <= 1:
        raise Invalid(f"logbase {logbase!r} is not `e` or a number above 1", code="invalid_logbase")
    return base


def value_at(name: str, space: Space, point: Point, base: float = math.e) -> Any:
    """The value of a dimension. A mapping of a nested choice becomes JSON."""
    u = min(max(point[name], 0.0), 1 - 1e-12)
    if isinstance(space, Choice):
        index = int(u * len(space.values))
        value = space.values[index]
        if not isinstance(value, dict):
            return value
        inner = {
            key: value_at(f"{name}/{index}/{key}", distribution(part), point, base) if isinstance(part, dict) else part
            for key, part in value.items()
        }
        return orjson.dumps(inner).decode()
    if isinstance(space, Randint):
        return int(u * space.upper)
    if isinstance(space, Uniform):
        value = space.min_value + u * (space.max_value - space.min_value)
        return value if space.type == "uniform" else base**value
    if isinstance(space, QUniform):
        value = space.min_value + u * (space.max_value - space.min_value)
        return _rounded(value if space.type == "quniform" else base**value, space.q)
    if isinstance(space, (Normal, QNormal)):
        value = NormalDist(space.mu, space.sigma).inv_cdf(min(max(u, 1e-12), 1 - 1e-12))
        value = base**value if space.type in ("lognormal", "qlognormal") else value
        return _rounded(value, space.q) if isinstance(space, QNormal) else value
    raise AssertionError(space)


def _rounded(value: float, q: float) -> float | int:
    steps = round(value / q)
    return steps * q if isinstance(q, float) and not q.is_integer() else int(steps * q)


def _grid(space: dict[str, Space], number: int) -> tuple[Point, dict[str, Any]] | None:
    if number >= grid_size(space):
        return None
    chosen, remainder = {}, number
    for name, inner in reversed(space.items()):
        values = points_of(inner)
        remainder, index = divmod(remainder, len(values))
        value = values[index]
        chosen[name] = orjson.dumps(value).decode() if isinstance(value, dict) else value
    return {}, dict(reversed(chosen.items()))


# Parzen

_STARTUP = 10
"""Trials that are drawn at random before there is something to learn from."""
_CANDIDATES = 24


def _parzen(space: dict[str, Space], names: list[str], rng: random.Random, tried: Sequence[Tried]) -> Point:
    """Split what was tried into the best tenth and the others; of points near the best, the one least like the others.

    The dimensions of the space are looked at together; those of nested choices, which may not have been used, each by itself.
    """
    known = sorted((item for item in tried if item.loss is not None and not math.isnan(item.loss)), key=lambda item: item.loss or 0.0)
    if len(known) < _STARTUP:
        return {name: rng.random() for name in names}
    cut = min(25, math.ceil(0.1 * len(known)))
    point: Point = {}
    for group in (list(space), *([name] for name in names if name not in space)):
        good, bad = (_Mixture(space, group, [item.point for item in part]) for part in (known[:cut], known[cut:]))
        candidates = [good.draw(rng) for _ in range(_CANDIDATES)]
        ratios = [good.density(candidate) / bad.density(candidate) for candidate in candidates]
        point |= candidates[ratios.index(max(ratios))]
    return point


class _Mixture:
    """A density over the unit cube: the mean of one kernel at each point, and of a wide one for what nobody tried."""

    def __init__(self, space: dict[str, Space], names: list[str], points: list[Point]) -> None:
        self._count = len(points) + 1
        self._axes = {name: _axis(space.get(name), [point[name] for point in points]) for name in names}

    def draw(self, rng: random.Random) -> Point:
        kernel = rng.randrange(self._count)
        return {name: axis.draw(kernel, rng) for name, axis in self._axes.items()}

    def density(self, point: Point) -> float:
        columns = zip(*(axis.densities(point[name]) for name, axis in self._axes.items()), strict=True)
        return sum(map(math.prod, columns)) / self._count


def _axis(inner: Space | None, points: list[float]) -> _Bells | _Weights:
    return _Weights(points, len(inner.values)) if isinstance(inner, Choice) else _Bells(points)


class _Bells:
    """Normal distributions cut off at 0 and 1, as wide as the farther neighbour is away; the last one covers everything."""

    def __init__(self, points: list[float]) -> None:
        ordered = sorted(points)
        gaps = [right - left for left, right in pairwise([0.0, *ordered, 1.0])]
        if len(points) > 1:
            gaps[0] = gaps[-1] = 0.0  # the ends are no neighbours
        least = 1 / min(100, len(points) + 2)
        widths = {point: max(least, *sides) for point, sides in zip(ordered, pairwise(gaps), strict=True)}
        bells = [*(NormalDist(point, widths[point]) for point in points), NormalDist(0.5, 1)]
        self._bells = [(bell, bell.cdf(0), bell.cdf(1)) for bell in bells]

    def draw(self, kernel: int, rng: random.Random) -> float:
        bell, low, high = self._bells[kernel]
        share = min(max(low + rng.random() * (high - low), 1e-12), 1 - 1e-12)
        return min(max(bell.inv_cdf(share), 0.0), 1.0)

    def densities(self, u: float) -> list[float]:
        return [bell.pdf(u) / (high - low) for bell, low, high in self._bells]


class _Weights:
    """For each point, most of the weight on its own value and a little on every other; the last one prefers none."""

    def __init__(self, points: list[float], count: int) -> None:
        little = 1 / (len(points) + 1)
        share = count / (1 + count * little)  # so that equal weights are a density of 1
        self._weights = [[little * share] * count for _ in points] + [[1.0] * count]
        for weights, u in zip(self._weights, points, strict=False):
            weights[self._index(u)] += share

    def _index(self, u: float) -> int:
        count = len(self._weights[-1])
        return min(int(u * count), count - 1)

    def draw(self, kernel: int, rng: random.Random) -> float:
        weights = self._weights[kernel]
        return (rng.choices(range(len(weights)), weights)[0] + 0.5) / len(weights)

    def densities(self, u: float) -> list[float]:
        index = self._index(u)
        return [weights[index] for weights in self._weights]


# Sobol

_DIRECTIONS = (
    # degree, polynomial, initial numbers: Joe and Kuo, new-joe-kuo-6, dimensions 2 to 21
    (1, 0, (1,)), (2, 1, (1, 3)), (3, 1, (1, 3, 1)), (3, 2, (1, 1, 1)), (4, 1, (1, 1, 3, 3)), (4, 4, (1, 3, 5, 13)),
    (5, 2, (1, 1, 5, 5, 17)), (5, 4, (1, 1, 5, 5, 5)), (5, 7, (1, 1, 7, 11, 19)), (5, 11, (1, 1, 5, 1, 1)), (5, 13, (1, 1, 1, 3, 11)),
    (5, 14, (1, 3, 5, 5, 31)), (6, 1, (1, 3, 3, 9, 7, 49)), (6, 13, (1, 1, 1, 15, 21, 21)), (6, 16, (1, 3, 1, 13, 27, 49)),
    (6, 19, (1, 1, 1, 15, 7, 5)), (6, 22, (1, 3, 1, 15, 13, 25)), (6, 25, (1, 1, 5, 5, 19, 61)), (7, 1, (1, 3, 7, 11, 23, 15, 103)),
    (7, 4, (1, 3, 7, 13, 13, 15, 69)),
)  # fmt: skip
_BITS = 32


def sobol(number: int, count: int) -> list[float]:
    """Point `number` (from 0) of the sequence in `count` dimensions, 21 at most; the origin is left out."""
    if count > len(_DIRECTIONS) + 1:
        raise Invalid(f"sobol spreads over {len(_DIRECTIONS) + 1} dimensions at most, not {count}", code="too_many_dimensions")
    gray = (number + 1) ^ ((number + 1) >> 1)
    return [_coordinate(gray, _numbers(index)) for index in range(count)]


def _coordinate(gray: int, numbers: list[int]) -> float:
    value = 0
    for bit in range(_BITS):
        if gray >> bit & 1:
            value ^= numbers[bit]
    return value / float(1 << _BITS)


def _numbers(index: int) -> list[int]:
    if index == 0:
        return [1 << (_BITS - 1 - bit) for bit in range(_BITS)]
    degree, polynomial, initial = _DIRECTIONS[index - 1]
    numbers = [initial[bit] << (_BITS - 1 - bit) for bit in range(degree)]
    for bit in range(degree, _BITS):
        value = numbers[bit - degree] ^ (numbers[bit - degree] >> degree)
        for part in range(1, degree):
            if polynomial >> (degree - 1 - part) & 1:
                value ^= numbers[bit - part]
        numbers.append(value)
    return numbers

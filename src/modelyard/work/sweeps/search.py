"""Points of a search space. Every dimension is a number from 0 to 1; distributions are its quantiles. Pure.

`random` draws, `sobol` spreads (Joe and Kuo, 2008), `grid` counts, `bayesian` is the tree-structured Parzen estimator
(Bergstra et al., 2011) on the unit cube.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import orjson

from ...core.errors import Invalid
from ...spec.sweep import Choice, Normal, QNormal, QUniform, Randint, SamplingAlgorithm, Space, Uniform, distribution, points_of

Point = dict[str, float]
"""Dimension → where in it, from 0 to 1. A nested choice has dimensions of its own: `model`, `model/0/depth`."""


@dataclass(frozen=True)
class Tried:
    """A point and what it came to, as a loss: less is better. None when it came to nothing."""

    point: Point
    loss: float | None


def dimensions(space: dict[str, Space]) -> list[str]:
    found: list[str] = []
    for name, inner in space.items():
        found.append(name)
        if isinstance(inner, Choice):
            for index, value in enumerate(inner.values):
                if isinstance(value, dict):
                    nested = {f"{name}/{index}/{key}": distribution(part) for key, part in value.items() if isinstance(part, dict)}
                    found += dimensions(nested)
    return found


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
    given = algorithm.logbase
    if given is None or given == "e":
        return math.e
    try:
        base = float(given)
    except ValueError:
        base = 0
    if base <= 1:
        raise Invalid(f"logbase {given!r} is not `e` or a number above 1", code="invalid_logbase")
    return base


def value_at(name: str, space: Space, point: Point, base: float = math.e) -> Any:
    """The value of a dimension. A mapping of a nested choice is given as JSON."""
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
    chosen, rest = {}, number
    for name, inner in reversed(space.items()):
        values = points_of(inner)
        rest, index = divmod(rest, len(values))
        value = values[index]
        chosen[name] = orjson.dumps(value).decode() if isinstance(value, dict) else value
    return {}, dict(reversed(chosen.items()))


# Parzen


def _parzen(space: dict[str, Space], names: list[str], rng: random.Random, tried: Sequence[Tried]) -> Point:
    """Split what was tried into the best quarter and the rest; of points near the best, the one least like the rest."""
    known = sorted((item for item in tried if item.loss is not None and not math.isnan(item.loss)), key=lambda item: item.loss or 0.0)
    if len(known) < max(5, len(names)):
        return {name: rng.random() for name in names}
    cut = max(2, math.ceil(0.25 * math.sqrt(len(known)) * 2))
    good, bad = known[:cut], known[cut:]
    point = {}
    for name in names:
        inner = space.get(name)
        if isinstance(inner, Choice) or (isinstance(inner, Randint) and inner.upper <= 20):
            count = len(inner.values) if isinstance(inner, Choice) else inner.upper
            point[name] = _category(rng, count, [item.point[name] for item in good], [item.point[name] for item in bad])
        else:
            point[name] = _near(rng, [item.point[name] for item in good], [item.point[name] for item in bad])
    return point


def _category(rng: random.Random, count: int, good: list[float], bad: list[float]) -> float:
    def weights(points: list[float]) -> list[float]:
        found = [1.0] * count
        for u in points:
            found[min(int(u * count), count - 1)] += 1
        total = sum(found)
        return [weight / total for weight in found]

    like, unlike = weights(good), weights(bad)
    candidates = rng.choices(range(count), like, k=24)
    best = max(candidates, key=lambda index: like[index] / unlike[index])
    return (best + 0.5) / count


def _near(rng: random.Random, good: list[float], bad: list[float]) -> float:
    width = max(0.05, 1 / (1 + len(good)))

    def density(points: list[float], u: float) -> float:
        spread = max(0.05, 1 / (1 + len(points)))
        return (1 + sum(math.exp(-0.5 * ((u - center) / spread) ** 2) / spread for center in points)) / (1 + len(points))

    candidates = []
    for _ in range(24):
        center = rng.choice([*good, rng.random()])
        u = rng.gauss(center, width)
        candidates.append(u if 0 <= u < 1 else rng.random())
    return max(candidates, key=lambda u: density(good, u) / density(bad, u))


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
    found = [initial[bit] << (_BITS - 1 - bit) for bit in range(degree)]
    for bit in range(degree, _BITS):
        value = found[bit - degree] ^ (found[bit - degree] >> degree)
        for part in range(1, degree):
            if polynomial >> (degree - 1 - part) & 1:
                value ^= found[bit - part]
        found.append(value)
    return found

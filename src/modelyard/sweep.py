"""The names of `azure.ai.ml.sweep`: distributions, samplers, policies."""

from __future__ import annotations

from typing import Any

from .spec import sweep as spec
from .spec.sweep import BanditPolicy, MedianStoppingPolicy, SamplingAlgorithm, TruncationSelectionPolicy

Objective, SweepJob, SweepJobLimits = spec.SweepObjective, spec.SweepJob, spec.SweepJobLimits


def Choice(values: list[Any]) -> spec.Choice:
    return spec.Choice(values=values)


def Uniform(min_value: float, max_value: float) -> spec.Uniform:
    return spec.Uniform(type="uniform", min_value=min_value, max_value=max_value)


def LogUniform(min_value: float, max_value: float) -> spec.Uniform:
    return spec.Uniform(type="loguniform", min_value=min_value, max_value=max_value)


def QUniform(min_value: float, max_value: float, q: float) -> spec.QUniform:
    return spec.QUniform(type="quniform", min_value=min_value, max_value=max_value, q=q)


def QLogUniform(min_value: float, max_value: float, q: float) -> spec.QUniform:
    return spec.QUniform(type="qloguniform", min_value=min_value, max_value=max_value, q=q)


def Normal(mu: float, sigma: float) -> spec.Normal:
    return spec.Normal(type="normal", mu=mu, sigma=sigma)


def LogNormal(mu: float, sigma: float) -> spec.Normal:
    return spec.Normal(type="lognormal", mu=mu, sigma=sigma)


def QNormal(mu: float, sigma: float, q: float) -> spec.QNormal:
    return spec.QNormal(type="qnormal", mu=mu, sigma=sigma, q=q)


def QLogNormal(mu: float, sigma: float, q: float) -> spec.QNormal:
    return spec.QNormal(type="qlognormal", mu=mu, sigma=sigma, q=q)


def Randint(upper: int) -> spec.Randint:
    return spec.Randint(upper=upper)


def RandomSamplingAlgorithm(rule: Any = None, seed: int | None = None, logbase: float | str | None = None) -> SamplingAlgorithm:
    return SamplingAlgorithm(type="random", rule=rule, seed=seed, logbase=logbase)


def GridSamplingAlgorithm() -> SamplingAlgorithm:
    return SamplingAlgorithm(type="grid")


def BayesianSamplingAlgorithm() -> SamplingAlgorithm:
    return SamplingAlgorithm(type="bayesian")


__all__ = [
    "BanditPolicy", "BayesianSamplingAlgorithm", "Choice", "GridSamplingAlgorithm", "LogNormal", "LogUniform", "MedianStoppingPolicy", "Normal",
    "Objective", "QLogNormal", "QLogUniform", "QNormal", "QUniform", "RandomSamplingAlgorithm", "Randint", "SweepJob", "SweepJobLimits",
    "TruncationSelectionPolicy", "Uniform",
]  # fmt: skip

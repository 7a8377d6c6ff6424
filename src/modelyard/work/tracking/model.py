"""Records of tracking, and MLflow's limits on them (reference `mlflow-protocol`, sections 2 and 5)."""

from __future__ import annotations

import functools
import math
import posixpath
import re
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, NamedTuple

from ...core.clock import iso
from ...core.errors import Invalid

MAX_KEY = 250
MAX_PARAM = 6000
MAX_TAG = 8000
MAX_EXPERIMENT_NAME = 500
MAX_EXPERIMENT_TAG = 20_000
MAX_BATCH = {"metrics": 1000, "params": 100, "tags": 100, "entities": 1000}
MAX_INT = 2**63
MAX_HISTORY = 2_000_000
"""Points of one metric of one run in one answer."""
MAX_GROUPED = 50_000
"""Runs that are grouped at once."""
MAX_BELOW = 1000
"""Runs below another one that are looked at."""
SYSTEM_METRIC = "system/"
"""Prefix of the metrics that the yard itself measures of a job."""
Point = tuple[int, int, float, bool]
"""Of a metric's history: (step, milliseconds since 1970, value, is NaN)."""
PARENT = "mlflow.parentRunId"
"""The tag with the id of the run that a run belongs to."""
NOTE = "mlflow.note.content"
"""The tag with the text that MLflow shows as the description of a run."""
OUTSIDE_A_RUN = "modelyard.outside_a_run"
"""Sent, and not kept, of a run that MLflow would create for what is logged outside any run (`modelyard_runtime/plugin`)."""
INFINITE = 1.7976931348623157e308
"""How MLflow stores an infinity."""

_KEY = re.compile(r"^[/\w.\- :]*$")
_RUN_ID = re.compile(r"^[a-zA-Z0-9][\w\-]{0,255}$", re.ASCII)
_SPAN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")


@dataclass(slots=True)
class Experiment:
    id: str
    name: str
    artifact_location: str
    lifecycle: str
    created_ms: int
    updated_ms: int
    created_by: str
    """Empty for one from before this was kept, and for `Default`."""
    made_in: str = ""
    tags: dict[str, str] = field(default_factory=dict)


class Metric(NamedTuple):
    """`time_ms` since 1970. A NaN is stored as value 0 with `is_nan`."""

    key: str
    value: float
    time_ms: int
    step: int
    is_nan: bool = False
    model_id: str | None = None
    dataset: str = ""
    """The dataset it was measured on, as `dataset_key` writes it."""

    @property
    def shown(self) -> float:
        return math.nan if self.is_nan else self.value


@dataclass(slots=True)
class Run:
    key: int
    """The database's own short key; never shown."""
    id: str
    experiment_id: str
    name: str
    status: str
    start_ms: int
    """When it was created, until it is started."""
    end_ms: int | None
    lifecycle: str
    user: str
    owner: str
    """The principal that made it."""
    metrics: list[Metric] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    inputs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def parent(self) -> str | None:
        """The run that it hangs under."""
        return self.tags.get(PARENT) or None


@dataclass(frozen=True)
class LoggedModel:
    id: str
    experiment_id: str
    name: str
    run_id: str | None
    model_type: str
    status: str
    status_message: str
    created_ms: int
    updated_ms: int
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: tuple[dict[str, Any], ...] = ()
    owner: str = ""
    """The principal that made it."""


def check_key(what: str, key: object) -> str:
    if not isinstance(key, str) or not key:
        raise Invalid(f"Missing value for required parameter '{what} name'.", code="invalid_key")
    return _check_key(what, key)


@functools.lru_cache(maxsize=8192)
def _check_key(what: str, key: str) -> str:
    """A training loop names the same few keys again and again."""
    if len(key) > MAX_KEY:
        raise Invalid(f"{what} name exceeds the maximum length of {MAX_KEY} characters", code="invalid_key")
    if not _KEY.match(key):
        raise Invalid(
            f"Invalid {what} name: {key[:80]!r}. Names may only contain alphanumerics, underscores (_), dashes (-), periods (.), "
            "spaces ( ), colon(:) and slashes (/).",
            code="invalid_key",
        )
    if posixpath.normpath(key) != key or key.startswith("/") or key == "." or key.startswith(".."):
        raise Invalid(
            f"Invalid {what} name: {key[:80]!r}. Names may be treated as files in certain cases and must be plain paths.",
            code="invalid_key",
        )
    return key


def check_text(what: str, value: object, limit: int) -> str:
    text = "" if value is None else str(value)
    if len(text) > limit:
        raise Invalid(f"{what} had length {len(text)}, which exceeded length limit of {limit}", code="value_too_long")
    if "\x00" in text:
        raise Invalid(f"{what} contains a NUL character", code="invalid_value")
    return text


def dataset_key(name: str | None, digest: str | None) -> str:
    """`name@digest`, `name@`, or nothing."""
    return f"{name}@{digest or ''}" if name else ""


def read_metric(key: object, value: object, time_ms: object, step: object, model_id: str | None = None, dataset: str = "") -> Metric:
    """A metric point as MLflow sends it: NaN and infinities as text or number. Raises Invalid."""
    name = check_key("metric", key)
    number = value if type(value) is float else _number(name, value)
    # One comparison for the common case: a million points pass here an hour.
    if not (type(time_ms) is int and type(step) is int and 0 <= time_ms < MAX_INT and -MAX_INT < step < MAX_INT):
        raise _bad_integer(name, time_ms, step)
    if -INFINITE <= number <= INFINITE:
        return Metric(name, number, time_ms, step, False, model_id, dataset)
    if math.isnan(number):
        return Metric(name, 0.0, time_ms, step, True, model_id, dataset)
    return Metric(name, math.copysign(INFINITE, number), time_ms, step, False, model_id, dataset)


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise _bad_metric(name, value)
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]
    except ValueError:
        raise _bad_metric(name, value) from None


def _bad_integer(name: str, time_ms: object, step: object) -> Invalid:
    for what, integer in (("timestamp", time_ms), ("step", step)):
        if type(integer) is not int or abs(integer) >= MAX_INT:
            return Invalid(
                f"Invalid value {str(integer)[:40]} for parameter '{what}' of metric '{name}': a 64-bit integer is needed",
                code="invalid_metric",
            )
    return Invalid(f"Invalid value {time_ms} for parameter 'timestamp' of metric '{name}': it must not be negative", code="invalid_metric")


def _bad_metric(name: str, value: object) -> Invalid:
    return Invalid(
        f"Got invalid value {str(value)[:40]!r} for metric '{name}'. Please specify value as a valid double.", code="invalid_metric"
    )


def check_run_id(id: object) -> str:
    """Check the form of an id, not whether it exists. Raises Invalid."""
    if not isinstance(id, str) or not 0 < len(id) <= 256 or "\x00" in id:
        raise Invalid(f"Invalid run ID: {str(id)[:80]!r}", code="invalid_run_id")
    return id


def check_new_run_id(id: str) -> str:
    if not _RUN_ID.match(id):
        raise Invalid(f"Invalid run ID: {str(id)[:80]!r}", code="invalid_run_id")
    return id


def check_experiment_name(name: object) -> str:
    if not isinstance(name, str) or not name:
        raise Invalid("Invalid experiment name: it must be a string that is not empty", code="invalid_experiment_name")
    if len(name) > MAX_EXPERIMENT_NAME:
        raise Invalid(f"Experiment name exceeds the maximum length of {MAX_EXPERIMENT_NAME} characters", code="invalid_experiment_name")
    if _SPAN.search(name):
        raise Invalid("Experiment name contains control characters", code="invalid_experiment_name")
    return name


def downsample(points: list[Point], max_points: int) -> list[Point]:
    """At most `max_points` points that keep the first, the last, and the least and greatest value of each stretch."""
    if len(points) <= max_points:
        return points
    if max_points < 4:
        return [points[0], points[-1]][:max_points]
    stretches = (max_points - 2) // 2
    inner = points[1:-1]
    sample = [points[0]]
    for index in range(stretches):
        stretch = inner[len(inner) * index // stretches : len(inner) * (index + 1) // stretches]
        least, greatest = min(stretch, key=itemgetter(2)), max(stretch, key=itemgetter(2))
        sample += [least] if least is greatest else sorted((least, greatest))
    sample.append(points[-1])
    return sample


def sampled_steps(histories: Iterable[list[int]], max_steps: int) -> set[int]:
    """`max_steps` steps spread evenly over all that occur, and the first and last of each history."""
    steps: set[int] = set()
    ends: set[int] = set()
    for history in histories:
        steps.update(history)
        ends.update((history[0], history[-1]) if history else ())
    ordered = sorted(steps)
    if len(ordered) <= max_steps:
        return steps
    return {ordered[index * len(ordered) // max_steps] for index in range(max_steps)} | ends


def in_document(run: Run) -> dict[str, Any]:
    """A run as the native API shows it. A NaN is null."""
    return {
        "run_id": run.id,
        "name": run.name,
        "experiment_id": run.experiment_id,
        "status": run.status,
        "lifecycle": run.lifecycle,
        "user": run.user,
        "start_time": iso(run.start_ms),
        "end_time": iso(run.end_ms),
        "metrics": {point.key: None if point.is_nan else point.value for point in run.metrics},
        "params": run.params,
        "tags": run.tags,
    }


@dataclass
class Group:
    """Runs that agree in `values`; `metrics` maps a name to the values of its runs."""

    values: dict[str, str | None]
    runs: list[str] = field(default_factory=list)
    metrics: dict[str, list[float]] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        return {
            "by": self.values,
            "runs": len(self.runs),
            "metrics": {name: _summary(values) for name, values in self.metrics.items() if values},
            "run_ids": self.runs,
        }


def _summary(values: list[float]) -> dict[str, float | int | None]:
    """`std` is the sample standard deviation; None of a single run."""
    spread = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "std": spread, "min": min(values), "max": max(values), "count": len(values)}


def column_parts(name: str) -> tuple[str, str]:
    """`metrics.loss` as (metrics, loss). Raises Invalid."""
    group, _, key = name.partition(".")
    if group not in ("metrics", "params", "tags") or not key:
        raise Invalid(f"{name!r} is no column of runs; write metrics.NAME, params.NAME or tags.NAME", code="invalid_column")
    return group, key

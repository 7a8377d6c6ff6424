"""What makes a job reproducible from its record, and whether it was: pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ...assets.environments.model import reference_of
from ...spec.inputs import Output
from ...spec.job import CommandJob, Job
from ...spec.properties import JobProperties
from .model import JobRecord

_SEED = re.compile(r"seed|random_state", re.IGNORECASE)
_GIT_TAGS = {
    "mlflow.source.git.commit": "azureml.git.commit", "mlflow.source.git.branch": "azureml.git.branch",
    "mlflow.source.git.repoURL": "azureml.git.repository_uri", "mlflow.source.git.dirty": "azureml.git.dirty",
}  # fmt: skip
Points = dict[str, list[tuple[int, float, bool]]]
"""Metric → (step, value, is NaN) in the order of steps."""


@dataclass(frozen=True)
class Evidence:
    """What a job left behind. Outputs and artifacts: name or path → digest."""

    record: JobRecord
    points: Points
    params: dict[str, str]
    outputs: dict[str, str]
    artifacts: dict[str, str]


def git_tags(spec: Job) -> dict[str, str]:
    """The state of the code's repository, which the client noted as properties, under MLflow's names."""
    git = JobProperties.read(spec.properties).git
    return {tag: git[name] for tag, name in _GIT_TAGS.items() if git.get(name)}


def again(record: JobRecord) -> Job:
    """The job's spec, ready to be submitted under another name."""
    spec = record.spec.model_copy(deep=True)
    spec.name = None
    spec.properties = JobProperties(rerun_of=record.name).over(spec.properties)
    return spec


def pinned(record: JobRecord) -> Any:
    """As `again`, of a job that runs a process, with the versions that its references stood for."""
    spec: Any = again(record)
    noted = record.properties
    if noted.environment is not None:
        spec.environment = reference_of(noted.environment)
    for port, value in spec.inputs.items():
        asset = noted.inputs.get(port, "").split(" ")[0]
        names_asset = value.path is not None and value.path.startswith("azureml:") and "://" not in value.path
        if names_asset and asset.count(":") == 1:
            value.path = f"azureml:{asset}"
    # An output keeps its type and mode; where it lies and what it becomes belong to the first job.
    spec.outputs = {port: Output(type=value.type, mode=value.mode) for port, value in spec.outputs.items()}
    return spec


def compare(first: Evidence, second: Evidence) -> dict[str, Any]:
    differences = [
        *_differing("metric", _shown(first.points), _shown(second.points)),
        *_differing("param", first.params, second.params),
        *_differing("output", first.outputs, second.outputs),
        *_differing("artifact", _without_logs(first.artifacts), _without_logs(second.artifacts)),
    ]
    if first.record.state != second.record.state:
        differences.insert(0, {"kind": "status", "name": "", "first": first.record.state, "second": second.record.state})
    compared = {"metrics": len(_shown(first.points)), "params": len(first.params), "outputs": len(first.outputs)}
    return {
        "first": first.record.name,
        "second": second.record.name,
        "identical": not differences,
        "compared": {**compared, "artifacts": len(_without_logs(first.artifacts))},
        "differences": differences,
        "unpinned": unpinned(first, second),
    }


def _shown(points: Points) -> dict[str, str]:
    """Floats by their hexadecimal digits: equal means bit-identical."""
    return {
        key: "; ".join(f"{step}:{'NaN' if nan else f'{value!r} ({value.hex()})'}" for step, value, nan in history)
        for key, history in points.items()
        if not key.startswith("system/")
    }


def _without_logs(artifacts: dict[str, str]) -> dict[str, str]:
    return {path: digest for path, digest in artifacts.items() if not path.startswith(("user_logs/", "system_logs/"))}


def _differing(kind: str, first: dict[str, str], second: dict[str, str]) -> list[dict[str, Any]]:
    names = [name for name in sorted({*first, *second}) if first.get(name) != second.get(name)]
    return [{"kind": kind, "name": name, "first": _cut(first.get(name)), "second": _cut(second.get(name))} for name in names]


def _cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= 200 else text[:200] + "…"


def unpinned(first: Evidence, second: Evidence) -> list[str]:
    """What could make the two differ although the record says they are the same, a line each."""
    reasons = []
    one, two = first.record, second.record
    spec = one.spec
    inputs = getattr(spec, "inputs", {})
    variables = spec.environment_variables if isinstance(spec, CommandJob) else {}
    chosen = [name for name, value in first.params.items() if value != "None"]  # autologgers log `random_state` also where none is set
    named, command = [*chosen, *inputs, *variables], spec.command if isinstance(spec, CommandJob) else ""
    if not any(_SEED.search(name) for name in named) and not _SEED.search(command):
        reasons.append(
            "seeds: no parameter, input or environment variable names one; pass a seed and set it in random, numpy and the framework"
        )
    if "PYTHONHASHSEED" not in variables:
        reasons.append("hashing: PYTHONHASHSEED is not set, so that the order of sets of texts differs between processes")
    if one.properties.environment_key != two.properties.environment_key:
        reasons.append("environment: the two ran in different locks")
    installed = [", ".join(record.properties.installed or ()) or "nothing" for record in (one, two)]
    if installed[0] != installed[1]:
        reasons.append(f"packages: the command installed {installed[0]}, then {installed[1]}")
    if one.cpus != two.cpus:
        reasons.append(f"threads: {one.cpus} and {two.cpus}")
    machines = [record.properties.machine or {} for record in (one, two)]
    if machines[0] != machines[1]:
        reasons.append(f"hardware: {_machine(machines[0])}, then {_machine(machines[1])}")
    for port, value in inputs.items():
        content = one.properties.inputs.get(port, "")
        if value.path and "sha256:" not in content:
            reasons.append(f"input {port}: the content of {content or value.path} is not kept with the job")
    if one.gpus:
        reasons.append("GPU: kernels may add in any order; ask the framework for deterministic algorithms")
    return reasons


def _machine(described: dict[str, Any]) -> str:
    return ", ".join(str(value) for value in described.values()) or "not recorded"

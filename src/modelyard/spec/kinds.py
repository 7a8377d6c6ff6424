"""From a YAML file to the right spec: the kind follows from `$schema`, else from `type` (reference, section 2)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Union

from pydantic import Field
from typing_extensions import TypeAliasType

from ..core.errors import Invalid, Problem
from ..core.names import nearest
from . import yamlfile
from .batch import BatchEndpoint, PipelineComponentBatchDeployment
from .compute import AmlCompute, LocalCompute
from .data import Data
from .datastore import (
    AzureBlobDatastore,
    AzureDataLakeGen1Datastore,
    AzureDataLakeGen2Datastore,
    AzureFileDatastore,
    HdfsDatastore,
    LocalDatastore,
    OneLakeDatastore,
)
from .environment import Environment
from .fields import S, Spec, from_row, parse
from .job import CommandJob
from .model import Model
from .online import OnlineDeployment, OnlineEndpoint
from .pipeline import COMPONENTS, PipelineComponent, PipelineJob, SweepNode
from .references import is_local
from .schedule import Schedule
from .sweep import SweepJob
from .workspace import Registry, Workspace

NOUNS: dict[str, dict[str, type[Spec]]] = {
    "workspace": {"": Workspace},
    "registry": {"": Registry},
    "datastore": {
        "local": LocalDatastore,
        "azure_blob": AzureBlobDatastore,
        "azure_file": AzureFileDatastore,
        "azure_data_lake_gen1": AzureDataLakeGen1Datastore,
        "azure_data_lake_gen2": AzureDataLakeGen2Datastore,
        "one_lake": OneLakeDatastore,
        "hdfs": HdfsDatastore,
    },
    "data": {"": Data},
    "environment": {"": Environment},
    "model": {"": Model},
    "compute": {"amlcompute": AmlCompute, "local": LocalCompute},
    "job": {"command": CommandJob, "pipeline": PipelineJob, "sweep": SweepJob},
    "component": dict(COMPONENTS),
    "schedule": {"": Schedule},
    "online_endpoint": {"": OnlineEndpoint},
    "online_deployment": {"": OnlineDeployment},
    "batch_endpoint": {"": BatchEndpoint},
    "batch_deployment": {"pipeline": PipelineComponentBatchDeployment},
}
"""noun → value of `type` → spec; the empty type stands for a noun with one spec."""


def _any(noun: str, name: str) -> Any:
    """A noun of whatever type, under one name in the OpenAPI document."""
    return TypeAliasType(name, Annotated[Union[tuple(NOUNS[noun].values())], Field(discriminator="type")])  # noqa: UP007


AnyJob = _any("job", "AnyJob")
AnyComponent = _any("component", "AnyComponent")
AnyDatastore = _any("datastore", "AnyDatastore")
AnyCompute = _any("compute", "AnyCompute")

KNOWN_ELSEWHERE = {
    "component": ("import", "data_transfer"),
    "job": ("automl", "spark", "parallel", "import", "finetuning", "distillation"),
    "batch_deployment": ("model",),
    "compute": ("computeinstance", "kubernetes", "virtualmachine", "synapsespark"),
}
"""Azure's other kinds of a noun: refused by name, not as if they were misspelt."""

_SCHEMA_TYPES = {
    "commandJob": "command",
    "pipelineJob": "pipeline",
    "sweepJob": "sweep",
    "autoMLJob": "automl",
    "sparkJob": "spark",
    "commandComponent": "command",
    "pipelineComponent": "pipeline",
    "parallelComponent": "parallel",
    "sparkComponent": "spark",
    "autoMLComponent": "automl",
    "sweepComponent": "sweep",
    "pipelineComponentBatchDeployment": "pipeline",
    "modelBatchDeployment": "model",
    "batchDeployment": "model",
    "amlCompute": "amlcompute",
    "azureBlob": "azure_blob",
    "azureFile": "azure_file",
    "azureDataLakeGen1": "azure_data_lake_gen1",
    "azureDataLakeGen2": "azure_data_lake_gen2",
}


def build() -> None:
    """Build every schema now: a server answers on several threads, and none of them should be the one that builds."""
    for kinds in NOUNS.values():
        for model in kinds.values():
            model.model_rebuild()


def spec_class(noun: str, data: Any, file: str = "", positions: yamlfile.Positions | None = None) -> type[Spec]:
    """The spec that `data` is meant as. Raises Invalid for a kind that is unknown or not run by this version."""
    kinds = NOUNS[noun]
    if "" in kinds:
        return kinds[""]
    if not isinstance(data, dict):
        return next(iter(kinds.values()))
    written = data.get("type")
    kind = written if isinstance(written, str) else _from_schema(noun, data)
    folded = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind).lower()
    for known, model in kinds.items():
        if folded.replace("_", "") == known.replace("_", ""):
            return model
    line, column = (positions or {}).get(("type",), (1, 1) if positions else (0, 0))
    if folded.replace("_", "") in KNOWN_ELSEWHERE.get(noun, ()):
        message = f"{noun} type {kind!r} is not run by this version of modelyard; it runs {', '.join(kinds)}"
    else:
        message = f"{kind!r} is not a {noun} type{nearest(folded, kinds)}"
    raise Invalid(f"this {noun} cannot be read", code="unknown_kind", problems=(Problem(message, "type", file, line, column),))


def stored_spec(noun: str, document: dict[str, Any], **names: str) -> Any:
    """As `from_row`, of a noun with several kinds. Raises Invalid."""
    return from_row(spec_class(noun, document), document, **names)


def _from_schema(noun: str, data: dict[str, Any]) -> str:
    match = re.search(r"/(\w+)\.schema\.json$", str(data.get("$schema", "")))
    if match and match[1] in _SCHEMA_TYPES:
        return _SCHEMA_TYPES[match[1]]
    if noun == "batch_deployment":
        return "pipeline" if {"component", "job_definition"} & set(data) else "model"
    if noun in ("job", "component"):
        return "pipeline" if "jobs" in data else "sweep" if "trial" in data else "command"
    return next(iter(NOUNS[noun]))


def answered(noun: str, document: dict[str, Any]) -> Any:
    """A noun that a server answered, as the spec of its type."""
    return spec_class(noun, document).answered(document)


MAX_DEPTH = 12
"""Files that name files."""


def load(noun: str, path: Path, overrides: dict[str, Any] | None = None, depth: int = 0) -> Spec:
    """Read the YAML file at `path` as a `noun`; `overrides` are `--set` assignments, dotted names to values."""
    if depth > MAX_DEPTH:
        raise Invalid(f"{path}: files name each other more than {MAX_DEPTH} deep", code="too_deep")
    document = yamlfile.read(path)
    data = document.data if document.data is not None else {}
    if not isinstance(data, dict):
        raise Invalid(f"{path}: a {noun} file holds a mapping of fields, not a {type(data).__name__}", code="invalid_spec")
    for name, value in (overrides or {}).items():
        assign(data, name, value)
    model = spec_class(noun, data, document.file, document.positions)
    spec = parse(model, data, what=noun.replace("_", " "), file=document.file, positions=document.positions)
    spec.settled(path.resolve().parent, document.positions, document.file)
    if isinstance(spec, CommandJob):
        try:
            spec.check_complete()
        except Invalid as error:
            raise spec.located(error) from None
    return with_files(spec, depth)


def component_file(text: object) -> str | None:
    """The path when a step names a file as its component: `file:x.yml`, `./x.yml`, `x.yml`."""
    if not isinstance(text, str) or text.startswith(("azureml:", "yard:")) or "${{" in text:
        return None
    if text.startswith("file:"):
        return text.removeprefix("file://").removeprefix("file:")
    return text if text.endswith((".yml", ".yaml")) and is_local(text) else None


def with_files(spec: S, depth: int = 0) -> S:
    """A pipeline or sweep with the component files it names read and put in their place."""

    def read(text: object, what: str) -> Any:
        file = component_file(text)
        return load("component", spec.base_path / file, depth=depth + 1) if file is not None else None

    if isinstance(spec, Schedule):
        _read_job_file(spec)
    if isinstance(spec, PipelineComponentBatchDeployment):
        if (found := read(spec.component, "component")) is not None:
            spec.component = found
        elif (file := component_file(spec.job_definition)) is not None:
            spec.job_definition = load("job", spec.base_path / file, depth=depth + 1)  # type: ignore[assignment]
    if isinstance(spec, SweepJob) and (found := read(spec.trial, "trial")) is not None:
        spec.trial = found
    if isinstance(spec, PipelineJob) and (found := read(spec.component, "component")) is not None:
        spec.component = found
    for name, node in (spec.jobs if isinstance(spec, (PipelineJob, PipelineComponent)) else {}).items():
        if isinstance(node, SweepNode):
            if (found := read(node.trial, name)) is not None:
                node.trial = found
        elif hasattr(node, "component"):
            if (found := read(node.component, name)) is not None:
                node.component = found
            elif isinstance(node.component, PipelineComponent):
                node.component = with_files(node.component.settled(spec.base_path), depth + 1)
    return spec


def _read_job_file(spec: Schedule) -> None:
    """`create_job: ./pipeline.yml`, or `job: ./pipeline.yml` in it: the job is read now, relative to the schedule's file."""
    file = component_file(spec.create_job.job)
    if file is not None:
        spec._job = load("job", spec.base_path / file)
        spec.create_job.job = spec._job.document()


def assign(data: dict[str, Any], name: str, value: Any) -> None:
    """Set `a.b.c` inside nested mappings and lists (an index is a list position), making mappings on the way."""
    *parents, last = name.split(".")
    current: Any = data
    for part in parents:
        if isinstance(current, list) and part.isdigit() and int(part) < len(current):
            current = current[int(part)]
        elif isinstance(current, dict):
            following = current.get(part)
            if not isinstance(following, (dict, list)):
                following = current[part] = {}
            current = following
        else:
            raise Invalid(f"--set {name}: {part!r} is not inside a mapping", code="invalid_override")
    if isinstance(current, list) and last.isdigit() and int(last) < len(current):
        current[int(last)] = value
    elif isinstance(current, dict):
        current[last] = value
    else:
        raise Invalid(f"--set {name}: {last!r} is not inside a mapping", code="invalid_override")


def override_value(text: str, as_text: bool = False) -> Any:
    """The value of `--set name=VALUE`: JSON where it reads as JSON, else the text itself."""
    if as_text:
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text

"""The nouns, one row each: what the loader, the schema, the routes, the SDK, the commands and the reference pages know of one.

Specs are named and imported when they are used, so that a command that needs none of them starts at once.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .fields import Spec


@dataclass(frozen=True, eq=False)
class Noun:
    name: str
    """As in `load_online_endpoint`; with hyphens the command."""
    plural: str
    summary: str
    """Its line in `yard --help`."""
    about: str
    """What its command says of it."""
    types: Mapping[str, str] = field(default_factory=dict)
    """Value of `type` → `module:class` below `spec`; the empty type is that of a noun with one spec. None of a noun without YAML."""
    columns: tuple[str, ...] = ()
    """Of its list, as a table."""
    versioned: bool = False
    """An asset: versions of a name, which never change."""
    within: str = ""
    """The noun whose resource it belongs to: deployments have an endpoint."""
    collection: str = ""
    """The part of its REST path; the plural, with hyphens, when left out."""
    attribute: str = ""
    """Of `MLClient`; the plural when left out."""
    word: str = ""
    """What messages call it; its name when left out."""
    schemas: Mapping[str, str] = field(default_factory=dict)
    """Name in a `$schema` address → type, where no `type` is written."""
    implied: Mapping[str, str] = field(default_factory=dict)
    """Field → the type that it implies, where neither says it."""
    otherwise: str = ""
    """The type where nothing says it; the first when left out."""
    steps: Mapping[str, str] = field(default_factory=dict)
    """Of jobs: type of a pipeline's step → `module:class`."""
    elsewhere: tuple[str, ...] = ()
    """Azure's other types: refused by name, not as if they were misspelt."""
    access: bool = False
    """About who may do what; the others are about machine learning."""

    def __post_init__(self) -> None:
        for name, value in {"collection": self.plural.replace("_", "-"), "attribute": self.plural, "word": self.title}.items():
            if not getattr(self, name):
                object.__setattr__(self, name, value)

    @property
    def command(self) -> str:
        return self.name.replace("_", "-")

    @property
    def title(self) -> str:
        return self.name.replace("_", " ")

    def spec(self, type_: str) -> type[Spec]:
        """The spec of one value of `type`."""
        spec: type[Spec] = _imported(self.types[type_])
        return spec

    @cached_property
    def specs(self) -> dict[str, type[Spec]]:
        """Value of `type` → spec."""
        return {type_: self.spec(type_) for type_ in self.types}

    @cached_property
    def step_specs(self) -> dict[str, type[Spec]]:
        return {type: _imported(path) for type, path in self.steps.items()}


def _imported(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(f".{module}", __package__), name)


_ROWS = (
    Noun(
        "workspace", "workspaces", "Workspaces.", "Workspaces: the border around a team's things.", {"": "workspace:Workspace"},
        columns=("name", "display_name", "description"),
    ),
    Noun(
        "registry", "registries", "Registries: assets that workspaces share.",
        "Registries: assets that workspaces share, as azureml://registries/NAME/…", {"": "workspace:Registry"},
        columns=("name", "description"),
    ),
    Noun(
        "datastore", "datastores", "Datastores.", "Datastores: named places for files.",
        {
            "local": "datastore:LocalDatastore", "azure_blob": "datastore:AzureBlobDatastore", "azure_file": "datastore:AzureFileDatastore",
            "azure_data_lake_gen1": "datastore:AzureDataLakeGen1Datastore", "azure_data_lake_gen2": "datastore:AzureDataLakeGen2Datastore",
            "one_lake": "datastore:OneLakeDatastore", "hdfs": "datastore:HdfsDatastore",
        },
        columns=("name", "type", "is_default", "description"),
        schemas={
            "azureBlob": "azure_blob", "azureFile": "azure_file", "azureDataLakeGen1": "azure_data_lake_gen1",
            "azureDataLakeGen2": "azure_data_lake_gen2",
        },
    ),
    Noun(
        "compute", "computes", "Compute.", "Compute: where jobs run.",
        {"amlcompute": "compute:AmlCompute", "local": "compute:LocalCompute"},
        columns=("name", "type", "size", "max_instances", "provisioning_state"), attribute="compute", schemas={"amlCompute": "amlcompute"},
        elsewhere=("computeinstance", "kubernetes", "virtualmachine", "synapsespark"),
    ),
    Noun(
        "data", "data", "Data assets.", "Data assets: named, versioned files, folders and tables.", {"": "data:Data"},
        columns=("name", "version", "type", "creation_context.created_at"), versioned=True,
    ),
    Noun(
        "environment", "environments", "Environments.", "Environments: the Python and packages that jobs and deployments run with.",
        {"": "environment:Environment"}, columns=("name", "version", "image", "creation_context.created_at"), versioned=True,
    ),
    Noun(
        "component", "components", "Components.", "Components: steps with typed inputs and outputs, for pipelines and sweeps.",
        {
            "command": "component:CommandComponent", "parallel": "component:ParallelComponent", "pipeline": "pipeline:PipelineComponent",
            "spark": "component:SparkComponent", "sweep": "pipeline:SweepComponent", "automl": "component:AutoMLComponent",
        },
        columns=("name", "version", "type", "display_name", "creation_context.created_at"), versioned=True,
        schemas={
            "commandComponent": "command", "pipelineComponent": "pipeline", "parallelComponent": "parallel", "sparkComponent": "spark",
            "autoMLComponent": "automl", "sweepComponent": "sweep",
        },
        implied={"jobs": "pipeline", "trial": "sweep"}, elsewhere=("import", "datatransfer"),
    ),
    Noun(
        "model", "models", "Models.", "Models: named, versioned files that can be deployed.", {"": "model:Model"},
        columns=("name", "version", "type", "stage", "job_name", "creation_context.created_at"), versioned=True,
    ),
    Noun(
        "job", "jobs", "Jobs.", "Jobs: commands run in an environment, tracked, on data.",
        {"command": "job:CommandJob", "pipeline": "pipeline:PipelineJob", "sweep": "sweep:SweepJob"},
        columns=("name", "status", "creation_context.created_at", "experiment_name", "display_name", "end_time"),
        schemas={
            "commandJob": "command", "pipelineJob": "pipeline", "sweepJob": "sweep", "autoMLJob": "automl", "sparkJob": "spark",
        },
        implied={"jobs": "pipeline", "trial": "sweep"},
        steps={
            "command": "step:CommandNode", "sweep": "step:SweepNode", "parallel": "step:ParallelNode", "pipeline": "step:PipelineNode",
            "if_else": "step:ConditionNode", "do_while": "step:DoWhileNode", "parallel_for": "step:ParallelForNode",
        },
        elsewhere=("automl", "spark", "parallel", "import", "finetuning", "distillation"),
    ),
    Noun(
        "schedule", "schedules", "Schedules.", "Schedules: jobs made at due times, or when something changed.", {"": "schedule:Schedule"},
        columns=("name", "is_enabled", "next_run", "last_run", "last_job"),
        implied={"create_monitor": "monitor", "import_data": "import"}, elsewhere=("monitor", "import"),
    ),
    Noun("run", "runs",
        "Runs: what was tracked.", "Runs: what jobs and MLflow clients have tracked.",
        columns=("run_id", "status", "start_time", "name", "user", "end_time", "experiment_id", "lifecycle"),
    ),
    Noun("experiment", "experiments", "Experiments.", "Experiments: runs under one name.", columns=("id", "name", "lifecycle")),
    Noun("lineage", "lineage", "What things were made of.", "What a thing was made of, and what was made of it."),
    Noun(
        "online_endpoint", "online_endpoints", "Online endpoints.", "Online endpoints: addresses that models answer at.",
        {"": "online:OnlineEndpoint"}, columns=("name", "provisioning_state", "auth_mode", "traffic", "scoring_uri"), word="endpoint",
    ),
    Noun(
        "online_deployment", "online_deployments", "Online deployments.", "Online deployments: models behind an endpoint.",
        {"": "online:OnlineDeployment"}, columns=("name", "provisioning_state", "model", "instance_count"), within="online_endpoint",
        collection="deployments", word="deployment",
    ),
    Noun(
        "batch_endpoint", "batch_endpoints", "Batch endpoints: pipelines behind an address.",
        "Batch endpoints: pipelines that are run by an address.", {"": "batch:BatchEndpoint"},
        columns=("name", "auth_mode", "defaults.deployment_name", "scoring_uri"), word="endpoint",
    ),
    Noun(
        "batch_deployment", "batch_deployments", "Batch deployments.", "Batch deployments: what a batch endpoint runs.",
        {"pipeline": "batch:PipelineComponentBatchDeployment"}, columns=("name", "properties.pipeline", "description"),
        within="batch_endpoint", collection="deployments", word="deployment",
        schemas={"pipelineComponentBatchDeployment": "pipeline", "modelBatchDeployment": "model", "batchDeployment": "model"},
        implied={"component": "pipeline", "job_definition": "pipeline"}, otherwise="model", elsewhere=("model",),
    ),
    Noun(
        "user", "users", "Users, their roles and tokens.", "Users and services, and the roles they hold.",
        columns=("name", "kind", "roles"), access=True,
    ),
    Noun(
        "token", "tokens", "API tokens.", "API tokens.", columns=("id", "workspace", "description", "run", "expires_ms"), access=True,
    ),
    Noun(
        "audit", "audit", "The audit log.", "The audit log: every state change, chained by hash.",
        columns=("seq", "time", "actor", "event", "subject"), access=True,
    ),
)  # fmt: skip
NOT_HERE = {
    "azure_openai_deployment": "azure_openai_deployments", "capability_host": "capability_hosts", "connection": "connections",
    "deployment_template": "deployment_templates", "evaluator": "evaluators", "feature_set": "feature_sets", "feature_store": "feature_stores",
    "feature_store_entity": "feature_store_entities", "index": "indexes", "marketplace_subscription": "marketplace_subscriptions",
    "serverless_endpoint": "serverless_endpoints", "workspace_outbound_rule": "workspace_outbound_rules",
}  # fmt: skip
"""Azure's nouns that this version has not, and their attributes of its client: refused by name, not as if they were misspelt."""
NOUNS: dict[str, Noun] = {noun.name: noun for noun in _ROWS}
"""In the order of `yard --help`."""


def written() -> list[Noun]:
    """The nouns that are written as YAML."""
    return [noun for noun in NOUNS.values() if noun.types]


def noun_of(entity: object) -> Noun | None:
    """The noun of an object, by its class or one that it is derived from."""
    by_class = {f"{__package__}.{path}": noun for noun in written() for path in noun.types.values()}
    names = (f"{kind.__module__}:{kind.__name__}" for kind in type(entity).__mro__)
    return next((by_class[name] for name in names if name in by_class), None)

"""The names of `azure.ai.ml.entities`, so that `from azure.ai.ml.entities import …` becomes `from modelyard.entities import …`."""

from .spec.batch import BatchEndpoint, PipelineComponentBatchDeployment
from .spec.component import CommandComponent, Component, ParallelComponent, ParallelTask, RetrySettings
from .spec.compute import AmlCompute, LocalCompute
from .spec.data import Data
from .spec.datastore import (
    AccountKey,
    AzureBlobDatastore,
    AzureDataLakeGen1Datastore,
    AzureDataLakeGen2Datastore,
    AzureFileDatastore,
    HdfsDatastore,
    LocalDatastore,
    OneLakeDatastore,
    SasToken,
    ServicePrincipal,
)
from .spec.environment import BuildContext, Environment
from .spec.job import CommandJob, CommandJobLimits, JobResourceConfiguration
from .spec.model import Model
from .spec.nouns import written
from .spec.online import (
    CodeConfiguration,
    DataCollector,
    DefaultScaleSettings,
    OnlineDeployment,
    OnlineEndpoint,
    OnlineRequestSettings,
    ProbeSettings,
    TargetUtilizationScaleSettings,
)
from .spec.pipeline import PipelineComponent, PipelineJob
from .spec.schedule import ChangeTrigger, CronTrigger, RecurrencePattern, RecurrenceTrigger, Schedule
from .spec.step import PipelineJobSettings
from .spec.sweep import SweepJob
from .spec.workspace import Registry, Workspace

AccountKeyConfiguration = AccountKey
JobSchedule = Schedule
SasTokenConfiguration = SasToken
ServicePrincipalConfiguration = ServicePrincipal
ManagedOnlineEndpoint = KubernetesOnlineEndpoint = OnlineEndpoint
ManagedOnlineDeployment = KubernetesOnlineDeployment = OnlineDeployment

__all__ = [
    "BatchEndpoint", "ChangeTrigger", "CommandComponent", "Component", "CronTrigger", "JobSchedule", "ParallelComponent", "ParallelTask", "PipelineComponent", "PipelineComponentBatchDeployment",
    "PipelineJob", "PipelineJobSettings", "RecurrencePattern", "RecurrenceTrigger", "RetrySettings", "Schedule", "SweepJob",
    "AccountKeyConfiguration", "AmlCompute", "AzureBlobDatastore", "AzureDataLakeGen1Datastore", "AzureDataLakeGen2Datastore",
    "AzureFileDatastore", "BuildContext", "CodeConfiguration", "CommandJob", "CommandJobLimits", "Data", "DataCollector",
    "DefaultScaleSettings", "Environment", "HdfsDatastore", "JobResourceConfiguration", "KubernetesOnlineDeployment",
    "KubernetesOnlineEndpoint", "LocalCompute", "LocalDatastore", "ManagedOnlineDeployment", "ManagedOnlineEndpoint", "Model",
    "OneLakeDatastore", "OnlineDeployment", "OnlineEndpoint", "OnlineRequestSettings", "ProbeSettings", "Registry", "SasTokenConfiguration",
    "ServicePrincipalConfiguration", "TargetUtilizationScaleSettings", "Workspace",
]  # fmt: skip


def __getattr__(name: str) -> type:
    """The class of a noun of one's own, by the table of nouns."""
    for noun in written():
        for spec in noun.specs.values():
            if spec.__name__ == name:
                return spec
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

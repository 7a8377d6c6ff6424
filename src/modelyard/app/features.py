"""Every feature of a yard, each once, and the foreign dialects it speaks. A new one is a folder with a manifest, and a line here."""

from __future__ import annotations

from ..assets.components.feature import FEATURE as components
from ..assets.data.feature import FEATURE as data
from ..assets.environments.feature import FEATURE as environments
from ..assets.files.feature import FEATURE as files
from ..assets.models.feature import FEATURE as models
from ..assets.references.feature import FEATURE as references
from ..assets.versions.feature import FEATURE as versions
from ..engine.dialect import Dialect
from ..engine.feature import Feature
from ..oversight.cards.feature import FEATURE as cards
from ..oversight.lineage.feature import FEATURE as lineage
from ..serving.batch.feature import FEATURE as batch
from ..serving.online.feature import FEATURE as online
from ..tenancy.access.feature import FEATURE as access
from ..tenancy.audit.feature import FEATURE as audit
from ..tenancy.secrets.feature import FEATURE as secrets
from ..tenancy.workspaces.feature import FEATURE as workspaces
from ..wire.mlflow.dialect import DIALECT as mlflow
from ..work.artifacts.feature import FEATURE as artifacts
from ..work.compute.feature import FEATURE as compute
from ..work.jobs.feature import FEATURE as jobs
from ..work.pipelines.feature import FEATURE as pipelines
from ..work.schedules.feature import FEATURE as schedules
from ..work.sweeps.feature import FEATURE as sweeps
from ..work.traces.feature import FEATURE as traces
from ..work.tracking.feature import FEATURE as tracking

FEATURES: tuple[Feature, ...] = (
    workspaces, access, secrets, audit,
    files, references, versions, data, environments, models, components,
    compute, tracking, traces, artifacts, jobs, sweeps, pipelines, schedules,
    online, batch,
    lineage, cards,
)  # fmt: skip

DIALECTS: tuple[Dialect, ...] = (mlflow,)

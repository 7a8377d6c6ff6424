"""Composing a yard: drivers behind their ports, and the features on top."""

from __future__ import annotations

from collections.abc import Sequence

from ..core import trees
from ..core.addresses import AddressGuard
from ..core.home import Home
from ..drivers.builder.venv import VenvBuilder
from ..drivers.isolation import detect
from ..drivers.objects.layout import LocalLayout
from ..drivers.objects.local import LocalObjects
from ..drivers.replicas.process import ProcessReplicas
from ..drivers.supervisor_client import SupervisorClient
from ..drivers.table import Parts, make_executor
from ..drivers.vault.local import LocalVault
from ..engine.clock import ClockLoop
from ..engine.feature import Composition, Feature
from ..engine.feature import compose as compose_features
from ..engine.loops import Loop
from ..engine.yard import Yard
from ..settings import Settings
from ..spec import loading
from ..storage.database import Database
from .home import node_name


def make_yard(home: Home, settings: Settings, db: Database) -> Yard:
    """The drivers of this machine behind their ports."""
    isolation = detect(home.root, settings.isolation)
    supervisor = SupervisorClient(home.supervisor)
    environments = settings.environments_of(home)
    trees.make(environments, 0o755)
    objects = LocalObjects(home.blobs)
    layout = LocalLayout(objects, home.trees, home.tmp)
    guard = AddressGuard.of_setting(settings.allow_addresses)
    builder = VenvBuilder(
        environments,
        isolation,
        guard=guard,
        extra_pythons=settings.python,
        fetch_pythons=settings.fetch_pythons,
        cache=settings.package_cache,
    )
    parts = Parts(home, settings, supervisor, isolation, objects, layout, builder)
    yard = Yard(
        home=home, settings=settings, db=db, objects=objects, layout=layout, executor=make_executor(settings.executor, parts),
        replicas=ProcessReplicas(supervisor, isolation), builder=builder, vault=LocalVault(home.master_key), node=node_name(home),
        isolation=isolation.name, notices=isolation.notices(), addresses=guard,
    )  # fmt: skip
    loading.build()
    layout.forget_after_boot()
    return yard


def compose(features: Sequence[Feature]) -> Composition:
    """Install the features as those of this process. Fails for a use case that states no permission."""
    composition = compose_features(features)
    composition.check_permissions()
    return composition


def loops_of(composition: Composition, yard: Yard) -> list[Loop]:
    return [ClockLoop(yard), *(loop for feature in composition.features if feature.loops is not None for loop in feature.loops(yard))]

"""Use cases of environments."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import orjson

from ...core.actor import internal, requires
from ...core.errors import Invalid, NotFound
from ...engine.yard import Yard
from ...ports.builder import Built, Lock, Requirements
from ...spec.environment import Environment
from ...spec.properties import EnvironmentProperties, noted
from ...spec.references import AssetRef, asset_ref
from ...spec.unused import unused
from ...storage.unit import Unit
from ...tenancy.workspaces import service as workspaces
from ..references import service as references
from ..versions import service as versions
from ..versions.model import AssetVersion
from . import store
from .model import Wanted, curated, older_than_programs, relaxed, unknown, wanted_by

ANONYMOUS = "CliV2AnonymousEnvironment"


@dataclass(frozen=True)
class Resolved:
    """An environment by its identity, with what is to be installed for it."""

    name: str
    version: str
    wanted: Wanted
    lock: Lock | None

    def __str__(self) -> str:
        return f"{self.name}:{self.version}"


@requires("workspaces/environments/write")
def create(unit: Unit, spec: Environment) -> dict[str, Any]:
    """Make a version. A package list that can never be installed is refused now, not at the first job; an environment that
    needs containers is stored, with a note that nothing runs on it here."""
    try:
        notes = wanted_by(spec).notes
    except Invalid as error:
        if error.code != "containers_unsupported":
            raise
        notes = (f"kept, but no job or deployment can use it here: {error.message}",)
    document = versions.create(unit, "environment", spec.document()).document()
    return noted(_with_notes(document, notes), [*unused(spec), *EnvironmentProperties.check(spec.properties)])


def _with_notes(document: dict[str, Any], notes: tuple[str, ...]) -> dict[str, Any]:
    """What of an environment cannot be had here, among its properties."""
    return {**document, "properties": EnvironmentProperties(notes=list(notes)).over(document.get("properties", {}))} if notes else document


@requires("workspaces/environments/read")
def get(unit: Unit, ref: AssetRef) -> dict[str, Any]:
    version = versions.find(unit, "environment", ref)
    if version is None:
        standard = curated(ref.name)
        if standard is None:
            raise unknown(ref, unit.workspace)
        packages = list(standard.requirements.packages)
        shown = {"name": ref.name, "version": _curated_version(ref), "pip": packages, "tags": {}, "properties": {}}
        return _with_notes(shown, standard.notes)
    document = version.document()
    kept = store.get_lock(unit, version.name, version.version)
    if kept is not None:
        wanted = wanted_by(version.spec)
        document["properties"] = EnvironmentProperties(
            lock=kept.packages, python=kept.python, from_source=list(kept.from_source) or None, notes=[*wanted.notes, *kept.notes] or None,
            relaxed=relaxed(wanted.requirements, kept) or None,
        ).over(document.get("properties", {}))  # fmt: skip
    return document


@requires("workspaces/environments/read")
def list_(unit: Unit, name: str | None, archived: bool | None) -> list[dict[str, Any]]:
    records = versions.list_(unit, "environment", name, archived)
    return [item.document() for item in records if item.name != ANONYMOUS or name == ANONYMOUS]


@requires("workspaces/environments/write")
def update(unit: Unit, ref: AssetRef, changes: dict[str, Any]) -> dict[str, Any]:
    return versions.update(unit, "environment", ref, changes).document()


@requires("workspaces/environments/write")
def set_archived(unit: Unit, name: str, version: str | None, archived: bool) -> None:
    versions.set_archived(unit, "environment", name, version, archived)


@requires("workspaces/environments/build/action")
def to_build(unit: Unit, ref: AssetRef) -> Resolved:
    return _resolve_ref(unit, ref)


@requires("workspaces/environments/build/action")
def to_lock(unit: Unit, spec: Environment) -> Wanted:
    """What a definition asks for. Raises Invalid."""
    return wanted_by(spec)


async def lock(yard: Yard, wanted: Wanted, log: Callable[[str], None]) -> dict[str, Any]:
    """The lock of what `to_lock` found, for people: it is not kept. Raises Invalid with what stands against what."""
    made = await asyncio.to_thread(yard.builder.lock, wanted.requirements, log)
    return {
        "python": made.python,
        "packages": made.packages.splitlines(),
        "from_source": list(made.from_source),
        "relaxed": relaxed(wanted.requirements, made),
        "notes": [*wanted.notes, *made.notes],
        "key": made.key,
    }


@internal
def resolve(unit: Unit, environment: str | Environment) -> Resolved:
    """Find what a job or deployment runs with. An inline definition becomes an anonymous version, once per content.

    Raises NotFound for an unknown name, Invalid for a definition that cannot be built here.
    """
    if isinstance(environment, str):
        return _resolve_ref(unit, asset_ref(environment, "environment"))
    wanted = wanted_by(environment)
    body = {key: value for key, value in environment.document().items() if key not in versions.ANSWERED}
    version = hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]
    if versions.find(unit, "environment", AssetRef(ANONYMOUS, version)) is None:
        versions.create(unit, "environment", {**body, "name": ANONYMOUS, "version": version})
    return Resolved(ANONYMOUS, version, wanted, store.get_lock(unit, ANONYMOUS, version))


def _resolve_ref(unit: Unit, ref: AssetRef) -> Resolved:
    if ref.registry and (shared := _shared(unit, ref)) is not None:
        name = f"registries/{ref.registry}/{shared.name}"
        wanted = wanted_by(shared.spec)
        return Resolved(name, shared.version, wanted, store.get_lock(unit, name, shared.version))
    own = None if ref.registry else versions.find(unit, "environment", ref)
    if own is not None:
        wanted = wanted_by(own.spec)
        return Resolved(own.name, own.version, wanted, store.get_lock(unit, own.name, own.version))
    standard = curated(ref.name)
    if standard is None:
        raise unknown(ref, unit.workspace)
    name, version = f"curated/{ref.name}", _curated_version(ref)
    return Resolved(name, version, standard, store.get_lock(unit, name, version))


def _shared(unit: Unit, ref: AssetRef) -> AssetVersion | None:
    """The version in a registry of this yard. None for what a public registry's curated environments stand for."""
    try:
        registry = workspaces.registry(unit, str(ref.registry))
    except NotFound:
        if curated(ref.name) is not None:
            return None
        raise
    return versions.get(registry, "environment", replace(ref, registry=None))


@requires("workspaces/environments/read")
def share(unit: Unit, ref: AssetRef, registry: str, name: str | None, version: str | None) -> dict[str, Any]:
    """Make the same version in a registry."""
    asset = versions.get(unit, "environment", ref)
    origin = f"azureml://workspaces/{unit.workspace}/environments/{asset.name}/versions/{asset.version}"
    body = {
        **asset.stored, "name": name or asset.name, "version": version or asset.version,
        "properties": EnvironmentProperties(shared_from=origin).over(asset.spec.properties),
    }  # fmt: skip
    return create(workspaces.registry(unit, registry), Environment.model_validate(body))


def _curated_version(ref: AssetRef) -> str:
    return ref.version or "latest"


@internal
def of_model(unit: Unit, version: str, wanted: Wanted) -> Resolved:
    """The environment that an MLflow model describes itself, locked once per content of the model."""
    return Resolved("mlflow-model", version, wanted, store.get_lock(unit, "mlflow-model", version))


@internal
def to_prepare(unit: Unit) -> list[tuple[str, Resolved]]:
    """Environments of registered components that were never built: (workspace, what to build)."""
    unbuilt = []
    for workspace, name, version in references.held_anywhere(unit, "component", "environment"):
        here = unit.at(workspace)
        if store.get_lock(here, name, version) is None:
            try:
                unbuilt.append((workspace, _resolve_ref(here, AssetRef(name.removeprefix("curated/"), version))))
            except (NotFound, Invalid):
                continue
    return unbuilt


@internal
def keep_lock(unit: Unit, resolved: Resolved, lock: Lock) -> None:
    store.put_lock(unit, resolved.name, resolved.version, lock)
    unit.record("environment.locked", str(resolved), key=lock.key)


@internal
def of_programs(unit: Unit, resolved: Resolved) -> Resolved:
    """The same definition on a Python that programs of the runtime run on, with a lock of its own where it asks for an earlier one."""
    requirements = resolved.wanted.requirements
    if not older_than_programs(requirements):
        return resolved
    wanted = replace(resolved.wanted, requirements=replace(requirements, programs=True))
    name = f"programs/{resolved.name}"
    return Resolved(name, resolved.version, wanted, store.get_lock(unit, name, resolved.version))


async def prepare(yard: Yard, workspace: str, resolved: Resolved, log: Callable[[str], None], *, programs: bool = False) -> Built:
    """Lock and build `resolved`, or take the one that is built. The lock is stored, so that the same version stays the same packages.

    `programs`: programs of the runtime run in it, and not commands alone.
    """
    if programs:
        asked = resolved
        resolved = await yard.db.read(lambda unit: of_programs(unit, asked), workspace=workspace)
    for note in resolved.wanted.notes:
        log(note)
    lock = resolved.lock
    if lock is None:
        lock = await asyncio.to_thread(yard.builder.lock, resolved.wanted.requirements, log)
        new_lock = lock
        await yard.db.write(lambda unit: keep_lock(unit, resolved, new_lock), workspace=workspace)
    requirements = resolved.wanted.requirements
    lock = replace(lock, sources=requirements.sources, variables=requirements.variables)
    for note in lock.notes:
        log(note)
    built = yard.builder.find(lock.key)
    if built is None:
        built = await asyncio.to_thread(yard.builder.build, lock, log)
    else:
        log(f"environment {resolved} is built already ({lock.key})")
    return built


async def extended(yard: Yard, workspace: str, resolved: Resolved, packages: tuple[str, ...], log: Callable[[str], None]) -> Built:
    """An environment of its own with further packages beside those of `resolved`, which stay at their versions.

    `resolved` has been prepared. Raises Invalid when the packages do not go together.
    """
    lock = await yard.db.read(lambda unit: store.get_lock(unit, of_programs(unit, resolved).name, resolved.version), workspace=workspace)
    assert lock is not None
    sources = resolved.wanted.requirements.sources
    wanted = Wanted(Requirements((*lock.packages.splitlines(), *packages), lock.python, sources))
    version = hashlib.sha256("\n".join((lock.key, *packages)).encode()).hexdigest()[:32]
    extension = await yard.db.read(
        lambda unit: Resolved("extended", version, wanted, store.get_lock(unit, "extended", version)), workspace=workspace
    )
    return await prepare(yard, workspace, extension, log)

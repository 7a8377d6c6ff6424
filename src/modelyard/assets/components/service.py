"""Use cases of components."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ...core.actor import internal, requires
from ...core.errors import Invalid, NotFound
from ...spec.component import CommandComponent, Component
from ...spec.pipeline import PipelineComponent, SweepComponent
from ...spec.references import AssetRef, DatastorePath, asset_ref, parse_reference
from ...spec.step import SweepNode, component
from ...storage.unit import Unit
from ...tenancy.workspaces import service as workspaces
from ..environments import service as environments
from ..files import service as files
from ..references import service as references
from ..versions import service as versions

MAX_DEPTH = 12


@requires("workspaces/components/versions/write")
def create(unit: Unit, spec: Component) -> dict[str, Any]:
    """Create a version. The components it names are resolved now and stored in it, so that the version never changes its meaning."""
    asset = versions.create(unit, "component", expanded(unit, _with_pinned_code(unit, spec)).document())
    for environment in _environments(spec):
        try:
            resolved = environments.resolve(unit, environment)
        except (NotFound, Invalid):
            continue  # reported when the component is used; the environment may be created until then
        references.hold(unit, "component", f"{asset.name}:{asset.version}", "environment", resolved.name, resolved.version, strong=False)
    return asset.document()


def _environments(spec: Any) -> Iterator[Any]:
    """The environments of everything that a component runs."""
    for part in (spec, getattr(spec, "task", None)):
        environment = getattr(part, "environment", None)
        if environment is not None:
            yield environment
    for node in (getattr(spec, "jobs", None) or {}).values():
        yield from _environments(node)
        for inner in (getattr(node, "component", None), getattr(node, "trial", None)):
            if inner is not None and not isinstance(inner, str):
                yield from _environments(inner)


def _with_pinned_code(unit: Unit, spec: Component) -> Component:
    """The component with its code pinned. Raises Invalid, NotFound when there is no code where it says."""
    parts: tuple[Any, ...] = (spec, getattr(spec, "task", None))
    holder = next((part for part in parts if getattr(part, "code", None) is not None), None)
    if holder is None or spec.type == "spark":
        return spec
    pinned = holder.model_copy(update={"code": str(_pinned_code(unit, holder.code))})
    return pinned if holder is spec else spec.model_copy(update={"task": pinned})


def _pinned_code(unit: Unit, code: str) -> DatastorePath:
    location = parse_reference(code)
    if not isinstance(location, DatastorePath):
        raise Invalid(
            f"code {code!r} is not an uploaded folder", hint="`yard component create` and MLClient upload local code by themselves."
        )
    if not files.files_at(unit, location).files:
        raise NotFound(f"there is nothing at {location}", code="path_not_found")
    return files.pin(unit, location)


@requires("workspaces/components/versions/read")
def get(unit: Unit, ref: AssetRef) -> dict[str, Any]:
    return versions.get(unit, "component", ref).document()


@requires("workspaces/components/versions/read")
def list_(unit: Unit, name: str | None, archived: bool | None) -> list[dict[str, Any]]:
    return [item.document() for item in versions.list_(unit, "component", name, archived)]


@requires("workspaces/components/versions/write")
def update(unit: Unit, ref: AssetRef, changes: dict[str, Any]) -> dict[str, Any]:
    return versions.update(unit, "component", ref, changes).document()


@requires("workspaces/components/versions/write")
def set_archived(unit: Unit, name: str, version: str | None, archived: bool) -> None:
    versions.set_archived(unit, "component", name, version, archived)


@requires("workspaces/components/versions/read")
def share(unit: Unit, ref: AssetRef, registry: str, name: str | None, version: str | None) -> dict[str, Any]:
    """Make the same version in a registry, with the same code."""
    asset = versions.get(unit, "component", ref)
    shared = workspaces.registry(unit, registry)
    body = {**_brought(unit, asset.stored, shared), "name": name or asset.name, "version": version or asset.version}
    return create(shared, component(body))


def _brought(unit: Unit, spec: dict[str, Any], other: Unit) -> dict[str, Any]:
    """The spec with the code of every component in it at a location of the other workspace."""
    body = dict(spec)
    for part in ("task", "trial", "component"):
        if isinstance(body.get(part), dict):
            body[part] = _brought(unit, body[part], other)
    if isinstance(body.get("jobs"), dict):
        body["jobs"] = {name: _brought(unit, node, other) for name, node in body["jobs"].items()}
    code = body.get("code")
    if isinstance(code, str) and isinstance(location := parse_reference(code), DatastorePath):
        body["code"] = str(files.bring(unit, location, other))
    return body


@internal
def resolve(unit: Unit, text: str) -> Component:
    """The component a reference names, whole. Raises NotFound."""
    ref = asset_ref(text, "component")
    if ref.registry:
        shared = workspaces.registry(unit, ref.registry)
        asset = versions.get(shared, "component", replace(ref, registry=None))
        brought: Component = component({**_brought(shared, asset.stored, unit), "name": asset.name, "version": asset.version})
        return brought
    own: Component = versions.get(unit, "component", ref).spec
    return own


@internal
def expanded(unit: Unit, spec: Any, depth: int = 0) -> Any:
    """A pipeline (job or component) with every component it names in place of the reference. Raises NotFound naming the step."""
    if depth > MAX_DEPTH:
        raise Invalid(f"pipelines are nested more than {MAX_DEPTH} deep", code="too_deep")
    if not hasattr(spec, "jobs"):
        return spec
    for name, node in spec.jobs.items():
        named = node.trial if isinstance(node, SweepNode) else getattr(node, "component", None)
        if isinstance(named, str):
            try:
                named = resolve(unit, named)
            except NotFound as error:
                raise NotFound(f"jobs.{name}: {error.message}", code=error.code, hint=error.hint) from None
        if isinstance(named, SweepComponent):
            node = spec.jobs[name] = named.as_step(node)
            named = node.trial
            if isinstance(named, str):
                named = resolve(unit, named)
        if isinstance(named, PipelineComponent):
            named = expanded(unit, named, depth + 1)
        if isinstance(node, SweepNode):
            if isinstance(named, Component):
                if not isinstance(named, CommandComponent):
                    raise Invalid(f"jobs.{name}: a sweep varies a command, not a component of type {named.type}", code="invalid_trial")
                node.trial = named
        elif isinstance(named, Component):
            node.component = named
    return spec

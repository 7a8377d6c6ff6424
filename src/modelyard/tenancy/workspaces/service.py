"""Use cases of workspaces."""

from __future__ import annotations

from ...core.actor import ANY_WORKSPACE, internal, open_to_all, requires
from ...core.errors import Conflict, Forbidden, Invalid, NotFound
from ...core.names import check_name, reserved
from ...engine.feature import composed
from ...spec.properties import WorkspaceProperties, noted
from ...spec.unused import unused
from ...spec.workspace import Workspace
from ...storage.unit import Unit
from . import store
from .model import StorageUse

DEFAULT = "default"


@open_to_all
def list_visible(unit: Unit, kind: str | None = None) -> list[Workspace]:
    """Workspaces, or with `kind` registry the registries."""
    registries = kind == "registry"
    return [
        workspace for workspace in store.list_all(unit) if unit.actor.sees(workspace.name) and (workspace.kind == "registry") == registries
    ]


@internal
def registry(unit: Unit, name: str) -> Unit:
    """The unit of work in a registry. Raises NotFound when there is none, Forbidden when the caller may not read it."""
    workspace = store.get(unit, name)
    if workspace is None or workspace.kind != "registry":
        raise NotFound(
            f"the registry {name} is not on this yard", code="registry_not_found", hint="`yard registry list` shows those there are."
        )
    get(unit.at(name), name)
    return unit.at(name)


@internal
def check_runs(unit: Unit) -> None:
    """Raise Invalid when the unit's workspace is a registry."""
    workspace = store.get(unit, unit.workspace)
    if workspace is not None and workspace.kind == "registry":
        raise Invalid(f"{unit.workspace} is a registry: it holds assets, and nothing runs in it", code="registry_runs_nothing")


@internal
def properties(unit: Unit) -> WorkspaceProperties:
    """Of the unit's workspace."""
    workspace = store.get(unit, unit.workspace)
    return WorkspaceProperties.read(workspace.properties if workspace is not None else {})


@requires("workspaces/read")
def get(unit: Unit, name: str) -> Workspace:
    workspace = store.get(unit, name)
    if workspace is None:
        raise NotFound(f"there is no workspace {name}", hint="`yard workspace list` shows those you can see.")
    use = store.use_of(unit, name)
    return workspace.model_copy(update={"storage_used_bytes": use.used, "storage_quota_bytes": use.quota})


@requires("workspaces/write")
def create_or_update(unit: Unit, spec: Workspace) -> Workspace:
    check_name("workspace", spec.name)
    quota = spec.storage_quota_bytes
    answered_only = ("id", "creation_context", "storage_used_bytes", "storage_quota_bytes")
    spec = Workspace.model_validate({k: v for k, v in spec.document().items() if k not in answered_only})
    notes = [*unused(spec), *WorkspaceProperties.check(spec.properties)]
    spec.properties = WorkspaceProperties.kept(spec.properties)
    earlier = store.get(unit, spec.name)
    if earlier is None and reserved(spec.name or ""):
        raise Invalid(f"{spec.name!r} is the yard's own name and cannot be a workspace's", code="reserved_name")
    if earlier is not None:
        if (earlier.kind == "registry") != (spec.kind == "registry"):
            raise Conflict(f"{spec.name} is a {earlier.kind or 'workspace'}, and names of registries and workspaces are one list")
        store.replace(unit, spec)
        unit.record("workspace.updated", spec.name)
    else:
        store.insert(unit, spec)
        unit.record("workspace.created", spec.name)
    if quota is not None and quota != store.use_of(unit, spec.name).quota:
        _set_quota(unit, spec.name, quota)
    made = get(unit, spec.name)
    made.properties = noted({"properties": made.properties}, notes)["properties"]
    return made


def _set_quota(unit: Unit, name: str, quota: int) -> None:
    """A quota binds the owners of a workspace too: who owns the yard sets it."""
    if not unit.actor.may("locations/updateQuotas/action", ANY_WORKSPACE):
        raise Forbidden(f"only an owner of the yard sets the storage quota of a workspace, that of {name} too", code="quota_not_yours")
    store.set_quota(unit, name, quota)
    unit.record("workspace.quota_set", name, bytes=quota)


@requires("workspaces/delete")
def delete(unit: Unit, name: str) -> None:
    """Only an empty workspace can be deleted. Raises Conflict naming what it holds."""
    get(unit, name)
    if name == DEFAULT:
        raise Conflict("the workspace default cannot be deleted")
    held = contents(unit, name)
    if held:
        raise Conflict(f"workspace {name} still holds {', '.join(held)}", code="workspace_not_empty", hint="Delete those first.")
    # What is left are rows that hold nothing by themselves: tokens, roles, grants of content. A later workspace of this name inherits none.
    for table in composed().workspace_tables:
        store.delete_rows(unit, table, name)
    store.delete(unit, name)
    unit.record("workspace.deleted", name)


@internal
def storage_use(unit: Unit) -> StorageUse:
    """Of the unit's workspace."""
    return store.use_of(unit, unit.workspace)


@internal
def add_storage_use(unit: Unit, bytes: int, *, replaces: bool) -> None:
    """Count what the unit's workspace stores now; `replaces`: other content may have lost its last path by it."""
    if bytes:
        store.add_use(unit, bytes, replaces)
    elif replaces:
        store.mark_stale(unit)


@internal
def set_storage_use(unit: Unit, used: dict[str, int]) -> None:
    """The use of all workspaces, counted anew."""
    for workspace in store.counted(unit):
        store.set_use(unit, workspace, used.get(workspace, 0))


@internal
def set_own_storage_use(unit: Unit, bytes: int) -> None:
    store.set_use(unit, unit.workspace, bytes)


@internal
def set_default_quota(unit: Unit, bytes: int) -> None:
    """The setting `workspace_quota_bytes`, for workspaces without a quota of their own; 0 for none."""
    store.set_quota(unit, ANY_WORKSPACE, bytes or None)


@internal
def is_only(unit: Unit) -> bool:
    """Whether this yard has one workspace, beside registries, in which nothing runs."""
    return sum(workspace.kind != "registry" for workspace in store.list_all(unit)) == 1


@internal
def exists(unit: Unit, name: str) -> bool:
    return store.exists(unit, name)


@internal
def contents(unit: Unit, name: str) -> list[str]:
    """What keeps a workspace from being deleted, as features' manifests say."""
    return [noun for noun, table in composed().holders.items() if store.holds_rows(unit, table, name)]

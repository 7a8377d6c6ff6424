"""Use cases shared by versioned assets. The features that own a kind state the permission."""

from __future__ import annotations

from typing import Any

from ...core.actor import check_made_by, internal, refuse_bound
from ...core.errors import AlreadyExists, Invalid, NotFound
from ...core.names import check_name
from ...spec.fields import with_changes
from ...spec.loading import spec_class
from ...spec.references import AssetRef
from ...storage.unit import Unit
from . import store
from .model import AssetVersion

ANSWERED = ("id", "creation_context", "name", "version", "content")
MUTABLE = ("description", "tags", "properties")


@internal
def create(unit: Unit, kind: str, spec: dict[str, Any], content: str | None = None, seen: str | None = None) -> AssetVersion:
    """Create a version. The same content under the same version again is the same asset; other content is refused.

    `content` is where its files stay as they are, when others may write to its path too; `seen` tells them from later ones, where the
    yard does not keep them.
    """
    name = check_name("asset", str(spec.get("name")), kind)
    version = spec.get("version")
    body = {key: value for key, value in spec.items() if key not in ANSWERED}
    if version is not None:
        check_name("version", version, f"{kind} version")
        earlier = store.get(unit, kind, name, version)
        if earlier is not None:
            return _again(unit, earlier, body, content, seen)
    asset = store.insert(unit, kind, name, version, body, content, seen)
    unit.record(f"{kind}.created", f"{name}:{asset.version}")
    return asset


def _again(unit: Unit, earlier: AssetVersion, body: dict[str, Any], content: str | None, seen: str | None) -> AssetVersion:
    def fixed(spec: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in spec.items() if key not in MUTABLE}

    moved = (earlier.content is not None and content != earlier.content) or (None not in (seen, earlier.seen) and seen != earlier.seen)
    if moved or fixed(earlier.stored) != fixed(body):
        changed = (
            ["content"]
            if moved
            else sorted(key for key in {*earlier.stored, *body} if key not in MUTABLE and earlier.stored.get(key) != body.get(key))
        )
        raise AlreadyExists(
            f"{earlier.kind} {earlier.name}:{earlier.version} exists with another {', '.join(changed)}",
            code="version_exists",
            hint="A version never changes. Leave the version out to make the next one.",
        )
    if earlier.stored == body:
        return earlier
    check_made_by(unit, earlier, f"change a {earlier.kind} version")
    return _replace(unit, earlier, body)


def _replace(unit: Unit, earlier: AssetVersion, body: dict[str, Any]) -> AssetVersion:
    store.set_spec(unit, earlier.kind, earlier.name, earlier.version, body)
    unit.record(f"{earlier.kind}.updated", f"{earlier.name}:{earlier.version}")
    asset = store.get(unit, earlier.kind, earlier.name, earlier.version)
    assert asset is not None
    return asset


@internal
def find(unit: Unit, kind: str, ref: AssetRef) -> AssetVersion | None:
    if ref.version is not None:
        return store.get(unit, kind, ref.name, ref.version)
    if ref.label not in (None, "latest", "default"):
        return None
    return store.latest(unit, kind, ref.name)


@internal
def get(unit: Unit, kind: str, ref: AssetRef) -> AssetVersion:
    """The version `ref` names: by version, or the newest for `@latest` and a plain name. Raises NotFound."""
    asset = find(unit, kind, ref)
    if asset is None:
        shown = str(ref).removeprefix("azureml:")
        known = [item.version for item in store.list_versions(unit, kind, ref.name, None)[:5]]
        hint = f"It has the versions {', '.join(known)}." if known else f"`yard {kind} list` shows what there is."
        raise NotFound(f"there is no {kind} {shown} in workspace {unit.workspace}", code=f"{kind}_not_found", hint=hint)
    return asset


@internal
def list_(unit: Unit, kind: str, name: str | None, archived: bool | None) -> list[AssetVersion]:
    if name is not None:
        return store.list_versions(unit, kind, name, archived)
    return store.list_latest(unit, kind, archived)


@internal
def update(unit: Unit, kind: str, ref: AssetRef, changes: dict[str, Any]) -> AssetVersion:
    """Change description, tags or properties; nothing else of a version changes."""
    earlier = get(unit, kind, ref)
    check_made_by(unit, earlier, f"change a {kind} version")
    fixed = [key for key, value in changes.items() if key not in MUTABLE and key not in ANSWERED and earlier.stored.get(key) != value]
    if fixed:
        raise Invalid(f"{', '.join(fixed)} of a {kind} version cannot change; only {', '.join(MUTABLE)} can")
    mutable = {key: value for key, value in changes.items() if key in MUTABLE}
    body = with_changes(spec_class(kind, earlier.stored), earlier.stored, mutable, name=earlier.name)
    return _replace(unit, earlier, body)


@internal
def set_archived(unit: Unit, kind: str, name: str, version: str | None, archived: bool) -> None:
    if version is None:
        refuse_bound(unit, f"archive all versions of a {kind}")
    elif (asset := store.get(unit, kind, name, version)) is not None:
        check_made_by(unit, asset, f"archive a {kind} version")
    if not store.set_archived(unit, kind, name, version, archived):
        raise NotFound(f"there is no {kind} {name}" + (f":{version}" if version else ""), code=f"{kind}_not_found")
    unit.record(f"{kind}.{'archived' if archived else 'restored'}", name + (f":{version}" if version else ""))

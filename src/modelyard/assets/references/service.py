"""Use cases of references, called by the services whose resources hold or are held."""

from __future__ import annotations

from ...core.actor import internal
from ...core.errors import Conflict
from ...storage.unit import Unit
from . import store

WRITER = "writer"
"""The kind of an asset's hold on the job that wrote it for a pipeline or sweep; that on the run which it comes from is `job`."""


@internal
def hold(unit: Unit, holder_kind: str, holder: str, kind: str, name: str, version: str, *, strong: bool = True) -> None:
    """`holder` uses the resource `kind`, `name`, `version`. A strong hold forbids deleting it; a weak one is for lineage only."""
    store.put(unit, holder_kind, holder, kind, name, version, strong)


@internal
def release(unit: Unit, holder_kind: str, holder: str) -> None:
    store.delete(unit, holder_kind, holder)


@internal
def check_free(unit: Unit, kind: str, name: str, version: str | None = None) -> None:
    """Raise Conflict naming the holders while something holds the resource strongly."""
    holders = [f"{holder_kind} {holder}" for holder_kind, holder, strong in store.of_resource(unit, kind, name, version) if strong]
    if holders:
        resource = f"{kind} {name}" + (f":{version}" if version else "")
        raise Conflict(f"{resource} is used by {', '.join(holders[:5])}", code="in_use", hint="Delete or change that first.")


@internal
def renamed(unit: Unit, kind: str, old: str, new: str) -> None:
    """The holds on a renamed resource, and those that it has itself, follow its new name."""
    store.rename(unit, kind, old, new)


@internal
def held_by(unit: Unit, holder_kind: str, holder: str) -> list[tuple[str, str, str]]:
    """What a resource was created from or uses: (kind, name, version)."""
    return store.of_holder(unit, holder_kind, holder)


@internal
def hold_makers(unit: Unit, kind: str, asset: str, run: str, writer: str | None, *, strong: bool = True) -> None:
    """An asset comes from a run; `writer` is the job that wrote it, where the run is a pipeline or sweep that has taken it over."""
    store.put(unit, kind, asset, "job", run, "", strong)
    if writer is not None:
        store.put(unit, kind, asset, WRITER, writer, "", False)


@internal
def makers_of(unit: Unit, kind: str, asset: str) -> tuple[list[str], list[str]]:
    """The runs that an asset comes from, and the jobs that wrote it for them."""
    held = store.of_holder(unit, kind, asset)
    return [name for kind, name, _ in held if kind == "job"], [name for kind, name, _ in held if kind == WRITER]


@internal
def is_known(unit: Unit, kind: str, name: str, version: str | None) -> bool:
    """Whether a resource uses another or is used by one."""
    holder = f"{name}:{version}" if version else name
    return bool(store.of_holder(unit, kind, holder) or store.of_resource(unit, kind, name, version))


@internal
def held_anywhere(unit: Unit, holder_kind: str, kind: str) -> list[tuple[str, str, str]]:
    """What holders of a kind use, in every workspace: (workspace, name, version)."""
    return store.held_anywhere(unit, holder_kind, kind)


@internal
def holders_of(unit: Unit, kind: str, name: str, version: str | None) -> list[tuple[str, str]]:
    """What was created from a resource or uses it: (kind, name)."""
    return [(holder_kind, holder) for holder_kind, holder, _ in store.of_resource(unit, kind, name, version)]

"""Use cases of secrets. Callers state the permission: a secret belongs to the resource that holds it."""

from __future__ import annotations

from collections.abc import Callable

from ...core.actor import internal
from ...core.errors import NotFound
from ...ports.vault import Vault
from ...storage.unit import Unit
from . import store


@internal
def put(unit: Unit, vault: Vault, name: str, value: str) -> None:
    earlier = store.get(unit, name)
    version = earlier[0] + 1 if earlier else 1
    store.put(unit, name, version, vault.seal(value.encode(), _binding(unit, name, version)))
    unit.record("secret.set", name, version=version)


@internal
def get(unit: Unit, vault: Vault, name: str) -> str:
    row = store.get(unit, name)
    if row is None:
        raise NotFound(f"there is no secret {name}")
    version, sealed = row
    return vault.open(sealed, _binding(unit, name, version)).decode()


@internal
def exists(unit: Unit, name: str) -> bool:
    return store.get(unit, name) is not None


@internal
def delete(unit: Unit, owner: str) -> None:
    """Delete the secret `owner` and every secret below it, `owner/…`."""
    store.delete(unit, owner.rstrip("/"))
    unit.record("secret.deleted", owner.rstrip("/"))


@internal
def reseal(unit: Unit, resealed: Callable[[bytes, str], bytes | None], after: tuple[str, str], limit: int) -> tuple[str, str] | None:
    """Seal the next secrets of all workspaces anew; the position of the last one, None behind the end.

    `resealed(value, bound to)` gives the new value, None for one that stays. `after`: (workspace, name) where the previous call ended.
    """
    rows = store.after(unit, *after, limit)
    for workspace, name, version, sealed in rows:
        value = resealed(sealed, _binding(unit.at(workspace), name, version))
        if value is not None:
            store.replace(unit, workspace, name, value)
    return (rows[-1][0], rows[-1][1]) if rows else None


def _binding(unit: Unit, name: str, version: int) -> str:
    return f"{unit.workspace}/{name}/{version}"

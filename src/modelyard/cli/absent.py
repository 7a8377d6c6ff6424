"""Verbs of `az ml` that this version has not, by noun (its reference of 2026-08-21): refused by name, not as if they were misspelt."""

from __future__ import annotations

VERBS: dict[str, tuple[str, ...]] = {
    "component": ("prepare-for-sign",),
    "compute": (
        "attach", "connect-ssh", "detach", "enable-sso", "list-nodes", "list-sizes", "list-usage", "restart", "start", "stop",
    ),
    "data": ("import", "list-materialization-status", "mount"),
    "datastore": ("mount",),
    "job": ("connect-ssh",),
    "model": ("package",),
    "registry": ("update",),
    "workspace": ("diagnose", "list-keys", "outbound-rule", "provision-network", "sync-keys"),
}  # fmt: skip

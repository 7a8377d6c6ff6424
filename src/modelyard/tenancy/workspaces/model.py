"""What a workspace stores, and how much it may."""

from __future__ import annotations

from dataclasses import dataclass

from ...core.errors import LimitExceeded


@dataclass(frozen=True)
class StorageUse:
    """Bytes. `used` counts equal content once; while `stale` it may be too high, never too low. `quota` is None for none."""

    used: int
    stale: bool
    quota: int | None


def quota_exceeded(workspace: str, quota: int, needed: int) -> LimitExceeded:
    return LimitExceeded(
        f"workspace {workspace} may store {quota:,} bytes, and would have {needed:,}; nothing was stored",
        code="quota_exceeded",
        hint="Delete what is not needed, or ask an owner of the yard for a larger storage_quota_bytes.",
    )

"""Records of steps, and why a step ran."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import orjson

from ...core.clock import iso
from ...spec.states import StepState

INSTALLED = "installed"
"""Part of the record of a result, though not of its content key: what its command installed beside its environment."""


@dataclass
class StepRow:
    """`job` is the one whose outputs are the step's: its own, or the earlier one it was reused from. `step` of an iteration
    is LOOP/NUMBER."""

    step: str
    state: StepState
    job: str | None = None
    tries: int = 0
    detail: dict[str, Any] = field(default_factory=dict)
    started_ms: int | None = None
    ended_ms: int | None = None

    def document(self) -> dict[str, Any]:
        shown = {key: value for key, value in self.detail.items() if key in ("reused_from", "ran_because", "reason", "condition")}
        return {
            "status": self.state, **({"job_name": self.job} if self.job else {}), **shown,
            **({"tries": self.tries} if self.tries > 1 else {}),
            **({"start_time": iso(self.started_ms)} if self.started_ms else {}), **({"end_time": iso(self.ended_ms)} if self.ended_ms else {}),
        }  # fmt: skip


@dataclass(frozen=True)
class Result:
    """The result stored under a content key: the job that has the outputs, and the parts of the key."""

    key: str
    job: str
    parts: dict[str, str]


def content_key(parts: dict[str, str]) -> str:
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()


def changed(before: dict[str, str], now: dict[str, str]) -> str:
    """The differences between two keys: `parameter lr changed 0.1 → 0.2; code changed`."""
    if INSTALLED in before:
        return f"its command installs packages by itself: {before[INSTALLED]}"
    words = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        shown = name.replace("param.", "parameter ").replace("input.", "input ")
        if old is None or new is None:
            words.append(f"{shown} {'is new' if old is None else 'is gone'}")
        elif name.startswith("param.") or name == "environment":
            words.append(f"{shown} changed {old[:60]} → {new[:60]}")
        else:
            words.append(f"{shown} changed")
    return "; ".join(words) or "nothing is known to have changed"

"""What happened: the one record that is both the audit row and the event other features react to (ADR 0002)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    """`topic` is `<noun>.<verb>`, such as `job.submitted`; `subject` the name of the resource; `seq` the order of commit."""

    seq: int
    time_ms: int
    workspace: str
    actor: str
    topic: str
    subject: str
    detail: Mapping[str, Any]

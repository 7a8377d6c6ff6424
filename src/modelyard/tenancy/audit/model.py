"""What is shown of the audit."""

from __future__ import annotations

from typing import Any, NotRequired

from typing_extensions import TypedDict


class AuditEntry(TypedDict):
    """One thing that happened: `event` is `<noun>.<verb>`, `subject` the name of what it happened to, `seq` the order of commit."""

    seq: int
    time: str | None
    actor: str
    event: str
    subject: str
    detail: dict[str, Any]


class AuditCheck(TypedDict):
    """Whether the chain of hashes is whole: how many rows were recomputed, and the first that is not as it was sealed."""

    ok: bool
    checked: int
    head: NotRequired[str]
    first_bad_row: NotRequired[int]

"""Users, roles, tokens and the audit log, as they are sent and answered."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

import msgspec
from typing_extensions import TypedDict


class TokenDocument(TypedDict):
    """What is shown of a token. Times in milliseconds since 1970."""

    id: str
    prefix: str
    workspace: NotRequired[str]
    expires_ms: NotRequired[int]
    created_ms: int
    description: str
    run: NotRequired[str]
    """The job whose token it is, on behalf of its submitter."""


class RevokedTokens(TypedDict):
    revoked: int
    """How many."""


class NewToken(TokenDocument):
    """A token that was just made: `token` is shown this one time."""

    token: str


class PrincipalRequest(msgspec.Struct):
    name: str
    kind: Literal["user", "service"] = "user"


class PrincipalDocument(TypedDict):
    id: str
    name: str
    kind: str


class HeldRole(TypedDict):
    """`workspace` is `*` for all."""

    workspace: str
    role: str


class PrincipalWithRoles(PrincipalDocument):
    roles: list[HeldRole]


class Assignment(TypedDict):
    principal: str
    role: str
    workspace: str


class RoleDefinition(TypedDict, total=False):
    """Azure's custom-role JSON, in the spelling of `az role definition create`; others that Azure uses are read too."""

    Name: str
    Description: str
    Actions: list[str]
    NotActions: list[str]


class RoleDocument(TypedDict):
    name: str
    description: NotRequired[str]
    actions: list[str]
    not_actions: list[str]


class AuditEntry(TypedDict):
    """One thing that happened: `event` is `<noun>.<verb>`, `subject` the name of what it happened to, `seq` the order of commit."""

    seq: int
    time: str | None
    workspace: NotRequired[str]
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
    parts: list[dict[str, Any]]
    """`{from, to, key}`: which rows were sealed with which key; `key` is null for rows from before there were keys."""
    anchors: int
    """How many rows are known outside the database."""
    problems: NotRequired[list[str]]

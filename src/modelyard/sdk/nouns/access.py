from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..resources import Operations

if TYPE_CHECKING:
    from ...spec.access import (
        Assignment,
        AuditCheck,
        AuditEntry,
        NewToken,
        PrincipalDocument,
        PrincipalWithRoles,
        RevokedTokens,
        RoleDefinition,
        RoleDocument,
        TokenDocument,
    )
    from ...spec.answers import Page

API = "/api/v1"
ALL = "*"
"""Every workspace, those to come included."""


class UserOperations(Operations):
    """Users and services, and the roles they hold."""

    def create(self, name: str, *, kind: str = "user") -> PrincipalDocument:
        """`kind` is user or service."""
        user: PrincipalDocument = self._transport.call("POST", f"{API}/principals", body={"name": name, "kind": kind})
        return user

    def list(self) -> Sequence[PrincipalWithRoles]:
        page: Page[PrincipalWithRoles] = self._transport.call("GET", f"{API}/principals")
        return page["value"]

    def delete(self, name: str) -> None:
        """With its tokens and roles."""
        self._transport.call("DELETE", f"{API}/principals/{quote(name)}")

    def assign_role(self, name: str, role: str, *, scope: str = ALL) -> Assignment:
        """`scope` is a workspace, or `*` for all."""
        assigned: Assignment = self._transport.call("PUT", _role(name, role), params={"workspace_name": scope})
        return assigned

    def remove_role(self, name: str, role: str, *, scope: str = ALL) -> None:
        self._transport.call("DELETE", _role(name, role), params={"workspace_name": scope})


def _role(user: str, role: str) -> str:
    return f"{API}/principals/{quote(user)}/roles/{quote(role)}"


class RoleOperations(Operations):
    def list(self) -> Sequence[RoleDocument]:
        page: Page[RoleDocument] = self._transport.call("GET", f"{API}/roles")
        return page["value"]

    def define(self, document: RoleDefinition) -> RoleDocument:
        """A role of one's own, from Azure's role JSON."""
        role: RoleDocument = self._transport.call("POST", f"{API}/roles", body=document)
        return role


class TokenOperations(Operations):
    def create(
        self, *, user: str | None = None, workspace: str | None = None, hours: float | None = None, description: str = ""
    ) -> NewToken:
        """For the caller, or for another `user`. Works for `hours`: twelve when left out, or as long as the caller's own.

        It is shown this one time, and is never wider or more powerful than the token that it is asked for with.
        """
        body: dict[str, Any] = {"principal": user, "workspace": workspace, "description": description}
        token: NewToken = self._transport.call("POST", f"{API}/tokens", body=body if hours is None else {**body, "hours": hours})
        return token

    def list(self, *, user: str | None = None) -> Sequence[TokenDocument]:
        """The caller's own, or those of a `user`; with those of running jobs that the user submitted."""
        page: Page[TokenDocument] = self._transport.call("GET", f"{API}/tokens", params={"principal": user})
        return page["value"]

    def revoke(self, id: str) -> None:
        self._transport.call("DELETE", f"{API}/tokens/{quote(id)}")

    def revoke_all(self, user: str) -> int:
        """End all tokens of a user at once, those of running jobs that the user submitted among them. How many there were."""
        answered: RevokedTokens = self._transport.call("DELETE", f"{API}/tokens", params={"principal": user})
        return answered["revoked"]


class AuditOperations(Operations):
    def list(self, *, subject: str | None = None, max_results: int = 50, scope: str = "") -> Iterator[AuditEntry]:
        """What happened, the newest first: in the workspace, or with `*` as `scope` in all of them and in none (users, roles, tokens, refused sign-ins)."""
        options = {"subject": subject, "limit": min(max_results, 1000)}
        path = f"{API}/audit" if scope == ALL else self._transport.workspace_path("/audit")
        return islice(self._transport.pages(path, options), max_results)

    def verify(self) -> AuditCheck:
        """Recompute the chain of hashes."""
        check: AuditCheck = self._transport.call("GET", f"{API}/audit/verify")
        return check

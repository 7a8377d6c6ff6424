"""`yard user`, `yard token`, `yard audit`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from .options import client, name_option, noun, verb

user = noun("user", "Users and services, and the roles they hold.")
token = noun("token", "API tokens.")
audit = noun("audit", "The audit log: every state change, chained by hash.")


def _call(method: str, path: str, **kwargs: Any) -> Any:
    return client()._transport.call(method, f"/api/v1{path}", **kwargs)


@verb(user, "create", help="Create a user or service.")
@name_option
@click.option("--kind", type=click.Choice(["user", "service"]), default="user")
def create_user(name: str, kind: str) -> Any:
    return _call("POST", "/principals", body={"name": name, "kind": kind})


@verb(user, "list", columns=("name", "kind", "roles"), help="List users with their roles.")
def list_users() -> Any:
    return _call("GET", "/principals")["value"]


@verb(user, "delete", help="Delete a user with its tokens and roles.")
@name_option
def delete_user(name: str) -> None:
    _call("DELETE", f"/principals/{name}")


@verb(user, "assign-role", help="Give a role, in one workspace or (without --scope) in all.")
@name_option
@click.option("--role", required=True)
@click.option("--scope", default="*", help="Workspace.")
def assign(name: str, role: str, scope: str) -> Any:
    return _call("PUT", f"/principals/{name}/roles/{role}", params={"workspace_name": scope})


@verb(user, "remove-role", help="Take a role away.")
@name_option
@click.option("--role", required=True)
@click.option("--scope", default="*", help="Workspace.")
def remove(name: str, role: str, scope: str) -> None:
    _call("DELETE", f"/principals/{name}/roles/{role}", params={"workspace_name": scope})


@verb(user, "list-roles", columns=("name", "description"), help="List the roles there are.")
def list_roles() -> Any:
    return _call("GET", "/roles")["value"]


@verb(user, "define-role", help="Load a custom role from Azure's role JSON.")
@click.option("-f", "--file", "file", required=True, type=click.Path(exists=True, dir_okay=False))
def define_role(file: str) -> Any:
    return _call("POST", "/roles", body=json.loads(Path(file).read_text()))


@verb(token, "create", help="Make a token; it is shown this one time.")
@click.option("-n", "--name", help="For this user instead of yourself.")
@click.option("--scope", help="Only for this workspace.")
@click.option("--hours", type=float, help="How long it works; 12, or as long as your own.")
@click.option("--description", default="")
def create_token(name: str | None, scope: str | None, hours: float | None, description: str) -> Any:
    body = {"principal": name, "workspace": scope, "description": description}
    return _call("POST", "/tokens", body=body if hours is None else {**body, "hours": hours})


@verb(token, "list", columns=("id", "workspace", "description", "expires_ms"), help="List your tokens.")
def list_tokens() -> Any:
    return _call("GET", "/tokens")["value"]


@verb(token, "revoke", help="End a token; it stops working within a second.")
@click.option("--id", "id_", required=True)
def revoke(id_: str) -> None:
    _call("DELETE", f"/tokens/{id_}")


@verb(audit, "list", columns=("seq", "time", "actor", "event", "subject"), help="List what happened, newest first.")
@click.option("--subject", help="Only about this thing.")
@click.option("-r", "--max-results", type=int, default=50, show_default=True)
def list_audit(subject: str | None, max_results: int) -> Any:
    made = client()
    found = made._transport.pages(made._transport.workspace_path("/audit"), {"subject": subject, "limit": min(max_results, 1000)})
    return [event for _, event in zip(range(max_results), found, strict=False)]


@verb(audit, "verify", help="Recompute the chain of hashes; exit code 1 when a row was altered.")
def verify() -> Any:
    found = _call("GET", "/audit/verify")
    if not found["ok"]:
        from ..core.errors import Unavailable

        raise Unavailable(f"the audit log was altered at row {found['first_bad_row']}", code="audit_altered")
    return found

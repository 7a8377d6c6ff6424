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


@verb(user, "create", help="Create a user or service.")
@name_option
@click.option("--kind", type=click.Choice(["user", "service"]), default="user")
def create_user(name: str, kind: str) -> Any:
    return client().users.create(name, kind=kind)


@verb(user, "list", columns=("name", "kind", "roles"), help="List users with their roles.")
def list_users() -> Any:
    return client().users.list()


@verb(user, "delete", help="Delete a user with its tokens and roles.")
@name_option
def delete_user(name: str) -> None:
    client().users.delete(name)


@verb(user, "assign-role", help="Give a role, in one workspace or (without --scope) in all.")
@name_option
@click.option("--role", required=True)
@click.option("--scope", default="*", help="Workspace.")
def assign(name: str, role: str, scope: str) -> Any:
    return client().users.assign_role(name, role, scope=scope)


@verb(user, "remove-role", help="Take a role away.")
@name_option
@click.option("--role", required=True)
@click.option("--scope", default="*", help="Workspace.")
def remove(name: str, role: str, scope: str) -> None:
    client().users.remove_role(name, role, scope=scope)


@verb(user, "list-roles", columns=("name", "description"), help="List the roles there are.")
def list_roles() -> Any:
    return client().roles.list()


@verb(user, "define-role", help="Load a custom role from Azure's role JSON.")
@click.option("-f", "--file", "file", required=True, type=click.Path(exists=True, dir_okay=False))
def define_role(file: str) -> Any:
    return client().roles.define(json.loads(Path(file).read_text()))


@verb(token, "create", help="Make a token; it is shown this one time.")
@click.option("-n", "--name", help="For this user instead of yourself.")
@click.option("--scope", help="Only for this workspace.")
@click.option("--hours", type=float, help="How long it works; 12, or as long as your own.")
@click.option("--description", default="")
def create_token(name: str | None, scope: str | None, hours: float | None, description: str) -> Any:
    return client().tokens.create(user=name, workspace=scope, hours=hours, description=description)


@verb(token, "list", columns=("id", "workspace", "description", "expires_ms"), help="List your tokens.")
def list_tokens() -> Any:
    return client().tokens.list()


@verb(token, "revoke", help="End a token; it stops working within a second.")
@click.option("--id", "id_", required=True)
def revoke(id_: str) -> None:
    client().tokens.revoke(id_)


@verb(audit, "list", columns=("seq", "time", "actor", "event", "subject"), help="List what happened, newest first.")
@click.option("--subject", help="Only about this thing.")
@click.option("-r", "--max-results", type=int, default=50, show_default=True)
def list_audit(subject: str | None, max_results: int) -> Any:
    return list(client().audit.list(subject=subject, max_results=max_results))


@verb(audit, "verify", help="Recompute the chain of hashes; exit code 1 when a row was altered.")
def verify() -> Any:
    check = client().audit.verify()
    if not check["ok"]:
        from ..core.errors import Unavailable

        raise Unavailable(f"the audit log was altered at row {check['first_bad_row']}", code="audit_altered")
    return check

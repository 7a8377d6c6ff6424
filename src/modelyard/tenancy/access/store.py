from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from ...core.actor import Role
from ...storage.statements import Statement, param
from ...storage.tables import Json, metadata
from ...storage.unit import Unit
from .model import BUILT_IN, Principal, Token

principals = sa.Table(
    "principals",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
)
custom_roles = sa.Table(
    "custom_roles",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("actions", Json, nullable=False),
    sa.Column("not_actions", Json, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
)
role_assignments = sa.Table(
    "role_assignments",
    metadata,
    sa.Column("principal", sa.Text, sa.ForeignKey("principals.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("workspace", sa.Text, primary_key=True),
    sa.Column("role", sa.Text, primary_key=True),
)
tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("principal", sa.Text, nullable=False, index=True),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("prefix", sa.Text, nullable=False),
    sa.Column("workspace", sa.Text),
    sa.Column("expires_ms", sa.BigInteger),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("run", sa.Text, index=True),
    sa.Column("attempt", sa.Integer),
    sa.Column("key_of", sa.Text, index=True),
    sa.Column("on_behalf_of", sa.Text),
    sa.Column("as_submitter", sa.Boolean, nullable=False, server_default=sa.false()),
)


def insert_principal(unit: Unit, principal: Principal) -> None:
    row = {"id": principal.id, "name": principal.name, "kind": principal.kind, "created_ms": unit.now}
    unit.insert(principals, row)


def principal_by(unit: Unit, *, id: str | None = None, name: str | None = None) -> Principal | None:
    where = principals.c.id == id if id is not None else principals.c.name == name
    row = unit.row(sa.select(principals.c.id, principals.c.name, principals.c.kind).where(where))
    return Principal(row.id, row.name, row.kind) if row else None


def list_principals(unit: Unit) -> list[Principal]:
    rows = unit.rows(sa.select(principals).order_by(principals.c.name))
    return [Principal(row.id, row.name, row.kind) for row in rows]


def delete_principal(unit: Unit, id: str) -> None:
    unit.run(sa.delete(tokens).where(tokens.c.principal == id))
    unit.run(sa.delete(role_assignments).where(role_assignments.c.principal == id))
    unit.run(sa.delete(principals).where(principals.c.id == id))


def insert_token(unit: Unit, token: Token, digest: str) -> None:
    unit.insert(tokens, {**token.__dict__, "digest": digest})


def token_with_digest(unit: Unit, id: str) -> tuple[Token, str] | None:
    row = unit.row(sa.select(tokens).where(tokens.c.id == id))
    return (_token(row), row.digest) if row else None


def list_tokens(unit: Unit, principal: str) -> list[Token]:
    """A principal's own, and those of running jobs that it submitted."""
    return [_token(row) for row in unit.rows(sa.select(tokens).where(_of(principal)).order_by(tokens.c.created_ms))]


def delete_tokens(unit: Unit, principal: str) -> int:
    return unit.run(sa.delete(tokens).where(_of(principal)))


def _of(principal: str) -> sa.ColumnElement[bool]:
    return sa.or_(tokens.c.principal == principal, tokens.c.on_behalf_of == principal)


def delete_token(unit: Unit, id: str) -> bool:
    return unit.run(sa.delete(tokens).where(tokens.c.id == id)) > 0


_DELETE_RUN_TOKENS = Statement(sa.delete(tokens).where(tokens.c.run == param("run")))


def delete_run_tokens(unit: Unit, run: str) -> None:
    unit.run(_DELETE_RUN_TOKENS, run=run)


def delete_keys(unit: Unit, resource: str, id: str | None) -> None:
    where = sa.and_(tokens.c.workspace == unit.workspace, tokens.c.key_of == resource)
    unit.run(sa.delete(tokens).where(where if id is None else sa.and_(where, tokens.c.id == id)))


def _token(row: Any) -> Token:
    values = row._asdict()
    values.pop("digest")
    return Token(**values)


def assign(unit: Unit, principal: str, workspace: str, role: str) -> None:
    unit.insert(role_assignments, {"principal": principal, "workspace": workspace, "role": role}, keep_existing=True)


def unassign(unit: Unit, principal: str, workspace: str, role: str) -> bool:
    where = sa.and_(role_assignments.c.principal == principal, role_assignments.c.workspace == workspace, role_assignments.c.role == role)
    return unit.run(sa.delete(role_assignments).where(where)) > 0


def assignments(unit: Unit, *, principal: str | None = None, workspace: str | None = None) -> list[tuple[str, str, str]]:
    """(principal id, workspace, role)"""
    query = sa.select(role_assignments.c.principal, role_assignments.c.workspace, role_assignments.c.role)
    if principal is not None:
        query = query.where(role_assignments.c.principal == principal)
    if workspace is not None:
        query = query.where(role_assignments.c.workspace == workspace)
    return [(row.principal, row.workspace, row.role) for row in unit.rows(query)]


def put_role(unit: Unit, role: Role) -> None:
    row = {"name": role.name, "actions": role.actions, "not_actions": role.not_actions, "description": role.description}
    unit.upsert(custom_roles, row)


def roles(unit: Unit) -> dict[str, Role]:
    roles_by_name = dict(BUILT_IN)
    for row in unit.rows(sa.select(custom_roles)):
        roles_by_name[row.name] = Role(row.name, tuple(row.actions), tuple(row.not_actions), row.description)
    return roles_by_name

from __future__ import annotations

from fastapi import APIRouter, Response

from ...core.actor import ANY_WORKSPACE
from ...engine.http import Call, CallDep, answer, listing
from ...engine.openapi import answers
from ...spec.access import (
    Assignment,
    NewToken,
    PrincipalDocument,
    PrincipalRequest,
    PrincipalWithRoles,
    RevokedTokens,
    RoleDefinition,
    RoleDocument,
    TokenDocument,
)
from ...spec.answers import Page
from . import service
from .model import TokenRequest

router = APIRouter(tags=["access"])


@router.get("/tokens")
@answers(Page[TokenDocument])
async def list_tokens(call: CallDep, principal: str | None = None) -> Response:
    """The caller's own, or those of `principal`."""
    return listing(await call.read(service.list_tokens, principal))


@router.delete("/tokens")
@answers(RevokedTokens)
async def revoke_tokens(call: CallDep, principal: str) -> Response:
    """All tokens of a principal at once, with those of the running jobs that it submitted."""
    return answer(await call.write(service.revoke_tokens, principal))


@router.post("/tokens")
@answers(NewToken, 201, body=TokenRequest)
async def create_token(call: CallDep) -> Response:
    return answer(await call.write(service.create_token, call.yard.vault, await call.struct(service.create_token, TokenRequest)), 201)


@router.delete("/tokens/{id}")
@answers(status=204)
async def revoke_token(call: CallDep, id: str) -> Response:
    await call.write(service.revoke_token, id)
    return Response(status_code=204)


@router.get("/principals")
@answers(Page[PrincipalWithRoles])
async def list_principals(call: CallDep) -> Response:
    return listing(await call.read(service.list_principals))


@router.post("/principals")
@answers(PrincipalDocument, 201, body=PrincipalRequest)
async def create_principal(call: CallDep) -> Response:
    sent = await call.struct(service.create_principal, PrincipalRequest)
    return answer(await call.write(service.create_principal, sent.name, sent.kind), 201)


@router.delete("/principals/{name}")
@answers(status=204)
async def delete_principal(call: CallDep, name: str) -> Response:
    await call.write(service.delete_principal, name)
    return Response(status_code=204)


@router.get("/roles")
@answers(Page[RoleDocument])
async def list_roles(call: CallDep) -> Response:
    return listing(await call.read(service.list_roles))


@router.post("/roles")
@answers(RoleDocument, 201, body=RoleDefinition)
async def define_role(call: CallDep) -> Response:
    return answer(await call.write(service.define_role, await call.json(service.define_role)), 201)


@router.put("/principals/{name}/roles/{role}")
@answers(Assignment)
async def assign_role(call: CallDep, name: str, role: str, workspace_name: str | None = None) -> Response:
    """Give a role in `workspace_name`, or with `*` in all."""
    return answer(await _where(call, workspace_name).write(service.assign_role, name, role, workspace_name))


@router.delete("/principals/{name}/roles/{role}")
@answers(status=204)
async def unassign_role(call: CallDep, name: str, role: str, workspace_name: str = "*") -> Response:
    await _where(call, workspace_name).write(service.unassign_role, name, role, workspace_name)
    return Response(status_code=204)


def _where(call: Call, workspace: str | None) -> Call:
    """The call in the workspace that it is about, whose owner may give roles in it; one about all of them is in none."""
    return call.at(workspace) if workspace and workspace != ANY_WORKSPACE else call

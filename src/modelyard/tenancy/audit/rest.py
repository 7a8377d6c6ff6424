from __future__ import annotations

import asyncio

from fastapi import APIRouter, Response

from ...engine.http import CallDep, answer, listing
from ...engine.openapi import answers
from ...spec.access import AuditCheck, AuditEntry
from ...spec.answers import Page
from . import service
from .files import LedgerFiles

router = APIRouter(tags=["audit"])


@router.get("/workspaces/{workspace}/audit")
@answers(Page[AuditEntry])
async def search(call: CallDep, subject: str | None = None, limit: int = 100, token: str | None = None) -> Response:
    page = await call.read(service.search, subject, limit, token)
    return listing(page.items, page.next_token)


@router.get("/audit")
@answers(Page[AuditEntry])
async def search_all(call: CallDep, subject: str | None = None, limit: int = 100, token: str | None = None) -> Response:
    """What happened in all workspaces and in none: users, roles, tokens, sign-ins that were refused."""
    page = await call.read(service.search_all, subject, limit, token)
    return listing(page.items, page.next_token)


@router.get("/audit/verify")
@answers(AuditCheck)
async def verify(call: CallDep) -> Response:
    ledger = await asyncio.to_thread(LedgerFiles(call.yard.home.audit).read)
    return answer(await call.read(service.verify, ledger))

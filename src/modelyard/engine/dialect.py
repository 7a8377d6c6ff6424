"""Foreign dialects: protocols other than the native API, by which clients of other systems speak to a yard.

A dialect is an ASGI app of its own below `wire/`, with its own words for errors. It translates a request into one service call, made
through the same `Call` as the native routes, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope

from .http import Call, address_of, bearer


@dataclass(frozen=True)
class Dialect:
    name: str
    claims: Callable[[str], bool]
    """Whether a path is one of its own; of two dialects that claim one path, the first in the list is asked."""
    app: ASGIApp


async def foreign_call(scope: Scope, receive: Receive, workspace: str = "") -> Call:
    """The request as its caller's call, in a workspace or else in the token's own. Raises Unauthenticated."""
    state = scope["app"].state
    token = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"), None)
    actor = await state.authenticate(bearer(token), workspace, address_of(scope))
    scope["actor"], scope["workspace"] = actor, workspace or actor.workspace
    return Call(Request(scope, receive), state.yard, actor, workspace or actor.workspace, repeatable=False)

"""Use cases of access, and authentication itself."""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import Any

import msgspec

from modelyard_runtime.serving.callers import Failures, network_of

from ...core import ids
from ...core.actor import ANY_WORKSPACE, SYSTEM, Actor, Role, answers_secret, internal, open_to_all, requires
from ...core.clock import iso
from ...core.errors import AlreadyExists, Conflict, Forbidden, Invalid, LimitExceeded, NotFound, Unauthenticated
from ...core.names import nearest, reserved
from ...engine.yard import Yard
from ...ports.vault import Vault
from ...storage.unit import Unit
from ..workspaces import service as workspaces
from . import store
from .model import JOB, JOB_AS_SUBMITTER, KEY, Principal, Token, TokenRequest, job_principal, role_from_document

CACHE_SECONDS = 1.0
"""How long a verified token is trusted without a look at the database: a revocation works within this time."""

ADMIN = "admin"
HOUR_MS = 3600 * 1000
DEFAULT_HOURS, MOST_HOURS = 12, 24 * 366
KEY_NAME = "key of "
"""Prefix of the name under which a caller with an endpoint's key acts. No principal has it: their names hold no space."""


def split_token(token: str) -> tuple[str, str]:
    """`yard_<id>_<secret>` → (id, secret); two empty strings when it has another shape."""
    head, _, remainder = token.partition("_")
    id, _, secret = remainder.partition("_")
    return (id, secret) if head == "yard" and id and secret else ("", "")


@internal
def ensure_admin(unit: Unit, vault: Vault, *, has_token: bool) -> str | None:
    """A new token of the first owner unless `has_token`: for a new yard, after a kill between the commit and the write of the token's
    file, or after the file was deleted to get a new one. None when none is needed."""
    if not store.list_principals(unit):
        return _create_admin(unit, vault)
    admin = store.principal_by(unit, name=ADMIN)
    return None if has_token or admin is None else _new_token(unit, vault, admin.id, None, None, "made again at start")[1]


def _create_admin(unit: Unit, vault: Vault) -> str:
    """The first principal, an owner of everything, and its token: created once, when a yard is empty."""
    admin = Principal(ids.hex32(), ADMIN, "user")
    store.insert_principal(unit, admin)
    store.assign(unit, admin.id, ANY_WORKSPACE, "Owner")
    unit.record("principal.created", admin.name, kind=admin.kind)
    return _new_token(unit, vault, admin.id, None, None, "made by `yard up`")[1]


@requires("Microsoft.Authorization/principals/write")
def create_principal(unit: Unit, name: str, kind: str = "user") -> dict[str, Any]:
    # A space would let a name pass for `job NAME`, as which the tokens of jobs act; isprintable knows no space but the plain one.
    if not name or len(name) > 255 or not name.isprintable() or " " in name:
        raise Invalid("a principal needs a name of 1 to 255 visible characters", code="invalid_name")
    if reserved(name):
        raise Invalid(f"{name!r} is the yard's own name and cannot be a user's", code="reserved_name")
    if kind not in ("user", "service"):
        raise Invalid(f"a principal is a user or a service, not {kind!r}")
    if store.principal_by(unit, name=name):
        raise AlreadyExists(f"there is a principal {name} already")
    principal = Principal(ids.hex32(), name, kind)
    store.insert_principal(unit, principal)
    unit.record("principal.created", name, kind=kind)
    return principal.__dict__


@requires("Microsoft.Authorization/principals/read")
def list_principals(unit: Unit) -> list[dict[str, Any]]:
    by_principal: dict[str, list[dict[str, str]]] = {}
    for principal, workspace, role in store.assignments(unit):
        by_principal.setdefault(principal, []).append({"workspace": workspace, "role": role})
    return [{**p.__dict__, "roles": by_principal.get(p.id, [])} for p in store.list_principals(unit)]


@requires("Microsoft.Authorization/principals/delete")
def delete_principal(unit: Unit, name: str) -> None:
    principal = _principal(unit, name)
    owners = [p for p, workspace, role in store.assignments(unit) if role == "Owner" and workspace == ANY_WORKSPACE]
    if owners == [principal.id]:
        raise Conflict(f"{name} is the only owner of this yard; give somebody else the role first")
    store.delete_principal(unit, principal.id)
    unit.record("principal.deleted", name)


@requires("Microsoft.Authorization/roleAssignments/write")
def assign_role(unit: Unit, name: str, role: str, workspace: str | None) -> dict[str, str]:
    """`workspace` may be `*`, for all; left out it is refused, so that nobody gives a role everywhere by leaving out a word."""
    if not workspace:
        raise Invalid(
            "a role is given in a workspace, and the request names none",
            code="missing_workspace",
            hint="Name it in `workspace_name`, or `*` for all workspaces.",
        )
    known = store.roles(unit)
    if role not in known:
        raise NotFound(f"there is no role {role!r}{nearest(role, known)}", hint=f"Roles: {', '.join(known)}.")
    if workspace != ANY_WORKSPACE and not workspaces.exists(unit, workspace):
        raise NotFound(f"there is no workspace {workspace}")
    if workspace == ANY_WORKSPACE and not unit.actor.may("Microsoft.Authorization/roleAssignments/write", ANY_WORKSPACE):
        raise Forbidden("only an owner of the whole yard gives roles in all workspaces")
    if not unit.actor.covers(known[role], workspace):
        raise Forbidden(f"the role {role} goes beyond what you may do in {workspace}", code="role_too_strong")
    store.assign(unit, _principal(unit, name).id, workspace, role)
    unit.record("role.assigned", name, role=role, workspace=workspace)
    return {"principal": name, "role": role, "workspace": workspace}


@requires("Microsoft.Authorization/roleAssignments/delete")
def unassign_role(unit: Unit, name: str, role: str, workspace: str) -> None:
    if not store.unassign(unit, _principal(unit, name).id, workspace, role):
        raise NotFound(f"{name} does not hold the role {role} in {workspace}")
    unit.record("role.unassigned", name, role=role, workspace=workspace)


@requires("Microsoft.Authorization/roleDefinitions/read")
def list_roles(unit: Unit) -> list[dict[str, Any]]:
    return [
        {"name": r.name, "description": r.description, "actions": list(r.actions), "not_actions": list(r.not_actions)}
        for r in store.roles(unit).values()
    ]


@requires("Microsoft.Authorization/roleDefinitions/write")
def define_role(unit: Unit, document: dict[str, Any]) -> dict[str, Any]:
    role = role_from_document(document)
    if not unit.actor.covers(role, ANY_WORKSPACE):
        raise Forbidden(f"the role {role.name} would go beyond what you may do", code="role_too_strong")
    store.put_role(unit, role)
    unit.record("role.defined", role.name, actions=list(role.actions), not_actions=list(role.not_actions))
    return {"name": role.name, "actions": list(role.actions), "not_actions": list(role.not_actions)}


@open_to_all
@answers_secret
def create_token(unit: Unit, vault: Vault, request: TokenRequest) -> dict[str, Any]:
    """A token for the caller, or for another principal when the caller may write principals. Shown this one time.

    It is never wider, longer or more powerful than the token it is asked for with; raises Forbidden when it would be.
    """
    if unit.actor.run or unit.actor.key_of:
        raise Forbidden("the token of a job and the key of an endpoint make no further tokens")
    workspace, expires = _scope(unit.actor, request.workspace), _expiry(unit, request.hours)
    if workspace is not None and not workspaces.exists(unit, workspace):
        raise NotFound(f"there is no workspace {workspace}")
    owner = unit.actor.id
    if request.principal is not None and request.principal != unit.actor.name:
        owner = _principal_below(unit, request.principal, workspace).id
    token, text = _new_token(unit, vault, owner, workspace, expires, request.description[:255])
    unit.record("token.created", token.id, principal=owner, workspace=workspace, expires_ms=expires)
    return {**_shown(token), "token": text}


def _scope(actor: Actor, requested: str | None) -> str | None:
    """The workspace a new token is limited to: a limited token makes only tokens with the same limit."""
    if actor.only_workspace is not None and requested not in (None, actor.only_workspace):
        raise Forbidden(
            f"your token is for the workspace {actor.only_workspace} only and makes none for {requested}", code="token_too_wide",
            hint="Sign in with a token that has no such limit.",
        )  # fmt: skip
    return actor.only_workspace or requested


def _expiry(unit: Unit, hours: float | None | msgspec.UnsetType) -> int | None:
    """When a new token ends, at the latest with the caller's own."""
    own = unit.actor.expires_ms
    if isinstance(hours, msgspec.UnsetType):
        return min(unit.expiry_now + DEFAULT_HOURS * HOUR_MS, own or 2**63)
    if hours is not None and not 0 < hours <= MOST_HOURS:
        raise Invalid("a token lives more than 0 hours and at most a year")
    expires = unit.expiry_now + int(hours * HOUR_MS) if hours is not None else None
    if own is not None and (expires is None or expires > own):
        raise Forbidden(
            f"your token ends at {iso(own)} and makes none that lasts longer", code="token_too_long",
            hint="Leave the hours out for one that lasts as long as yours.",
        )  # fmt: skip
    return expires


def _principal_below(unit: Unit, name: str, workspace: str | None) -> Principal:
    """Another principal for which the caller may create a token: one whose roles all lie within the caller's."""
    if not unit.actor.may("Microsoft.Authorization/principals/write", ANY_WORKSPACE):
        raise Forbidden("only an owner makes tokens for others")
    principal, known = _principal(unit, name), store.roles(unit)
    for _, where, role in store.assignments(unit, principal=principal.id):
        concerns = workspace is None or where in (workspace, ANY_WORKSPACE)
        if concerns and role in known and not unit.actor.covers(known[role], workspace or where):
            raise Forbidden(f"{name} holds the role {role}, which goes beyond what you may do", code="token_too_strong")
    return principal


@requires("workspaces/metrics/read")
def scrape(unit: Unit) -> None:
    """Read `/metrics`, which names the resources of every workspace: so the role is held in all of them."""


@open_to_all
def list_tokens(unit: Unit, name: str | None = None) -> list[dict[str, Any]]:
    """The caller's own, or those of a principal; with those of the running jobs that it submitted."""
    return [_shown(token) for token in store.list_tokens(unit, _tokens_of(unit, name))]


@open_to_all
def revoke_tokens(unit: Unit, name: str) -> dict[str, int]:
    """End all tokens of a principal at once, those of its running jobs and the caller's own among them."""
    revoked = store.delete_tokens(unit, _tokens_of(unit, name))
    unit.record("token.all_revoked", name, revoked=revoked)
    return {"revoked": revoked}


def _tokens_of(unit: Unit, name: str | None) -> str:
    """The id of the principal of this name. Raises Forbidden for that of somebody else, unless the caller may write principals."""
    if unit.actor.run or unit.actor.key_of:
        raise Forbidden("the token of a job and the key of an endpoint concern themselves with no tokens")
    if name in (None, unit.actor.name):
        return unit.actor.id
    if not unit.actor.may("Microsoft.Authorization/principals/write", ANY_WORKSPACE):
        raise Forbidden("only an owner of the whole yard sees and ends the tokens of others")
    return _principal(unit, str(name)).id


@open_to_all
def revoke_token(unit: Unit, id: str) -> None:
    token_and_digest = store.token_with_digest(unit, id)
    own = token_and_digest is not None and token_and_digest[0].principal == unit.actor.id and not unit.actor.key_of
    if token_and_digest is None or not (own or unit.actor.may("Microsoft.Authorization/principals/write", ANY_WORKSPACE)):
        raise NotFound(f"you have no token {id}")
    store.delete_token(unit, id)
    unit.record("token.revoked", id)


@internal
def check_still_may(unit: Unit, name: str, action: str) -> None:
    """Raise Forbidden for a principal that lost a right since it ordered what is done now. One that was deleted is refused elsewhere."""
    principal = store.principal_by(unit, name=name)
    if principal is not None and not Actor(principal.id, name, grants=_held(unit, principal, unit.workspace)).may(action, unit.workspace):
        raise Forbidden(f"{name}, who ordered this, may not {action} in {unit.workspace} any more", code="right_withdrawn")


@internal
def create_job_token(unit: Unit, vault: Vault, job: str, attempt: int, hours: float, submitter: str, *, as_submitter: bool = False) -> str:
    """A token for one attempt of a job: bound to its run and to what its submitter may do, ended with the attempt.

    `as_submitter`: not bound to its run. Without effect where no user submitted the job, such as for a caller with a key: nobody answers for more.

    Raises NotFound when the submitter was deleted meanwhile: no principal answers for the job any more.
    """
    store.delete_run_tokens(unit, job)
    owner = store.principal_by(unit, name=submitter)
    if owner is None and submitter != SYSTEM.name and not submitter.startswith(KEY_NAME):
        raise NotFound(
            f"{submitter}, who submitted job {job}, is not a user of this yard any more", code="submitter_gone",
            hint="Somebody else submits it again: yard job rerun.",
        )  # fmt: skip
    id = ids.secret(12)
    secret = ids.secret()
    expires = unit.expiry_now + int(hours * HOUR_MS)
    token = Token(
        id, job_principal(job), f"yard_{id}", unit.workspace, expires, unit.now, "job", job, attempt,
        as_submitter=as_submitter and owner is not None, on_behalf_of=owner.id if owner else None,
    )  # fmt: skip
    store.insert_token(unit, token, vault.digest(secret))
    return f"yard_{id}_{secret}"


@internal
def end_job_token(unit: Unit, job: str) -> None:
    store.delete_run_tokens(unit, job)


@internal
def create_key(unit: Unit, vault: Vault, resource: str) -> str:
    """A key that opens `resource` (`kind/name` in this workspace) and nothing else, until it is dropped."""
    id, secret = ids.secret(12), ids.secret()
    token = Token(id, KEY_NAME + resource, f"yard_{id}", unit.workspace, None, unit.now, "", key_of=resource)
    store.insert_token(unit, token, vault.digest(secret))
    return f"yard_{id}_{secret}"


@internal
def drop_keys(unit: Unit, resource: str, key: str | None = None) -> None:
    """End one key of `resource`, or all of them."""
    store.delete_keys(unit, resource, split_token(key)[0] if key else None)


def _new_token(
    unit: Unit, vault: Vault, principal: str, workspace: str | None, expires_ms: int | None, description: str
) -> tuple[Token, str]:
    id, secret = ids.secret(12), ids.secret()
    token = Token(id, principal, f"yard_{id}", workspace, expires_ms, unit.now, description)
    store.insert_token(unit, token, vault.digest(secret))
    return token, f"yard_{id}_{secret}"


def _shown(token: Token) -> dict[str, Any]:
    keep = ("id", "prefix", "workspace", "expires_ms", "created_ms", "description", "run")
    return {key: getattr(token, key) for key in keep if getattr(token, key) is not None}


def _principal(unit: Unit, name: str) -> Principal:
    principal = store.principal_by(unit, name=name)
    if principal is None:
        raise NotFound(f"there is no principal {name}")
    return principal


class Authenticator:
    """Token → actor. A verified token is remembered for a second, so that the hot paths do not read the database."""

    def __init__(self, yard: Yard) -> None:
        self.yard = yard
        self.failures = Failures()
        self._actors: dict[bytes, tuple[float, Actor]] = {}
        self._workspaces: dict[str, float] = {}

    async def __call__(self, token: str, workspace: str, address: str = "", *, creates: bool = False) -> Actor:
        """`creates`: the call may make the workspace.

        Raises Unauthenticated for a token that is unknown, expired or revoked, LimitExceeded when too many of this address, or for this
        token's id, were; NotFound for a workspace the actor cannot see, as for one that does not exist.
        """
        key = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        cached = self._actors.get(key)
        now = time.monotonic()
        if cached is None or cached[0] < now:
            try:
                actor = await self.yard.db.lookup(lambda unit: self._verify(unit, token))
            except Unauthenticated:
                self._count_failure(split_token(token)[0], address)
                raise
            if len(self._actors) > 10_000:
                self._actors.clear()
            self._actors[key] = (now + CACHE_SECONDS, actor)
        else:
            actor = cached[1]
        if workspace:
            await self._check_workspace(actor, workspace, now, creates)
        return actor

    def _count_failure(self, id: str, address: str) -> None:
        """Raise LimitExceeded when there were too many. A right token is never asked how often others were wrong."""
        callers = [f"address {network_of(address)}"] if address else []
        wait_s = max((self.failures.add(caller) for caller in [*callers, *([f"token {id[:64]}"] if id else [])]), default=0)
        if wait_s:
            raise LimitExceeded(
                "too many sign-ins of this address, or with this token's id, have failed", code="too_many_failures", retry_s=wait_s,
                hint=f"Try again in {wait_s} s, with a token that works.",
            )  # fmt: skip

    async def _check_workspace(self, actor: Actor, workspace: str, now: float, creates: bool) -> None:
        if self._workspaces.get(workspace, 0) < now:
            if await self.yard.db.lookup(lambda unit: workspaces.exists(unit, workspace)):
                self._workspaces[workspace] = now + CACHE_SECONDS
            elif creates and actor.may("workspaces/write", workspace):
                return
            else:
                raise NotFound(f"there is no workspace {workspace}")
        if not actor.sees(workspace):
            raise NotFound(f"there is no workspace {workspace}")

    def _verify(self, unit: Unit, text: str) -> Actor:
        id, secret = split_token(text)
        token_and_digest = store.token_with_digest(unit, id) if id else None
        digest = self.yard.vault.digest(secret)
        # Compared even when the id is unknown, so that both take the same time.
        same = hmac.compare_digest(digest, token_and_digest[1] if token_and_digest else "0" * len(digest))
        if token_and_digest is None or not same:
            raise Unauthenticated("this token is not known", code="invalid_token", hint='Get a new one with `eval "$(yard env)"`.')
        token = token_and_digest[0]
        if token.expires_ms is not None and token.expires_ms < unit.expiry_now:
            raise Unauthenticated("this token has expired", code="expired_token", hint='Get a new one with `eval "$(yard env)"`.')
        if token.run is not None and token.workspace is not None:
            submitter = _owner(unit, token.on_behalf_of) if token.on_behalf_of is not None else None
            ceiling = _held(unit, submitter, token.workspace) if submitter is not None else None
            grants = {token.workspace: (JOB_AS_SUBMITTER if token.as_submitter else JOB,)}
            return Actor(
                token.principal, f"job {token.run}", "job", grants, token.run, token.attempt, token.workspace, None, token.workspace,
                token.expires_ms, ceiling, token.as_submitter, submitter.name if submitter is not None else None,
            )  # fmt: skip
        if token.key_of is not None and token.workspace is not None:
            return Actor(token.principal, token.principal, "key", {token.workspace: (KEY,)}, workspace=token.workspace, key_of=token.key_of)
        principal = _owner(unit, token.principal)
        held = _held(unit, principal, token.workspace)
        home = token.workspace or next((w for w in held if w != ANY_WORKSPACE), workspaces.DEFAULT)
        if ANY_WORKSPACE in held or workspaces.DEFAULT in held:
            home = token.workspace or workspaces.DEFAULT
        return Actor(
            principal.id, principal.name, principal.kind, held, workspace=home, only_workspace=token.workspace, expires_ms=token.expires_ms
        )


def _owner(unit: Unit, id: str) -> Principal:
    principal = store.principal_by(unit, id=id)
    if principal is None:
        raise Unauthenticated("this token's owner is gone", code="invalid_token")
    return principal


def _held(unit: Unit, principal: Principal, only: str | None) -> dict[str, tuple[Role, ...]]:
    """The roles of a principal by workspace; `only` narrows them to one workspace."""
    known = store.roles(unit)
    held: dict[str, tuple[Role, ...]] = {}
    for _, workspace, role in store.assignments(unit, principal=principal.id):
        scope = only if only and workspace == ANY_WORKSPACE else workspace
        if role in known and (only is None or scope == only):
            held[scope] = (*held.get(scope, ()), known[role])
    return held

"""Who acts, and what that permits.

Roles are Azure's: lists of `actions` and `notActions` with wildcards, compared without case, denied by default
(azure-docs `how-to-assign-roles`). Action strings are written without their common prefix
`Microsoft.MachineLearningServices/`; those of other providers in full.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from .errors import Forbidden

PROVIDER = "Microsoft.MachineLearningServices/"
ANY_WORKSPACE = "*"


@dataclass(frozen=True)
class Role:
    name: str
    actions: tuple[str, ...]
    not_actions: tuple[str, ...] = ()
    description: str = ""

    def allows(self, action: str) -> bool:
        return _role_allows(self.actions, self.not_actions, action)

    def covers(self, other: Role) -> bool:
        """Whether this role allows all that `other` allows: false when in doubt.

        A pattern that matches another pattern, read as text, matches everything that the other matches.
        """
        excepted = {action.lower() for action in other.not_actions}
        return all(action.lower() in excepted for action in self.not_actions) and all(
            any(_matches(own, action) for own in self.actions) for action in other.actions
        )


@functools.lru_cache(maxsize=4096)
def _role_allows(actions: tuple[str, ...], not_actions: tuple[str, ...], action: str) -> bool:
    full = _full(action)
    return any(_matches(p, full) for p in actions) and not any(_matches(p, full) for p in not_actions)


def _full(action: str) -> str:
    return action if action.startswith(("Microsoft.", "*")) else PROVIDER + action


@functools.lru_cache(maxsize=1024)
def _pieces(pattern: str) -> tuple[str, ...]:
    return tuple(pattern.lower().split("*"))


def _matches(pattern: str, action: str) -> bool:
    """Whether `action` is `pattern` with something in place of each `*`. A role's author chooses both, so no regular expression: one
    with many `*` takes a time that grows exponentially."""
    first, *others = _pieces(pattern)
    text = action.lower()
    if not others:
        return text == first
    *inner, last = others
    if not text.startswith(first) or not text.endswith(last) or len(text) < len(first) + len(last):
        return False
    position, end = len(first), len(text) - len(last)
    for piece in inner:  # the earliest place of each leaves most room for the next
        found = text.find(piece, position, end)
        if found < 0:
            return False
        position = found + len(piece)
    return True


@dataclass(frozen=True)
class Actor:
    """An authenticated principal. `grants` maps a workspace name, or `*`, to the roles held there.

    A job's token is an actor with `run` and `attempt` set: it may write its own run and what it created, nothing else. A
    key is one with `key_of` set.
    """

    id: str
    name: str
    kind: str = "user"
    grants: Mapping[str, tuple[Role, ...]] = field(default_factory=dict)
    run: str | None = None
    attempt: int | None = None
    workspace: str = "default"
    """The workspace of calls that name none, such as MLflow's."""
    key_of: str | None = None
    """The one resource that a key opens, as `kind/name`; None for every other actor."""
    only_workspace: str | None = None
    """The workspace that the token in use is limited to; None for one that opens whatever its owner may open."""
    expires_ms: int | None = None
    """When the token in use ends; None for one without an end."""
    ceiling: Mapping[str, tuple[Role, ...]] | None = None
    """What the submitter of a job holds: its token is limited to the same. None when no submitter limits the actor."""
    as_submitter: bool = False
    """Of a job that was submitted with the identity of its user: it may change what others have made."""
    submitter: str | None = None
    """Of a job: the name of the user who submitted it."""

    @property
    def bound_to(self) -> str | None:
        """The run to which the writes of a job's token are bound; None for everybody who may change what others have made."""
        return None if self.as_submitter else self.run

    @property
    def marks(self) -> dict[str, str]:
        """What is kept with something that the actor makes: the person, and the job if it was made in one. See `Made`."""
        return {"created_by": self.submitter or self.name, "made_in": self.run or ""}

    def may(self, action: str, workspace: str) -> bool:
        return _allowed(self.grants, action, workspace) and (self.ceiling is None or _allowed(self.ceiling, action, workspace))

    def covers(self, role: Role, workspace: str) -> bool:
        """Whether the actor holds a role in `workspace` (or in all of them) that allows all that `role` allows."""
        held = (*self.grants.get(ANY_WORKSPACE, ()), *self.grants.get(workspace, ()))
        return any(own.covers(role) for own in held)

    def sees(self, workspace: str) -> bool:
        return ANY_WORKSPACE in self.grants or workspace in self.grants


def _allowed(grants: Mapping[str, tuple[Role, ...]], action: str, workspace: str) -> bool:
    return any(role.allows(action) for role in (*grants.get(ANY_WORKSPACE, ()), *grants.get(workspace, ())))


SYSTEM = Actor("system", "system", "system", {ANY_WORKSPACE: (Role("System", ("*",)),)})
"""The yard itself: loops and migrations act as it. Never the result of authentication."""


AS_SUBMITTER_HINT = "Submit the job with `identity: {type: user_identity}`, with which it acts as you, or do this with a token of your own."


class _Acting(Protocol):
    @property
    def actor(self) -> Actor: ...
    @property
    def workspace(self) -> str: ...


P = ParamSpec("P")
R = TypeVar("R")
U = TypeVar("U", bound=_Acting)


def requires(action: str) -> Callable[[Callable[Concatenate[U, P], R]], Callable[Concatenate[U, P], R]]:
    """State the permission of a use case where it is defined. The first argument is the unit of work.

    Raises Forbidden when the unit's actor lacks `action` in the unit's workspace.
    """

    def decorate(function: Callable[Concatenate[U, P], R]) -> Callable[Concatenate[U, P], R]:
        @functools.wraps(function)
        def guarded(unit: U, /, *args: P.args, **kwargs: P.kwargs) -> R:
            check_may(unit, action)
            return function(unit, *args, **kwargs)

        guarded.permission = action  # type: ignore[attr-defined]
        return guarded

    return decorate


def check_may(acting: _Acting, action: str) -> None:
    """Raise Forbidden when the actor lacks `action` in the workspace it acts in. `*` is for everybody who signed in."""
    if action != "*" and not acting.actor.may(action, acting.workspace):
        where = f" in workspace {acting.workspace}" if acting.workspace else ""
        raise Forbidden(f"{acting.actor.name} may not {action}{where}", hint=f"Ask an owner for a role with {_full(action)}.")


def refuse_jobs(unit: _Acting, what: str) -> None:
    """Raises Forbidden for a job's token: a job writes only what it created itself."""
    if unit.actor.run is not None:
        raise Forbidden(f"job {unit.actor.run} may not {what}", hint="A person does this, with a token of their own.")


class Made(Protocol):
    """A record of something that somebody has made. `made_in` names the job that made it for its submitter; empty where a person did it."""

    @property
    def created_by(self) -> str: ...
    @property
    def made_in(self) -> str: ...


def check_made_by(unit: _Acting, made: Made, what: str) -> None:
    """Raises Forbidden for a job's own token that would change what the job has not made."""
    if unit.actor.bound_to is not None and made.made_in != unit.actor.bound_to:
        maker = f"job {made.made_in}" if made.made_in else made.created_by
        raise Forbidden(
            f"job {unit.actor.bound_to} may {what} only when it has made it, and this was made by {maker or 'somebody else'}",
            code="not_made_by_job",
            hint=AS_SUBMITTER_HINT,
        )


def refuse_bound(unit: _Acting, what: str) -> None:
    """Raises Forbidden for a job's own token: only a job that acts as its submitter may."""
    if unit.actor.bound_to is not None:
        raise Forbidden(f"job {unit.actor.bound_to} may not {what} with its own token", code="not_made_by_job", hint=AS_SUBMITTER_HINT)


def internal(function: Callable[P, R]) -> Callable[P, R]:
    """Mark a use case that only loops and other services call: it acts for a caller that was checked already."""
    function.internal = True  # type: ignore[attr-defined]
    return function


def answers_secret(function: Callable[P, R]) -> Callable[P, R]:
    """Mark a use case whose answer holds a secret that is shown once: no copy of the answer is stored for repeated requests."""
    function.answers_secret = True  # type: ignore[attr-defined]
    return function


def open_to_all(function: Callable[P, R]) -> Callable[P, R]:
    """Mark a use case that every authenticated caller may use; it answers only what concerns the caller."""
    function.permission = "*"  # type: ignore[attr-defined]
    return function


def permission_of(function: Callable[..., Any]) -> str | None:
    """The action stated by `requires`, or None when the function states none."""
    return getattr(function, "permission", None)

"""Who acts, and what that permits.

Roles are Azure's: lists of `actions` and `notActions` with wildcards, compared without case, denied by default
(azure-docs `how-to-assign-roles`). Action strings are written without their common prefix
`Microsoft.MachineLearningServices/`; those of other providers in full.
"""

from __future__ import annotations

import functools
import re
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


@functools.lru_cache(maxsize=4096)
def _role_allows(actions: tuple[str, ...], not_actions: tuple[str, ...], action: str) -> bool:
    full = action if action.startswith("Microsoft.") else PROVIDER + action
    return any(_matches(p, full) for p in actions) and not any(_matches(p, full) for p in not_actions)


@functools.lru_cache(maxsize=1024)
def _pattern(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in pattern.split("*")), re.IGNORECASE)


def _matches(pattern: str, action: str) -> bool:
    return _pattern(pattern).fullmatch(action) is not None


@dataclass(frozen=True)
class Actor:
    """An authenticated principal. `grants` maps a workspace name, or `*`, to the roles held there.

    A job's token makes an actor with `run` and `attempt` set: it may write its own run and what it made, nothing else. A
    key makes one with `key_of` set.
    """

    id: str
    name: str
    kind: str = "user"
    grants: Mapping[str, tuple[Role, ...]] = field(default_factory=dict)
    run: str | None = None
    attempt: int | None = None
    workspace: str = "default"
    """Where calls go that name no workspace, such as MLflow's."""
    key_of: str | None = None
    """The one thing that a key opens, as `kind/name`; None for everybody else."""

    def may(self, action: str, workspace: str) -> bool:
        held = (*self.grants.get(ANY_WORKSPACE, ()), *self.grants.get(workspace, ()))
        return any(role.allows(action) for role in held)

    def sees(self, workspace: str) -> bool:
        return ANY_WORKSPACE in self.grants or workspace in self.grants


SYSTEM = Actor("system", "system", "system", {ANY_WORKSPACE: (Role("System", ("*",)),)})
"""The yard itself: loops and migrations act as it. Never the result of authentication."""


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
            if not unit.actor.may(action, unit.workspace):
                raise Forbidden(
                    f"{unit.actor.name} may not {action} in workspace {unit.workspace}",
                    hint=f"Ask an owner for a role with {PROVIDER}{action}.",
                )
            return function(unit, *args, **kwargs)

        guarded.permission = action  # type: ignore[attr-defined]
        return guarded

    return decorate


def refuse_jobs(unit: _Acting, what: str) -> None:
    """Raises Forbidden for a job's token: a job writes what it made itself."""
    if unit.actor.run is not None:
        raise Forbidden(f"job {unit.actor.run} may not {what}", hint="A person does this, with a token of their own.")


def internal(function: Callable[P, R]) -> Callable[P, R]:
    """Mark a use case that only loops and other services call: it acts for a caller that was checked already."""
    function.internal = True  # type: ignore[attr-defined]
    return function


def open_to_all(function: Callable[P, R]) -> Callable[P, R]:
    """Mark a use case that every authenticated caller may use; it answers only what concerns the caller."""
    function.permission = "*"  # type: ignore[attr-defined]
    return function


def permission_of(function: Callable[..., Any]) -> str | None:
    """The action stated by `requires`, or None when the function states none."""
    return getattr(function, "permission", None)

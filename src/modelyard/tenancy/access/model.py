"""Principals, tokens, and Azure's roles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from ...core.actor import PROVIDER, Role
from ...core.errors import Invalid
from ...core.names import nearest, plain_name, reserved

_P = PROVIDER + "workspaces"
MAX_ACTIONS, MAX_ACTION, MAX_DESCRIPTION = 500, 256, 2_000
"""Actions of a role, and characters of an action and of a description."""

OWNER = Role("Owner", ("*",), description="Everything, role assignments included.")
CONTRIBUTOR = Role(
    "Contributor", ("*",), ("Microsoft.Authorization/*/write", "Microsoft.Authorization/*/delete"), "Everything but role assignments."
)
METRICS_SCRAPER = Role("Metrics Scraper", (f"{_P}/metrics/read",), description="Reads `/metrics` and nothing else: for Prometheus.")
READER = Role("Reader", ("*/read",), description="Sees everything but secrets; changes nothing.")
DATA_SCIENTIST = Role(
    "AzureML Data Scientist",
    (f"{_P}/*/read", f"{_P}/*/action", f"{_P}/*/delete", f"{_P}/*/write", f"{_P}/read"),
    (
        f"{_P}/delete",
        f"{_P}/write",
        f"{_P}/computes/*/write",
        f"{_P}/computes/*/delete",
        f"{_P}/computes/write",
        f"{_P}/computes/delete",
        f"{_P}/computes/listKeys/action",
        f"{_P}/listKeys/action",
        f"{_P}/hubs/write",
        f"{_P}/hubs/delete",
        f"{_P}/featurestores/write",
        f"{_P}/featurestores/delete",
    ),
    "All work inside a workspace; not the workspace itself nor its computes.",
)
COMPUTE_OPERATOR = Role("AzureML Compute Operator", (f"{_P}/computes/*", f"{_P}/notebooks/vm/*"), description="Computes only.")
BUILT_IN = {role.name: role for role in (OWNER, CONTRIBUTOR, READER, DATA_SCIENTIST, COMPUTE_OPERATOR, METRICS_SCRAPER)}

JOB = Role(
    "Job",
    (
        f"{_P}/read",
        f"{_P}/*/read",
        f"{_P}/experiments/write",
        f"{_P}/experiments/runs/write",
        f"{_P}/models/write",
        f"{_P}/data/versions/write",
        f"{_P}/datastores/files/write",
    ),
    description="What a running job may do; its writes are bound to its own run besides.",
)
"""Held by the tokens of jobs only; it cannot be assigned."""


JOB_AS_SUBMITTER = Role(
    "Job as its submitter",
    (
        *JOB.actions,
        f"{_P}/experiments/*",
        f"{_P}/models/*",
        f"{_P}/data/*",
        f"{_P}/environments/*",
        f"{_P}/components/*",
    ),
    description="What a job may do that was submitted with the identity of its user, as far as that user may.",
)
"""Held by the tokens of jobs only; it cannot be assigned."""


KEY = Role(
    "Key",
    (f"{_P}/batchEndpoints/score/action", f"{_P}/batchEndpoints/jobs/read"),
    description="What the key of an endpoint opens; its use cases check that it is their own.",
)
"""Held by keys only; it cannot be assigned."""


@dataclass(frozen=True)
class Principal:
    id: str
    name: str
    kind: str


@dataclass(frozen=True)
class Token:
    """What is stored of a token: never the token itself."""

    id: str
    principal: str
    prefix: str
    workspace: str | None
    expires_ms: int | None
    created_ms: int
    description: str
    run: str | None = None
    attempt: int | None = None
    key_of: str | None = None
    as_submitter: bool = False
    """Of a job's token: it may change what others have made, as its submitter may."""
    on_behalf_of: str | None = None
    """Of a job's token: the principal that submitted the job, whose rights bound it. None when no principal did."""


def job_principal(job: str) -> str:
    """The id by which a job's token acts: it owns what the job has made."""
    return f"job:{job}"


class TokenRequest(msgspec.Struct):
    """What a caller asks for. `hours` left out takes twelve, or what is left of the caller's own token; null means no end."""

    principal: str | None = None
    workspace: str | None = None
    hours: float | None | msgspec.UnsetType = msgspec.UNSET
    description: str = ""


ROLE_FIELDS = frozenset(
    "name rolename id iscustom description actions notactions dataactions notdataactions assignablescopes properties permissions type "
    "roletype createdon updatedon createdby updatedby condition conditionversion".split()
)
"""Of Azure's role JSON, in small letters."""


def role_from_document(document: dict[str, Any]) -> Role:
    """A custom role from Azure's role JSON, loaded as it is (`az role definition create` format). Raises Invalid for a field that it does not
    have: a misspelt exception would leave a role with everything."""
    _check_fields(document)
    source = document.get("properties") or document
    groups = source.get("permissions") or [source] if isinstance(source, dict) else None
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        raise _malformed("`properties` is an object, and `permissions` a list of objects")
    for part in (source, *groups):
        _check_fields(part)
    name = document.get("roleName") or source.get("roleName") or document.get("Name") or document.get("name")
    if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > 255:
        raise _malformed("a role needs a name of 1 to 255 printable characters")
    if reserved(name) or plain_name(name) in (plain_name(known) for known in (*BUILT_IN, JOB.name, JOB_AS_SUBMITTER.name, KEY.name)):
        raise Invalid(f"{name!r} is a built-in role and cannot be redefined", code="reserved_name")
    actions, not_actions = (_actions(groups, key) for key in ("actions", "notActions"))
    if not actions:
        raise _malformed(f"the role {name!r} has no actions")
    description = source.get("description") or source.get("Description") or ""
    if not isinstance(description, str) or len(description) > MAX_DESCRIPTION:
        raise _malformed(f"the description is a text of {MAX_DESCRIPTION:,} characters at most")
    return Role(name, actions, not_actions, description)


def _check_fields(part: dict[str, Any]) -> None:
    for name in part:
        if name.lower() not in ROLE_FIELDS:
            raise _malformed(f"a role has no field {name[:80]!r}{nearest(name.lower(), ROLE_FIELDS)}")


def _actions(groups: list[dict[str, Any]], key: str) -> tuple[str, ...]:
    """What the groups list under `key`, in either of the spellings in use. Raises Invalid for anything but short texts."""
    lists = [group.get(spelling) or [] for group in groups for spelling in (key, key[0].upper() + key[1:])]
    actions: list[Any] = [action for each in lists for action in (each if isinstance(each, list) else [None])]
    if len(actions) > MAX_ACTIONS or not all(isinstance(action, str) and 0 < len(action) <= MAX_ACTION for action in actions):
        raise _malformed(f"{key} is a list of {MAX_ACTIONS} actions at most, each a text of 1 to {MAX_ACTION} characters")
    return tuple(actions)


def _malformed(message: str) -> Invalid:
    return Invalid(message, code="invalid_role", hint="The format is Azure's custom-role JSON: Name, Actions, NotActions.")

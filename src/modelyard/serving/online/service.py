"""Use cases of online endpoints and deployments."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from modelyard_runtime.protocol import DeploymentRoute, EndpointRoute, RouteTable, TokenSource

from ...assets.environments import service as environments
from ...assets.files import service as files
from ...assets.models import service as models
from ...assets.references import service as references
from ...core import ids
from ...core.actor import answers_secret, internal, requires
from ...core.errors import Conflict, Invalid, NotFound
from ...core.names import safe_path
from ...ports.vault import Vault
from ...spec.model import Model
from ...spec.online import OnlineDeployment, OnlineEndpoint, Rollout
from ...spec.properties import OnlineDeploymentProperties, OnlineEndpointProperties
from ...spec.references import DatastorePath, JobOutput, RunArtifact, asset_ref, parse_reference
from ...spec.states import ProvisioningState, RolloutState
from ...spec.unused import unused
from ...storage.unit import Unit
from ...tenancy.secrets import service as secrets
from ...work.tracking import service as tracking
from . import store
from .model import (
    PENDING,
    DeploymentRecord,
    EndpointRecord,
    changes,
    is_readable,
    key_digest,
    stored_only,
)
from .rollout import NEXT, WAIT, RolloutRecord, judge, since
from .tokens import TOKEN_S, public_key, signed_token, signing_key

ANSWERED = (
    "id",
    "creation_context",
    "provisioning_state",
    "rollout",
    "instances",
    "scoring_uri",
    "openapi_uri",
    "error",
    "warnings",
    "name",
    "endpoint_name",
)
KEYS = ("primary", "secondary")
SIGNING, FORMER = "signing", "signing-former"


def _secret(endpoint: str, key: str) -> str:
    return f"endpoint/{endpoint}/{key}"


def _keep_signatures(unit: Unit, vault: Vault, endpoint: str) -> None:
    """Remember the public half of the signing key, which is about to be replaced, for as long as tokens by it last."""
    if not secrets.exists(unit, _secret(endpoint, SIGNING)):
        return
    former = [
        *_former_keys(unit, vault, endpoint),
        (public_key(secrets.get(unit, vault, _secret(endpoint, SIGNING))), unit.now + TOKEN_S * 1000),
    ]
    secrets.put(unit, vault, _secret(endpoint, FORMER), json.dumps(former))


def _former_keys(unit: Unit, vault: Vault, endpoint: str) -> list[tuple[str, int]]:
    """(public key, until when in ms) of signing keys that were replaced, and whose tokens last."""
    if not secrets.exists(unit, _secret(endpoint, FORMER)):
        return []
    stored = json.loads(secrets.get(unit, vault, _secret(endpoint, FORMER)))
    return [(key, until_ms) for key, until_ms in stored if until_ms > unit.now]


@requires("workspaces/onlineEndpoints/write")
def put_endpoint(unit: Unit, spec: OnlineEndpoint, vault: Vault) -> EndpointRecord:
    """Create or update. A new endpoint gets its two keys; traffic can only name deployments that are there.

    An update keeps the traffic that it does not name; its notes say what it changed.
    """
    earlier = store.get_endpoint(unit, spec.name)
    notes = [*unused(spec), *OnlineEndpointProperties.check(spec.properties)]
    unnamed = {"traffic", "mirror_traffic"} - spec.model_fields_set
    spec = spec.model_copy(update={name: getattr(earlier.spec, name) if earlier is not None else {} for name in unnamed})
    document = {key: value for key, value in spec.document().items() if key not in ANSWERED}
    document["properties"] = OnlineEndpointProperties.kept(document["properties"])
    if earlier is None:
        _check_traffic(unit, spec)
        store.insert_endpoint(unit, spec.name, document)
        for key in KEYS:
            secrets.put(unit, vault, _secret(spec.name, key), ids.secret())
        secrets.put(unit, vault, _secret(spec.name, SIGNING), signing_key())
        unit.record("online_endpoint.created", spec.name)
    else:
        if (spec.traffic, spec.mirror_traffic) != (earlier.spec.traffic, earlier.spec.mirror_traffic):
            _check_traffic(unit, spec)
        notes += changes(earlier.stored, document)
        store.set_endpoint(unit, spec.name, document)
        if spec.auth_mode != "key" and not secrets.exists(unit, _secret(spec.name, SIGNING)):
            secrets.put(unit, vault, _secret(spec.name, SIGNING), signing_key())
        running = store.get_rollout(unit, spec.name)
        if running is not None and running.state == RolloutState.RUNNING and spec.traffic != earlier.spec.traffic:
            _end_rollout(unit, running, RolloutState.ABORTED, f"{unit.actor.name} changed the traffic")
        unit.record("online_endpoint.updated", spec.name, traffic=spec.traffic)
    return replace(_endpoint(unit, spec.name), notes=tuple(notes))


def _check_traffic(unit: Unit, spec: OnlineEndpoint) -> None:
    known = {deployment.name: deployment for deployment in store.list_deployments(unit, spec.name)}
    for name, share in (*spec.traffic.items(), *spec.mirror_traffic.items()):
        if name not in known:
            there = f"it has {', '.join(known)}" if known else "it has none yet"
            raise Invalid(
                f"traffic names the deployment {name}, which endpoint {spec.name} does not have; {there}",
                code="unknown_deployment",
                hint="Create the deployment first, then set the traffic.",
            )
        if share and not known[name].live:
            raise Conflict(f"deployment {name} is {known[name].state} and cannot take traffic yet")


@requires("workspaces/onlineEndpoints/read")
def get_endpoint(unit: Unit, name: str) -> EndpointRecord:
    return _endpoint(unit, name)


def _endpoint(unit: Unit, name: str) -> EndpointRecord:
    endpoint = store.get_endpoint(unit, name)
    if endpoint is None:
        raise NotFound(
            f"there is no online endpoint {name} in workspace {unit.workspace}",
            code="endpoint_not_found",
            hint="`yard online-endpoint list` shows them.",
        )
    return endpoint


@requires("workspaces/onlineEndpoints/read")
def list_endpoints(unit: Unit) -> list[EndpointRecord]:
    return store.list_endpoints(unit)


@requires("workspaces/onlineEndpoints/delete")
def delete_endpoint(unit: Unit, name: str) -> None:
    """The endpoint answers no more from now on; its deployments go with it."""
    _endpoint(unit, name)
    for deployment in store.list_deployments(unit, name):
        if deployment.state != ProvisioningState.DELETING:
            store.transition_deployment(unit, deployment, ProvisioningState.DELETING, live=0)
        references.release(unit, "deployment", f"{name}/{deployment.name}")
    store.delete_endpoint(unit, name)
    store.delete_rollout(unit, name)
    secrets.delete(unit, f"endpoint/{name}/")
    unit.record("online_endpoint.deleted", name)


@requires("workspaces/onlineEndpoints/listKeys/action")
def get_keys(unit: Unit, vault: Vault, name: str) -> dict[str, str]:
    if (mode := _endpoint(unit, name).spec.auth_mode) != "key":
        raise Conflict(f"endpoint {name} has auth_mode {mode}: it takes tokens, not keys", code="no_keys", hint="POST …/token makes one.")
    return {f"{key}Key": secrets.get(unit, vault, _secret(name, key)) for key in KEYS}


@answers_secret
@requires("workspaces/onlineEndpoints/token/action")
def get_token(unit: Unit, vault: Vault, name: str) -> dict[str, Any]:
    """A token that opens this endpoint for an hour, or for as long as the caller's own; as Azure answers it, times in seconds since 1970."""
    if _endpoint(unit, name).spec.auth_mode == "key":
        raise Conflict(f"endpoint {name} has auth_mode key: it takes keys, not tokens", code="no_tokens")
    now = unit.now // 1000
    lives = min(TOKEN_S, unit.actor.expires_ms // 1000 - now) if unit.actor.expires_ms is not None else TOKEN_S
    key = secrets.get(unit, vault, _secret(name, SIGNING))
    token = signed_token(key, f"{unit.workspace}/{name}", unit.actor.name, now, lives)
    unit.record("online_endpoint.token_made", name)
    return {"accessToken": token, "tokenType": "Bearer", "expiryTimeUtc": now + lives, "refreshAfterTimeUtc": now + lives // 2}


@requires("workspaces/onlineEndpoints/regenerateKeys/action")
def regenerate_key(unit: Unit, vault: Vault, name: str, key: str) -> None:
    """Replace one key; the other goes on working, so that callers can change over without a failed request.

    The one that signs hourly tokens (`signing`) has no other: what it signed is accepted until it expires.
    """
    _endpoint(unit, name)
    if key not in (*KEYS, SIGNING):
        raise Invalid(f"key_type is primary, secondary or signing, not {key[:40]!r}")
    if key == SIGNING:
        _keep_signatures(unit, vault, name)
    secrets.put(unit, vault, _secret(name, key), signing_key() if key == SIGNING else ids.secret())
    unit.record("online_endpoint.key_regenerated", name, key=key)


@requires("workspaces/onlineEndpoints/deployments/write")
def put_deployment(unit: Unit, spec: OnlineDeployment) -> DeploymentRecord:
    """Create a deployment or replace one by a new generation; the loop makes it real, and the old one serves meanwhile."""
    _endpoint(unit, spec.endpoint_name)
    notes = OnlineDeploymentProperties.check(spec.properties)
    resolved: dict[str, Any] = {}
    holds: list[tuple[str, str, str]] = []
    if spec.model is not None:
        resolved["model"], hold = _resolve_model(unit, spec.model)
        if hold is not None:
            holds.append(("model", *hold))
    code = spec.code_configuration
    if code is not None and code.code is not None:
        location = parse_reference(code.code)
        if not isinstance(location, DatastorePath) or not files.files_at(unit, location).files:
            raise Invalid(
                f"code {code.code!r} is not an uploaded folder", hint="`yard online-deployment create` uploads local code by itself."
            )
        if (pinned := files.pin(unit, location)) != location:
            resolved["code"] = str(pinned)
        safe_path(code.scoring_script or "", "scoring_script")
        if not any(file.path == code.scoring_script for file in files.files_at(unit, location).files):
            raise Invalid(f"the scoring script {code.scoring_script} is not in the code folder", code="scoring_script_missing")
    if (code is None or spec.environment is None) and not _loads_itself(unit, resolved.get("model")):
        missing = "a scoring script" if code is None else "an environment"
        raise Invalid(
            f"a deployment without {missing} needs a model in MLflow's format",
            code="scoring_script_missing",
            hint="Give code_configuration and an environment. An image with a server of its own is not started: this yard runs no containers.",
        )
    warnings = [*stored_only(spec), *notes]
    if spec.environment is not None:
        environment = environments.resolve(unit, spec.environment)
        resolved["environment"] = str(environment)
        warnings += environment.wanted.notes
        holds.append(("environment", environment.name, environment.version))
    document = {key: value for key, value in spec.document().items() if key not in ANSWERED}
    earlier = store.get_deployment(unit, spec.endpoint_name, spec.name)
    holder = f"{spec.endpoint_name}/{spec.name}"
    if earlier is not None and earlier.state == ProvisioningState.DELETING:
        raise Conflict(f"deployment {spec.name} is being deleted", hint="Try again in a moment.")
    references.release(unit, "deployment", holder)
    for kind, name, version in holds:
        references.hold(unit, "deployment", holder, kind, name, version)
    if earlier is None:
        store.insert_deployment(
            unit,
            spec.endpoint_name,
            spec.name,
            spec=document,
            state=ProvisioningState.CREATING,
            error=None,
            warnings=warnings,
            resolved=resolved,
        )
        unit.record("online_deployment.created", holder, resolved=resolved)
    elif earlier.state == ProvisioningState.SUCCEEDED and earlier.stored == document and resolved.items() <= earlier.resolved.items():
        return earlier
    else:
        store.transition_deployment(
            unit, earlier, ProvisioningState.UPDATING if earlier.live else ProvisioningState.CREATING, spec=document,
            generation=earlier.generation + 1, error=None, warnings=warnings, resolved=resolved,
        )  # fmt: skip
        unit.record("online_deployment.updated", holder, resolved=resolved)
    return _deployment(unit, spec.endpoint_name, spec.name)


def _resolve_model(unit: Unit, model: str | Model) -> tuple[str, tuple[str, str] | None]:
    """Where the model's files are, and the registered version when it is one. Inline models, and logged ones, are their path."""
    path = (model.path or "") if isinstance(model, Model) else model
    location = parse_reference(path)
    if isinstance(model, Model) or isinstance(location, (DatastorePath, JobOutput, RunArtifact)):
        if isinstance(location, (JobOutput, RunArtifact)):
            location = files.output_place(unit, location)
        if not isinstance(location, DatastorePath) or not files.files_at(unit, location).files:
            raise Invalid(
                f"there is no model at {path!r}",
                hint="`yard online-deployment create` uploads local models by itself; a logged one is models:/m-ID or runs:/ID/PATH.",
            )
        return str(files.pin(unit, location)), None
    version = models.resolve(unit, asset_ref(model, "model"))
    return version.path, (version.name, version.version)


def _loads_itself(unit: Unit, model: str | None) -> bool:
    """Whether a model's files (where they are, or None) are in MLflow's format, which needs no scoring script."""
    location = parse_reference(model or "")
    return isinstance(location, DatastorePath) and any(
        file.path.rsplit("/", 1)[-1] == "MLmodel" for file in files.files_at(unit, location).files
    )


@requires("workspaces/onlineEndpoints/deployments/read")
def get_deployment(unit: Unit, endpoint: str, name: str) -> DeploymentRecord:
    _endpoint(unit, endpoint)
    return _deployment(unit, endpoint, name)


def _deployment(unit: Unit, endpoint: str, name: str) -> DeploymentRecord:
    deployment = store.get_deployment(unit, endpoint, name)
    if deployment is None:
        known = ", ".join(item.name for item in store.list_deployments(unit, endpoint)) or "none"
        raise NotFound(f"endpoint {endpoint} has no deployment {name}; it has {known}", code="deployment_not_found")
    return deployment


@requires("workspaces/onlineEndpoints/deployments/read")
def list_deployments(unit: Unit, endpoint: str) -> list[DeploymentRecord]:
    _endpoint(unit, endpoint)
    return store.list_deployments(unit, endpoint)


@requires("workspaces/onlineEndpoints/deployments/delete")
def delete_deployment(unit: Unit, endpoint: str, name: str) -> None:
    deployment = _deployment(unit, endpoint, name)
    traffic = _endpoint(unit, endpoint).spec.traffic
    if traffic.get(name):
        raise Conflict(
            f"deployment {name} takes {traffic[name]} % of the traffic",
            code="takes_traffic",
            hint=f'Take it away first: yard online-endpoint update --name {endpoint} --traffic "{name}=0".',
        )
    if deployment.state != ProvisioningState.DELETING:
        store.transition_deployment(unit, deployment, ProvisioningState.DELETING, live=0)
    references.release(unit, "deployment", f"{endpoint}/{name}")
    unit.record("online_deployment.deleted", f"{endpoint}/{name}")


# Rollouts


@requires("workspaces/onlineEndpoints/write")
def start_rollout(unit: Unit, name: str, spec: Rollout) -> dict[str, Any]:
    """Give the deployment its first share; the loop watches it from here on."""
    endpoint = _endpoint(unit, name)
    deployment = _deployment(unit, name, spec.to)
    if not deployment.live:
        raise Conflict(f"deployment {spec.to} is {deployment.state} and cannot take traffic yet")
    earlier = store.get_rollout(unit, name)
    if earlier is not None and earlier.state == RolloutState.RUNNING:
        raise Conflict(
            f"endpoint {name} is being rolled out to {earlier.spec.to}", code="rollout_running",
            hint=f"Let it end, or stop it: yard online-endpoint rollout -n {name} --abort",
        )  # fmt: skip
    if spec.metric is not None:
        tracking.get_run(unit, spec.metric.run_id)
    before = {key: share for key, share in endpoint.spec.traffic.items() if share}
    if before.get(spec.to) == 100:
        raise Conflict(f"deployment {spec.to} has all the traffic already")
    record = RolloutRecord(
        unit.workspace, name, spec.document(), RolloutState.RUNNING, 0, before, {}, "", unit.now, unit.now, unit.actor.name
    )  # fmt: skip
    _step(unit, endpoint, record)
    unit.record("online_endpoint.rollout_started", name, to=spec.to, steps=spec.steps)
    return record.document()


def _step(unit: Unit, endpoint: EndpointRecord, record: RolloutRecord) -> None:
    store.put_rollout(unit, record)
    store.set_endpoint(unit, endpoint.name, {**endpoint.stored, "traffic": record.traffic})


def _end_rollout(unit: Unit, record: RolloutRecord, state: RolloutState, reason: str) -> None:
    store.end_rollout(unit, record, state, reason)
    unit.record(f"online_endpoint.rollout_{state.lower()}", record.endpoint, to=record.spec.to, reason=reason)


@requires("workspaces/onlineEndpoints/write")
def abort_rollout(unit: Unit, name: str, reason: str = "") -> dict[str, Any]:
    """Give the traffic back as it was before."""
    endpoint = _endpoint(unit, name)
    record = store.get_rollout(unit, name)
    if record is None or record.state != RolloutState.RUNNING:
        raise Conflict(f"no rollout of endpoint {name} is under way")
    live = {deployment.name for deployment in store.list_deployments(unit, name) if deployment.live}
    if set(record.before) <= live:
        store.set_endpoint(unit, name, {**endpoint.stored, "traffic": record.before})
    _end_rollout(unit, record, RolloutState.ABORTED, reason or f"stopped by {unit.actor.name}")
    ended = store.get_rollout(unit, name)
    assert ended is not None
    return ended.document()


@requires("workspaces/onlineEndpoints/read")
def rollout_of(unit: Unit, name: str) -> dict[str, Any] | None:
    rollout = store.get_rollout(unit, name)
    return rollout.document() if rollout is not None else None


@internal
def running_rollouts(unit: Unit) -> list[RolloutRecord]:
    return [record for record in store.running_rollouts(unit) if is_readable(record)]


@internal
def watch_rollout(unit: Unit, seen: RolloutRecord, now: dict[str, Any]) -> bool:
    """Judge a step by what was counted; whether the traffic has changed."""
    record = store.get_rollout(unit, seen.endpoint)
    if record != seen:
        return False
    if not record.base:
        store.put_rollout(unit, replace(record, base=now))
        return False
    if record.stepped_ms > unit.now:  # the clock was ahead when the step began, and was set right: it begins now
        store.put_rollout(unit, replace(record, stepped_ms=unit.now))
        return False
    verdict = judge(record.spec, since(record.base, now), unit.now - record.stepped_ms, _measured(unit, record))
    if verdict == WAIT:
        return False
    if verdict != NEXT:
        abort_rollout(unit, record.endpoint, verdict)
    elif record.step + 1 == len(record.spec.steps):
        _end_rollout(unit, record, RolloutState.COMPLETED, "every step answered well")
        return False
    else:
        following = replace(record, step=record.step + 1, base=now, stepped_ms=unit.now)
        _step(unit, _endpoint(unit, record.endpoint), following)
        unit.record("online_endpoint.rollout_stepped", record.endpoint, traffic=following.traffic)
    return True


def _measured(unit: Unit, record: RolloutRecord) -> float | None:
    bound = record.spec.metric
    run = tracking.find_run(unit, bound.run_id) if bound is not None else None
    if bound is None or run is None:
        return None
    return next((point.shown for point in run.metrics if point.key == bound.name and point.time_ms >= record.stepped_ms), None)


# Called by the loop


@internal
def to_make(unit: Unit) -> list[DeploymentRecord]:
    """Every deployment that is not yet what it should be."""
    return [record for record in store.list_deployments(unit, everywhere=True) if record.state in PENDING]


@internal
def live(unit: Unit) -> list[DeploymentRecord]:
    return [record for record in store.list_deployments(unit, everywhere=True) if record.live and is_readable(record)]


@internal
def set_restoring(unit: Unit, record: DeploymentRecord) -> None:
    """The instances of the generation that serves are started again; the deployment succeeds again once they answer."""
    store.transition_deployment(unit, record, ProvisioningState.UPDATING)
    unit.record("online_deployment.restoring", f"{record.endpoint}/{record.name}", generation=record.live)


@internal
def set_ready(unit: Unit, record: DeploymentRecord, **resolved: Any) -> None:
    store.transition_deployment(
        unit, record, ProvisioningState.SUCCEEDED, live=record.generation, live_instances=record.instances_to_make,
        error=None, resolved={**record.resolved, **resolved},
    )  # fmt: skip
    unit.record("online_deployment.ready", f"{record.endpoint}/{record.name}", generation=record.generation)


@internal
def set_instances(unit: Unit, record: DeploymentRecord, count: int) -> None:
    """The router uses so many instances from now on. Raises Conflict when the deployment has changed meanwhile."""
    store.set_live(unit, record, live_instances=count)
    unit.record("online_deployment.scaled", f"{record.endpoint}/{record.name}", instances=count)


@internal
def set_failed(unit: Unit, record: DeploymentRecord, error: dict[str, Any]) -> None:
    """The new generation has failed; the one that was live before, if any, still serves."""
    store.transition_deployment(unit, record, ProvisioningState.FAILED, error=error)
    unit.record("online_deployment.failed", f"{record.endpoint}/{record.name}", error=error["code"])


@internal
def forget(unit: Unit, record: DeploymentRecord) -> None:
    store.delete_deployment(unit, record.endpoint, record.name)


@internal
def current(unit: Unit, record: DeploymentRecord) -> DeploymentRecord | None:
    return store.get_deployment(unit, record.endpoint, record.name)


@internal
def routes(unit: Unit, vault: Vault, sockets: Any, issuer: dict[str, Any] | None, local: bool = False) -> RouteTable:
    """The router's table: digests of keys, shares, and the sockets of live replicas (`sockets(record)`).

    Tokens of `issuer` {issuer, audience, keys} open the endpoints whose `auth_mode` is aad_token. `local`: the setting `local_endpoints`.
    """
    table = RouteTable()
    for endpoint in filter(is_readable, store.list_endpoints(unit, everywhere=True)):
        here = unit.at(endpoint.workspace)
        items = []
        for record in store.list_deployments(here, endpoint.name):
            if record.live and record.state is not ProvisioningState.DELETING and is_readable(record):
                settings = record.spec.request_settings
                items.append(
                    DeploymentRoute(
                        name=record.name,
                        generation=record.live,
                        sockets=sockets(record),
                        timeout_ms=settings.request_timeout_ms,
                        queue_ms=settings.max_queue_wait_ms,
                        concurrent=record.concurrent,
                        rate=record.properties.rate_limit,
                    )
                )
        by_key = endpoint.spec.auth_mode == "key"
        traffic: dict[str, float] = {**endpoint.spec.traffic}
        if local and len(items) == 1 and not any(traffic.values()):
            traffic = {items[0].name: 100}
        table.endpoints[f"{endpoint.workspace}/{endpoint.name}"] = EndpointRoute(
            keys=[key_digest(secrets.get(here, vault, _secret(endpoint.name, key))) for key in KEYS] if by_key else [],
            tokens=None if by_key else _tokens(here, vault, endpoint, issuer),
            traffic=traffic,
            mirror={**endpoint.spec.mirror_traffic},
            deployments=items,
            open=local,
        )
    return table


def _tokens(unit: Unit, vault: Vault, endpoint: EndpointRecord, issuer: dict[str, Any] | None) -> list[TokenSource]:
    """The sources of tokens that the router accepts: public keys, audience and, for an issuer's tokens, the allowed callers."""
    key = secrets.get(unit, vault, _secret(endpoint.name, SIGNING))
    former = [former_key for former_key, _ in _former_keys(unit, vault, endpoint.name)]
    sources = [TokenSource(f"{endpoint.workspace}/{endpoint.name}", [public_key(key), *former])]
    if issuer is not None and endpoint.spec.auth_mode == "aad_token":
        sources.append(TokenSource(issuer["audience"], issuer["keys"], issuer["issuer"], endpoint.properties.allowed_callers))
    return sources

from __future__ import annotations

import functools
import inspect
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ...core.errors import Invalid, NotFound, Unavailable
from ...spec.nouns import NOUNS
from ...spec.states import ProvisioningState, RolloutState
from .. import http
from ..poller import Poller, finished
from ..resources import DeploymentOperations, NamedOperations, Operations
from ..transport import Transport

if TYPE_CHECKING:
    from ...spec.answers import Page
    from ...spec.online import AnsweredRequest, EndpointKeys, EndpointToken, OnlineDeployment, OnlineEndpoint, Rollout, RolloutStatus

SCORING_S = 190.0
"""Seconds for an answer: more than the longest that a deployment may be given for a request."""
OperationsT = TypeVar("OperationsT", bound=Operations)


def _local_too(operations: type[OperationsT]) -> type[OperationsT]:
    """Each operation takes `local=True`, as in azure.ai.ml, and then works on the local yard."""

    def taking(name: str) -> Callable[..., Any]:
        method = getattr(operations, name)

        @functools.wraps(method)
        def operation(self: Any, *args: Any, local: bool = False, **kwargs: Any) -> Any:
            if not local:
                return method(self, *args, **kwargs)
            from ..local import connection

            return method(operations(Transport(connection(), self._transport.read), self._progress), *args, **kwargs)

        return operation

    for name in dir(operations):
        if not name.startswith("_") and inspect.isfunction(getattr(operations, name)):
            setattr(operations, name, taking(name))
    return operations


@_local_too
class OnlineEndpointOperations(NamedOperations["OnlineEndpoint"]):
    noun = NOUNS["online_endpoint"]

    def begin_delete(self, name: str, **kwargs: Any) -> Poller[None]:
        """With the last endpoint of the local yard that yard is stopped."""
        from .. import local

        super().begin_delete(name)
        if local.is_at(self._transport.connection) and not list(self.list()):
            local.stop()
        return finished(None)

    def get_keys(self, name: str) -> EndpointKeys | EndpointToken:
        """The keys, or of an endpoint that takes tokens a token."""
        from ...spec.online import EndpointKeys, EndpointToken

        answer = self._keys(self.get(name))
        return EndpointKeys.answered(answer) if "primaryKey" in answer else EndpointToken.answered(answer)

    def secret(self, name: str) -> str:
        """What opens the endpoint: its primary key, or a token."""
        return self._secret(self.get(name))

    def _secret(self, endpoint: OnlineEndpoint) -> str:
        answer = self._keys(endpoint)
        return str(answer.get("primaryKey") or answer["accessToken"])

    def _keys(self, endpoint: OnlineEndpoint) -> dict[str, Any]:
        what = "keys" if endpoint.auth_mode == "key" else "token"
        answer: dict[str, Any] = self._call("POST", f"{self._address(endpoint.name)}/{what}")
        return answer

    def list_requests(
        self, name: str, *, deployment_name: str | None = None, failed: bool = False, prediction_id: str | None = None, limit: int = 100
    ) -> Sequence[AnsweredRequest]:
        """What was answered, the newest first. `prediction_id` is what an answer carries in `x-yard-prediction-id`."""
        params = {"deployment": deployment_name, "failed": failed, "prediction_id": prediction_id, "limit": limit}
        page: Page[AnsweredRequest] = self._call("GET", f"{self._address(name)}/requests", params=params)
        return page["value"]

    def begin_rollout(self, name: str, rollout: Rollout) -> Poller[OnlineEndpoint]:
        """Move the traffic step by step; the poller ends with the endpoint. `rollout` of it says whether it completed, or why not."""
        self._call("POST", f"{self._address(name)}/rollout", body=rollout.document())

        def look() -> tuple[str, OnlineEndpoint]:
            endpoint = self.get(name)
            return ("InProgress" if (endpoint.rollout or {}).get("status") == RolloutState.RUNNING else "Succeeded"), endpoint

        return Poller(look)

    def abort_rollout(self, name: str) -> RolloutStatus:
        ended: RolloutStatus = self._call("DELETE", f"{self._address(name)}/rollout")
        return ended

    def begin_regenerate_keys(self, name: str, *, key_type: str = "primary", **kwargs: Any) -> Poller[None]:
        self._call("POST", f"{self._address(name)}/regenerate-keys", body={"key_type": key_type})
        return finished(None)

    def invoke(
        self,
        endpoint_name: str,
        *,
        request_file: str | Path | None = None,
        deployment_name: str | None = None,
        data: str | bytes | None = None,
        **kwargs: Any,
    ) -> str:
        """Send a request file (or `data`) with the primary key; the answer's text. Raises Invalid or Unavailable with the answer."""
        if request_file is None and data is None:
            raise Invalid("invoke needs a request file")
        if request_file is not None and not Path(request_file).is_file():
            raise NotFound(f"{request_file}: there is no such file", code="file_not_found")
        body = Path(request_file).read_bytes() if request_file is not None else data
        endpoint = self.get(endpoint_name)
        try:
            response = self._scored(endpoint, body.encode() if isinstance(body, str) else body, deployment_name)
        except http.Disconnected as error:
            raise Unavailable(f"the endpoint {endpoint_name} cannot be reached: {error}", code="unreachable") from None
        if response.status >= 400:
            kind = Invalid if response.status < 500 and response.status not in (408, 429) else Unavailable
            raise kind(f"endpoint {endpoint_name} answered {response.status}: {response.text[:2000]}", code="scoring_failed")
        return response.text

    def _scored(self, endpoint: OnlineEndpoint, body: bytes | None, deployment: str | None) -> http.Response:
        headers = {"Authorization": f"Bearer {self._secret(endpoint)}", "Content-Type": "application/json"}
        if deployment:
            headers["azureml-model-deployment"] = deployment
        return http.post(str(endpoint.scoring_uri), body or b"", headers, timeout=SCORING_S)


@_local_too
class OnlineDeploymentOperations(DeploymentOperations["OnlineDeployment"]):
    noun = NOUNS["online_deployment"]

    def begin_create_or_update(self, deployment: OnlineDeployment, **kwargs: Any) -> Poller[OnlineDeployment]:
        """The poller ends when it is ready, and raises Invalid with the reason when it does not become so."""
        self._put(deployment)

        def look() -> tuple[str, OnlineDeployment]:
            current = self.get(deployment.name, deployment.endpoint_name)
            pending = current.provisioning_state in (ProvisioningState.CREATING, ProvisioningState.UPDATING)
            return ("InProgress" if pending else "Succeeded"), current

        return Poller(look, _deployment_error)

    def begin_delete(self, name: str, endpoint_name: str, **kwargs: Any) -> Poller[None]:
        """The poller ends when its instances have ended."""
        super().begin_delete(name, endpoint_name)

        def look() -> tuple[str, None]:
            names = [deployment.name for deployment in self.list(endpoint_name)]
            return ("InProgress" if name in names else "Succeeded"), None

        return Poller(look)

    def get_logs(self, name: str, endpoint_name: str, *, lines: int = 5000, container_type: str | None = None, **kwargs: Any) -> str:
        path = self._path(f"{self._address(endpoint_name, name)}/logs")
        with self._transport.stream(path, {"lines": str(lines), "container": container_type or "inference-server"}) as response:
            return response.text

    def try_out(self, deployment: OnlineDeployment, request_files: Sequence[str | Path]) -> Sequence[dict[str, Any]]:
        """Deploy to a new endpoint, send each request, and delete it again: a row {request, status, ms, answer} for each.

        Raises Invalid when the deployment does not become ready, with the reason.
        """
        from ...spec.online import OnlineEndpoint

        endpoints = OnlineEndpointOperations(self._transport, self._progress)
        name = f"test-{os.urandom(6).hex()}"
        tried = deployment.model_copy(update={"endpoint_name": name}).settled(deployment.base_path)
        endpoints.begin_create_or_update(OnlineEndpoint(name=name))
        try:
            self.begin_create_or_update(tried).result()
            url, key = str(endpoints.get(name).scoring_uri), endpoints.secret(name)
            rows = []
            for file in request_files:
                headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", "azureml-model-deployment": tried.name}
                body, began = Path(file).read_bytes(), time.perf_counter()
                response = http.post(url, body, headers, timeout=SCORING_S)
                spent = round((time.perf_counter() - began) * 1000, 1)
                rows.append({"request": str(file), "status": response.status, "ms": spent, "answer": response.text[:2000]})
            return rows
        finally:
            endpoints.begin_delete(name)


def _deployment_error(deployment: OnlineDeployment) -> Exception | None:
    if deployment.provisioning_state != ProvisioningState.FAILED:
        return None
    error = deployment.error or {}
    return Invalid(
        f"deployment {deployment.name} of endpoint {deployment.endpoint_name} failed: {error.get('message')}", code=str(error.get("code", "failed")),
        hint=f"yard online-deployment get-logs --endpoint-name {deployment.endpoint_name} --name {deployment.name} shows its log.",
    )  # fmt: skip

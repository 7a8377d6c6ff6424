"""What `MLClient.jobs`, `.data`, … can do: the method names of `azure.ai.ml`, each one REST call or two."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import httpx

from ..core.errors import Invalid, NotFound, Unavailable
from ..spec.answers import Page
from ..spec.batch import BatchDeployment, BatchEndpoint
from ..spec.compute import AmlCompute, Compute, LocalCompute
from ..spec.data import Data
from ..spec.datastore import Datastore
from ..spec.environment import Environment
from ..spec.fields import Spec
from ..spec.job import Job, JobMetrics, JobOutput, Verification
from ..spec.loading import answered
from ..spec.model import Model, ModelCard
from ..spec.online import AnsweredRequest, EndpointKeys, EndpointToken, OnlineDeployment, OnlineEndpoint, Rollout, RolloutStatus
from ..spec.references import asset_ref, is_local
from ..spec.schedule import FiredJob, Schedule
from ..spec.states import JOB, JobState, ProvisioningState, RolloutState
from ..spec.workspace import Registry, Workspace
from .differences import differing
from .localize import Localizer
from .transport import Transport, check_stream
from .upload import Progress, download, upload

T = TypeVar("T")
S = TypeVar("S", bound=Spec)


class Poller(Generic[T]):
    """What `begin_*` returns: `result()` waits, `done()` and `status()` look. As azure.core's LROPoller."""

    def __init__(self, look: Callable[[], tuple[str, T]], error: Callable[[T], Exception | None] | None = None) -> None:
        self._look = look
        self._error = error
        self._last: tuple[str, T] | None = None

    def status(self) -> str:
        if self._last is None or self._last[0] == "InProgress":
            self._last = self._look()
        return self._last[0]

    def done(self) -> bool:
        return self.status() != "InProgress"

    def wait(self, timeout: float | None = None) -> None:
        began = time.monotonic()
        while not self.done():
            waited = time.monotonic() - began
            if timeout is not None and waited > timeout:
                return
            time.sleep(min(1.0, max(0.05, waited / 10)))  # what is seen late by a tenth of its time is not seen late

    def result(self, timeout: float | None = None) -> T:
        """The finished thing. Raises what made it fail, Unavailable when `timeout` seconds pass first."""
        self.wait(timeout)
        if not self.done() or self._last is None:
            raise Unavailable(f"not done after {timeout} s", code="timeout")
        if self._error is not None and (error := self._error(self._last[1])) is not None:
            raise error
        return self._last[1]


def _finished(value: T) -> Poller[T]:
    return Poller(lambda: ("Succeeded", value))


class Operations:
    def __init__(self, transport: Transport, progress: Progress | None = None) -> None:
        self._transport = transport
        self._progress = progress

    def _path(self, path: str) -> str:
        return self._transport.workspace_path(path)

    def _call(self, method: str, path: str, **kwargs: Any) -> Any:
        return self._transport.call(method, self._path(path), **kwargs)

    def _localized(self, spec: Spec) -> dict[str, Any]:
        return Localizer(self._transport, self._progress).document(spec)

    def _sent(self, path: str, spec: Spec) -> Any:
        """Upload what is local, then POST; what only the server could see is said with the lines of the file."""
        document = self._localized(spec)
        try:
            return self._call("POST", path, body=document)
        except Invalid as error:
            raise spec.located(error) from None


class AssetOperations(Operations, Generic[S]):
    """Data, environments and models: versions of a name."""

    collection: str
    model: type[S]

    def _answered(self, document: dict[str, Any]) -> S:
        return self.model.answered(document)

    def create_or_update(self, entity: S, **kwargs: Any) -> S:
        return self._answered(self._sent(f"/{self.collection}", entity))

    def get(self, name: str, version: str | None = None, label: str | None = None, **kwargs: Any) -> S:
        if "@" in name and label is None:
            name, _, label = name.partition("@")
        if ":" in name and version is None:
            name, _, version = name.partition(":")
        if version is not None:
            return self._answered(self._call("GET", f"/{self.collection}/{name}/versions/{version}"))
        return self._answered(self._call("GET", f"/{self.collection}/{name}", params={"label": label}))

    def list(
        self, name: str | None = None, *, list_view_type: str = "ACTIVE_ONLY", max_results: int | None = None, **kwargs: Any
    ) -> Iterator[S]:
        archived = {"ACTIVE_ONLY": "false", "ARCHIVED_ONLY": "true"}.get(str(list_view_type).rsplit(".", 1)[-1].upper(), "all")
        found = self._transport.pages(self._path(f"/{self.collection}"), {"name": name, "archived": archived})
        for index, document in enumerate(found):
            if max_results is not None and index >= max_results:
                return
            yield self._answered(document)

    def update(self, name: str, version: str, changes: dict[str, Any]) -> S:
        return self._answered(self._call("PATCH", f"/{self.collection}/{name}/versions/{version}", body=changes))

    def archive(self, name: str, version: str | None = None, label: str | None = None, **kwargs: Any) -> None:
        self._call("POST", f"/{self.collection}/{name}/archive", params={"version": self._labelled(name, version, label)})

    def restore(self, name: str, version: str | None = None, label: str | None = None, **kwargs: Any) -> None:
        self._call("POST", f"/{self.collection}/{name}/restore", params={"version": self._labelled(name, version, label)})

    def share(
        self, name: str, version: str, *, registry_name: str, share_with_name: str | None = None, share_with_version: str | None = None
    ) -> S:
        """Make the same version in a registry, where every workspace can use it as azureml://registries/…"""
        body = {"registry": registry_name, "name": share_with_name, "version": share_with_version}
        return self._answered(self._call("POST", f"/{self.collection}/{name}/versions/{version}/share", body=body))

    def _labelled(self, name: str, version: str | None, label: str | None) -> str | None:
        return version or (str(getattr(self.get(name, label=label), "version", "")) if label else None)


class DataOperations(AssetOperations[Data]):
    collection = "data"
    model = Data


class EnvironmentOperations(AssetOperations[Environment]):
    collection = "environments"
    model = Environment

    def build(self, name: str, version: str | None = None, log: Callable[[str], None] = print) -> str:
        """Build now; each line of the build's log goes to `log`. The key of the built environment; raises Invalid."""
        path = self._path(f"/environments/{name}/build")
        last = ""
        with self._transport.stream(path, {"version": version} if version else None, method="POST") as response:
            check_stream(response)
            for line in response.iter_lines():
                if last:
                    log(last)
                last = line
                if line.startswith("failed: "):
                    break
            rest = [line for line in response.iter_lines()] if last.startswith("failed: ") and not response.is_stream_consumed else []
        if last.startswith("failed: "):
            raise Invalid("\n".join([last.removeprefix("failed: "), *rest]), code="build_failed")
        return last.removeprefix("done: ")


class ComponentOperations(AssetOperations[Any]):
    collection = "components"

    def _answered(self, document: dict[str, Any]) -> Any:
        """Components are of several kinds: each by its type."""
        return answered("component", document)


class ModelOperations(AssetOperations[Model]):
    collection = "models"
    model = Model

    def delete(self, name: str, version: str | None = None) -> None:
        self._call("DELETE", f"/models/{name}/versions/{version}" if version else f"/models/{name}")

    def card(self, name: str, version: str) -> ModelCard:
        """What is on record: files, signature, run with metrics and params, data, code, environment, who uses it."""
        found: ModelCard = self._call("GET", f"/models/{name}/versions/{version}/card")
        return found

    def card_text(self, name: str, version: str) -> str:
        """The card as Markdown."""
        with self._transport.stream(self._path(f"/models/{name}/versions/{version}/card"), {"format": "markdown"}) as response:
            check_stream(response)
            return str(response.read().decode())

    def compare(self, versions: Sequence[str]) -> list[dict[str, Any]]:
        """A row for each field in which `NAME:VERSION`s differ: metrics, params, signature, data, code, …"""
        return differing({ref: _parts(self.card(*_name_version(ref))) for ref in versions})

    def download(self, name: str, version: str, download_path: str | Path = ".", **kwargs: Any) -> None:
        """The model's files, into `download_path/name`."""
        found = self.get(name, version)
        download(self._transport, found.path or "", Path(download_path) / name, self._progress)


def _name_version(ref: str) -> tuple[str, str]:
    found = asset_ref(ref, "model")
    if found.version is None:
        raise Invalid(f"{ref!r} is not NAME:VERSION")
    return found.name, found.version


def _parts(card: ModelCard) -> dict[str, dict[str, Any]]:
    """A card as {part: {key: value}}; a column of the signature by its name."""
    model = card["model"]
    run: Mapping[str, Any] = card.get("run") or {}
    plain: dict[str, Any] = {key: model.get(key) for key in ("type", "stage", "description", "job_name")}
    plain |= {"files": card["files"]["digest"][:12], "code": card.get("code"), "environment": card.get("environment")}
    signature = {
        f"{part}.{item.get('name', index)}": item.get("type") or (item.get("tensor-spec") or {}).get("dtype")
        for part, items in card.get("signature", {}).items()
        for index, item in enumerate(items)
    }
    return {
        "": plain, "metrics": run.get("metrics", {}), "params": run.get("params", {}), "signature": signature,
        "data": card.get("data", {}), "flavors": card.get("flavors", {}), "git": card.get("git", {}), "tags": model.get("tags", {}),
    }  # fmt: skip


class DatastoreOperations(Operations):
    def list(self, **kwargs: Any) -> Iterator[Datastore]:
        for document in self._transport.pages(self._path("/datastores")):
            yield answered("datastore", document)

    def get(self, name: str, **kwargs: Any) -> Datastore:
        found: Datastore = answered("datastore", self._call("GET", f"/datastores/{name}"))
        return found

    def get_default(self, **kwargs: Any) -> Datastore:
        return self.get("workspaceblobstore")

    def create_or_update(self, datastore: Datastore) -> Datastore:
        made: Datastore = answered("datastore", self._call("PUT", f"/datastores/{datastore.name}", body=datastore.document()))
        return made

    def delete(self, name: str) -> None:
        self._call("DELETE", f"/datastores/{name}")


class ComputeOperations(Operations):
    def list(self, *, compute_type: str | None = None, **kwargs: Any) -> Iterator[Compute]:
        for document in self._transport.pages(self._path("/computes")):
            if compute_type is None or document["type"].lower() == compute_type.lower():
                yield answered("compute", document)

    def get(self, name: str) -> AmlCompute | LocalCompute:
        found: AmlCompute | LocalCompute = answered("compute", self._call("GET", f"/computes/{name}"))
        return found

    def begin_create_or_update(self, compute: Compute) -> Poller[Compute]:
        return _finished(answered("compute", self._call("PUT", f"/computes/{compute.name}", body=compute.document())))

    begin_update = begin_create_or_update

    def begin_delete(self, name: str, **kwargs: Any) -> Poller[None]:
        self._call("DELETE", f"/computes/{name}")
        return _finished(None)


class WorkspaceOperations(Operations):
    def list(self, **kwargs: Any) -> Iterator[Workspace]:
        for document in self._transport.pages("/api/v1/workspaces"):
            yield Workspace.answered(document)

    def get(self, name: str | None = None, **kwargs: Any) -> Workspace:
        name = name or self._transport.connection.workspace
        found = Workspace.answered(self._transport.call("GET", f"/api/v1/workspaces/{name}"))
        found.mlflow_tracking_uri = f"{self._transport.connection.url}/ws/{name}"
        return found

    def begin_create(self, workspace: Workspace, **kwargs: Any) -> Poller[Workspace]:
        answer = self._transport.call("PUT", f"/api/v1/workspaces/{workspace.name}", body=workspace.document())
        return _finished(Workspace.answered(answer))

    begin_update = begin_create

    def begin_delete(self, name: str, **kwargs: Any) -> Poller[None]:
        self._transport.call("DELETE", f"/api/v1/workspaces/{name}")
        return _finished(None)


class RegistryOperations(Operations):
    """Registries hold assets that workspaces share; MLClient(registry_name=…) works on what is in one."""

    def list(self, **kwargs: Any) -> Iterator[Registry]:
        for document in self._transport.pages("/api/v1/workspaces", {"kind": "registry"}):
            yield _registry(document)

    def get(self, name: str | None = None, **kwargs: Any) -> Registry:
        found = self._transport.call("GET", f"/api/v1/workspaces/{name or self._transport.connection.workspace}")
        if found.get("kind") != "registry":
            raise NotFound(f"{name} is a workspace, not a registry", hint="`yard registry list` shows those there are.")
        return _registry(found)

    def begin_create(self, registry: Registry, **kwargs: Any) -> Poller[Registry]:
        made = self._transport.call("PUT", f"/api/v1/workspaces/{registry.name}", body=registry.workspace().document())
        return _finished(_registry(made))

    begin_create_or_update = begin_create

    def begin_delete(self, name: str, **kwargs: Any) -> Poller[None]:
        self.get(name)
        self._transport.call("DELETE", f"/api/v1/workspaces/{name}")
        return _finished(None)


def _registry(document: dict[str, Any]) -> Registry:
    names = ("id", "name", "description", "tags", "location", "creation_context")
    return Registry.answered({name: document[name] for name in names if name in document})


class JobOperations(Operations):
    def create_or_update(self, job: Job, *, experiment_name: str | None = None, compute: str | None = None, **kwargs: Any) -> Any:
        """Submit. Local code, inputs and environment files are uploaded first."""
        if experiment_name:
            job.experiment_name = experiment_name
        if compute:
            job.compute = compute
        return _job(self._sent("/jobs", job))

    def validate(self, job: Job) -> None:
        """Raises Invalid or NotFound for what can be seen without submitting."""
        type(job).model_validate(job.document())

    def get(self, name: str) -> Any:
        return _job(self._call("GET", f"/jobs/{name}"))

    def list(
        self, *, parent_job_name: str | None = None, list_view_type: str = "ACTIVE_ONLY", max_results: int | None = None, **filters: Any
    ) -> Iterator[Any]:
        archived = {"ACTIVE_ONLY": "false", "ARCHIVED_ONLY": "true"}.get(str(list_view_type).rsplit(".", 1)[-1].upper(), "all")
        params = {"archived": archived, "limit": min(max_results or 200, 200), "parent": parent_job_name, **filters}
        for index, document in enumerate(self._transport.pages(self._path("/jobs"), params)):
            if max_results is not None and index >= max_results:
                return
            yield _job(document)

    def update(self, name: str, changes: dict[str, Any]) -> Any:
        return _job(self._call("PATCH", f"/jobs/{name}", body=changes))

    def begin_cancel(self, name: str) -> Poller[Any]:
        self._call("POST", f"/jobs/{name}/cancel")

        def look() -> tuple[str, Any]:
            job = self.get(name)
            return ("Succeeded" if job.status in JOB.terminal else "InProgress"), job

        return Poller(look)

    def archive(self, name: str) -> None:
        self._call("POST", f"/jobs/{name}/archive")

    def restore(self, name: str) -> None:
        self._call("POST", f"/jobs/{name}/restore")

    def stream(self, name: str, write: Callable[[str], Any] | None = None) -> Any:
        """Print the log as it grows, from its beginning, until the job has ended. The job as it ended then.

        Raises Invalid with the job's error when it failed, as `azure.ai.ml` raises there.
        """
        job = self.follow(name, write or _to_stdout)
        if job.status == JobState.FAILED:
            raise Invalid(describe_failure(job), code="job_failed")
        return job

    def follow(self, name: str, write: Callable[[str], Any]) -> Any:
        """`stream` without raising for a job that failed."""
        offset = 0
        while True:
            try:
                with self._transport.stream(self._path(f"/jobs/{name}/logs"), {"offset": str(offset), "follow": "true"}) as response:
                    check_stream(response)
                    for chunk in response.iter_bytes():
                        offset += len(chunk)
                        write(chunk.decode("utf-8", "replace"))
            except httpx.TransportError:
                time.sleep(0.5)  # the server restarts: the log goes on where it was
                continue
            except Unavailable:
                time.sleep(0.5)
                continue
            job = self.get(name)
            if job.status in JOB.terminal:
                return job

    def log(self, name: str, file: str = "user_logs/std_log.txt") -> str:
        """The whole of one of the job's logs as text."""
        with self._transport.stream(self._path(f"/jobs/{name}/logs"), {"file": file}) as response:
            check_stream(response)
            return str(response.read().decode("utf-8", "replace"))

    def rerun(self, name: str, *, from_failed: bool = False) -> Any:
        """Submit it again with the code, environment and input versions it had; a pipeline also from where it failed."""
        return _job(self._call("POST", f"/jobs/{name}/rerun", params={"from_failed": str(from_failed).lower()}))

    def verify(self, name: str, against: str) -> Verification:
        """Whether both came to the same, bit by bit."""
        verified: Verification = self._call("GET", f"/jobs/{name}/verify", params={"against": against})
        return verified

    def delete(self, name: str) -> None:
        """For good, with its run, artifacts and outputs."""
        self._call("DELETE", f"/jobs/{name}")

    def metrics(self, name: str) -> JobMetrics:
        """The latest value of each metric, and the params."""
        found: JobMetrics = self._call("GET", f"/jobs/{name}/metrics")
        return found

    def outputs(self, name: str) -> dict[str, JobOutput]:
        """The outputs by name."""
        found: dict[str, JobOutput] = self._call("GET", f"/jobs/{name}/outputs")
        return found

    def download(self, name: str, *, download_path: str | Path = ".", output_name: str | None = None, all: bool = False) -> None:
        """The artifacts into `download_path/artifacts`, named outputs into `download_path/named-outputs/NAME`, as azure.ai.ml."""
        found = self.outputs(name)
        if output_name is not None and output_name not in found:
            raise Invalid(f"job {name} has no output {output_name}; it has {', '.join(found)}")
        wanted = list(found) if all else [output_name or "artifacts"]
        for output in wanted:
            folder = Path(download_path) / ("artifacts" if output == "artifacts" else f"named-outputs/{output}")
            download(self._transport, found[output].get("content", found[output]["uri"]), folder, self._progress)


def _to_stdout(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def describe_failure(job: Job) -> str:
    error = job.error or {}
    lines = [f"job {job.name} failed: {error.get('message', 'no reason is known')}"]
    if error.get("hint"):
        lines.append(str(error["hint"]))
    return "\n".join(lines)


class ScheduleOperations(Operations):
    def list(self, *, enabled: bool | None = True, **kwargs: Any) -> Iterator[Schedule]:
        params = {} if enabled is None else {"enabled": str(enabled).lower()}
        for document in self._transport.pages(self._path("/schedules"), params):
            yield Schedule.answered(document)

    def get(self, name: str, **kwargs: Any) -> Schedule:
        return Schedule.answered(self._call("GET", f"/schedules/{name}"))

    def begin_create_or_update(self, schedule: Schedule, **kwargs: Any) -> Poller[Schedule]:
        """Local code and data of the job are uploaded first."""
        if not schedule.name:
            raise Invalid("a schedule needs a name", code="invalid_name")
        document = self._localized(schedule)
        try:
            return _finished(Schedule.answered(self._call("PUT", f"/schedules/{schedule.name}", body=document)))
        except Invalid as error:
            raise schedule.located(error) from None

    def begin_delete(self, name: str, **kwargs: Any) -> Poller[None]:
        self._call("DELETE", f"/schedules/{name}")
        return _finished(None)

    def begin_enable(self, name: str, **kwargs: Any) -> Poller[Schedule]:
        return _finished(Schedule.answered(self._call("POST", f"/schedules/{name}/enable")))

    def begin_disable(self, name: str, **kwargs: Any) -> Poller[Schedule]:
        return _finished(Schedule.answered(self._call("POST", f"/schedules/{name}/disable")))

    def trigger(self, name: str, **kwargs: Any) -> FiredJob:
        """Make the job now."""
        fired: FiredJob = self._call("POST", f"/schedules/{name}/trigger")
        return fired


def _job(document: dict[str, Any]) -> Any:
    """A job of whatever kind."""
    return answered("job", document)


class OnlineEndpointOperations(Operations):
    def list(self, **kwargs: Any) -> Iterator[OnlineEndpoint]:
        for document in self._transport.pages(self._path("/online-endpoints")):
            yield OnlineEndpoint.answered(document)

    def get(self, name: str, **kwargs: Any) -> OnlineEndpoint:
        return OnlineEndpoint.answered(self._call("GET", f"/online-endpoints/{name}"))

    def begin_create_or_update(self, endpoint: OnlineEndpoint, **kwargs: Any) -> Poller[OnlineEndpoint]:
        answer = self._call("PUT", f"/online-endpoints/{endpoint.name}", body=endpoint.document())
        return _finished(OnlineEndpoint.answered(answer))

    def begin_delete(self, name: str, **kwargs: Any) -> Poller[None]:
        self._call("DELETE", f"/online-endpoints/{name}")
        return _finished(None)

    def get_keys(self, name: str) -> EndpointKeys | EndpointToken:
        """The keys, or of an endpoint that takes tokens a token."""
        if self.get(name).auth_mode == "key":
            return EndpointKeys.answered(self._call("POST", f"/online-endpoints/{name}/keys"))
        return EndpointToken.answered(self._call("POST", f"/online-endpoints/{name}/token"))

    def secret(self, name: str) -> str:
        """What opens the endpoint: its primary key, or a token."""
        keys = self.get_keys(name)
        return keys.primary_key if isinstance(keys, EndpointKeys) else keys.access_token

    def list_requests(
        self, name: str, *, deployment_name: str | None = None, failed: bool = False, prediction_id: str | None = None, limit: int = 100
    ) -> Sequence[AnsweredRequest]:
        """What was answered, the newest first. `prediction_id` is what an answer carries in `x-yard-prediction-id`."""
        asked = {"deployment": deployment_name, "failed": failed, "prediction_id": prediction_id, "limit": limit}
        page: Page[AnsweredRequest] = self._call("GET", f"/online-endpoints/{name}/requests", params=asked)
        return page["value"]

    def begin_rollout(self, name: str, rollout: Rollout) -> Poller[OnlineEndpoint]:
        """Move the traffic step by step; the poller ends with the endpoint. `rollout` of it says whether it completed, or why not."""
        self._call("POST", f"/online-endpoints/{name}/rollout", body=rollout.document())

        def look() -> tuple[str, OnlineEndpoint]:
            found = self.get(name)
            return ("InProgress" if (found.rollout or {}).get("status") == RolloutState.RUNNING else "Succeeded"), found

        return Poller(look)

    def abort_rollout(self, name: str) -> RolloutStatus:
        ended: RolloutStatus = self._call("DELETE", f"/online-endpoints/{name}/rollout")
        return ended

    def begin_regenerate_keys(self, name: str, *, key_type: str = "primary", **kwargs: Any) -> Poller[None]:
        self._call("POST", f"/online-endpoints/{name}/regenerate-keys", body={"key_type": key_type})
        return _finished(None)

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
            from ..core.errors import NotFound

            raise NotFound(f"{request_file}: there is no such file", code="file_not_found")
        body = Path(request_file).read_bytes() if request_file is not None else data
        endpoint = self.get(endpoint_name)
        headers = {"Authorization": f"Bearer {self.secret(endpoint_name)}", "Content-Type": "application/json"}
        if deployment_name:
            headers["azureml-model-deployment"] = deployment_name
        try:
            response = httpx.post(str(endpoint.scoring_uri), content=body, headers=headers, timeout=190, trust_env=False)
        except httpx.TransportError as error:
            raise Unavailable(f"the endpoint {endpoint_name} cannot be reached: {error}", code="unreachable") from None
        if response.status_code >= 400:
            kind = Invalid if response.status_code < 500 and response.status_code not in (408, 429) else Unavailable
            raise kind(f"endpoint {endpoint_name} answered {response.status_code}: {response.text[:2000]}", code="scoring_failed")
        return response.text


class BatchEndpointOperations(Operations):
    def list(self, **kwargs: Any) -> Iterator[BatchEndpoint]:
        for document in self._transport.pages(self._path("/batch-endpoints")):
            yield BatchEndpoint.answered(document)

    def get(self, name: str, **kwargs: Any) -> BatchEndpoint:
        return BatchEndpoint.answered(self._call("GET", f"/batch-endpoints/{name}"))

    def begin_create_or_update(self, endpoint: BatchEndpoint, **kwargs: Any) -> Poller[BatchEndpoint]:
        answer = self._call("PUT", f"/batch-endpoints/{endpoint.name}", body=endpoint.document())
        return _finished(BatchEndpoint.answered(answer))

    def begin_delete(self, name: str, **kwargs: Any) -> Poller[None]:
        self._call("DELETE", f"/batch-endpoints/{name}")
        return _finished(None)

    def get_keys(self, name: str) -> EndpointKeys:
        """Of an endpoint whose `auth_mode` is key."""
        return EndpointKeys.answered(self._call("POST", f"/batch-endpoints/{name}/keys"))

    def begin_regenerate_keys(self, name: str, *, key_type: str = "primary", **kwargs: Any) -> Poller[None]:
        self._call("POST", f"/batch-endpoints/{name}/regenerate-keys", body={"key_type": key_type})
        return _finished(None)

    def invoke(
        self, endpoint_name: str, *, deployment_name: str | None = None, inputs: dict[str, Any] | None = None, input: Any = None,
        outputs: dict[str, Any] | None = None, job_name: str | None = None, experiment_name: str | None = None, **kwargs: Any,
    ) -> Any:  # fmt: skip
        """Run the endpoint's pipeline; the job. `inputs` as in a job: values, paths, `Input`s; `input` is the only data input."""
        from ..spec.inputs import Input, Output

        sent = {**(inputs or {}), **({"UriFolder": input} if input is not None else {})}
        job = {
            "inputs": self._localized_inputs({name: value.document() if isinstance(value, Input) else value for name, value in sent.items()}),
            "outputs": {name: value.document() if isinstance(value, Output) else value for name, value in (outputs or {}).items()},
            "deployment_name": deployment_name, "job_name": job_name, "experiment_name": experiment_name,
        }  # fmt: skip
        body = {key: value for key, value in job.items() if value is not None}
        return _job(self._call("POST", f"/batch-endpoints/{endpoint_name}/jobs", body=body))

    def _localized_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Local files and folders uploaded, their addresses in their place."""

        def placed(value: Any) -> Any:
            path = value.get("path") if isinstance(value, dict) else value
            if not isinstance(path, (str, Path)) or not is_local(str(path)) or not Path(path).exists():
                return value
            address = upload(self._transport, Path(path), progress=self._progress)
            return {**value, "path": address} if isinstance(value, dict) else address

        return {name: placed(value) for name, value in inputs.items()}

    def list_jobs(self, endpoint_name: str, **kwargs: Any) -> Iterator[Any]:
        for document in self._transport.pages(self._path(f"/batch-endpoints/{endpoint_name}/jobs")):
            yield _job(document)


class BatchDeploymentOperations(Operations):
    def list(self, endpoint_name: str, **kwargs: Any) -> Iterator[BatchDeployment]:
        for document in self._transport.pages(self._path(f"/batch-endpoints/{endpoint_name}/deployments")):
            yield BatchDeployment.answered(document)

    def get(self, name: str, endpoint_name: str, **kwargs: Any) -> BatchDeployment:
        return BatchDeployment.answered(self._call("GET", f"/batch-endpoints/{endpoint_name}/deployments/{name}"))

    def begin_create_or_update(self, deployment: BatchDeployment, **kwargs: Any) -> Poller[BatchDeployment]:
        path = f"/batch-endpoints/{deployment.endpoint_name}/deployments/{deployment.name}"
        return _finished(BatchDeployment.answered(self._call("PUT", path, body=self._localized(deployment))))

    def begin_delete(self, name: str, endpoint_name: str, **kwargs: Any) -> Poller[None]:
        self._call("DELETE", f"/batch-endpoints/{endpoint_name}/deployments/{name}")
        return _finished(None)

    def list_jobs(self, name: str, endpoint_name: str, **kwargs: Any) -> Iterator[Any]:
        path = self._path(f"/batch-endpoints/{endpoint_name}/jobs")
        for document in self._transport.pages(path, {"deployment": name}):
            yield _job(document)


class OnlineDeploymentOperations(Operations):
    def list(self, endpoint_name: str, **kwargs: Any) -> Iterator[OnlineDeployment]:
        for document in self._transport.pages(self._path(f"/online-endpoints/{endpoint_name}/deployments")):
            yield OnlineDeployment.answered(document)

    def get(self, name: str, endpoint_name: str, **kwargs: Any) -> OnlineDeployment:
        return OnlineDeployment.answered(self._call("GET", f"/online-endpoints/{endpoint_name}/deployments/{name}"))

    def begin_create_or_update(self, deployment: OnlineDeployment, **kwargs: Any) -> Poller[OnlineDeployment]:
        path = f"/online-endpoints/{deployment.endpoint_name}/deployments/{deployment.name}"
        self._call("PUT", path, body=self._localized(deployment))

        def look() -> tuple[str, OnlineDeployment]:
            found = self.get(deployment.name, deployment.endpoint_name)
            return (
                "InProgress" if found.provisioning_state in (ProvisioningState.CREATING, ProvisioningState.UPDATING) else "Succeeded"
            ), found

        return Poller(look, _deployment_error)

    def begin_delete(self, name: str, endpoint_name: str, **kwargs: Any) -> Poller[None]:
        self._call("DELETE", f"/online-endpoints/{endpoint_name}/deployments/{name}")

        def look() -> tuple[str, None]:
            names = [found.name for found in self.list(endpoint_name)]
            return ("InProgress" if name in names else "Succeeded"), None

        return Poller(look)

    def get_logs(self, name: str, endpoint_name: str, *, lines: int = 5000, container_type: str | None = None, **kwargs: Any) -> str:
        path = self._path(f"/online-endpoints/{endpoint_name}/deployments/{name}/logs")
        with self._transport.stream(path, {"lines": str(lines), "container": container_type or "inference-server"}) as response:
            check_stream(response)
            return str(response.read().decode("utf-8", "replace"))

    def try_out(self, deployment: OnlineDeployment, request_files: Sequence[str | Path]) -> Sequence[dict[str, Any]]:
        """Deploy to a new endpoint, send each request, and delete it again: a row {request, status, ms, answer} for each.

        Raises Invalid when the deployment does not become ready, with the reason.
        """
        endpoints = OnlineEndpointOperations(self._transport, self._progress)
        name = f"test-{secrets.token_hex(6)}"
        tried = deployment.model_copy(update={"endpoint_name": name}).settled(deployment.base_path)
        endpoints.begin_create_or_update(OnlineEndpoint(name=name))
        try:
            self.begin_create_or_update(tried).result()
            url, key = str(endpoints.get(name).scoring_uri), endpoints.secret(name)
            rows = []
            for file in request_files:
                headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", "azureml-model-deployment": tried.name}
                began = time.perf_counter()
                response = httpx.post(url, content=Path(file).read_bytes(), headers=headers, timeout=190, trust_env=False)
                spent = round((time.perf_counter() - began) * 1000, 1)
                rows.append({"request": str(file), "status": response.status_code, "ms": spent, "answer": response.text[:2000]})
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

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...spec.nouns import NOUNS
from ..poller import Poller, finished
from ..resources import DeploymentOperations, NamedOperations
from ..transport import Transport

if TYPE_CHECKING:
    from ...spec.batch import BatchDeployment, BatchEndpoint  # noqa: F401 (named as text)
    from ...spec.online import EndpointKeys


class BatchEndpointOperations(NamedOperations["BatchEndpoint"]):
    noun = NOUNS["batch_endpoint"]

    def get_keys(self, name: str) -> EndpointKeys:
        """Of an endpoint whose `auth_mode` is key."""
        from ...spec.online import EndpointKeys

        return EndpointKeys.answered(self._call("POST", f"{self._address(name)}/keys"))

    def begin_regenerate_keys(self, name: str, *, key_type: str = "primary", **kwargs: Any) -> Poller[None]:
        self._call("POST", f"{self._address(name)}/regenerate-keys", body={"key_type": key_type})
        return finished(None)

    def invoke(
        self, endpoint_name: str, *, deployment_name: str | None = None, inputs: dict[str, Any] | None = None, input: Any = None,
        outputs: dict[str, Any] | None = None, job_name: str | None = None, experiment_name: str | None = None, **kwargs: Any,
    ) -> Any:  # fmt: skip
        """Run the endpoint's pipeline; the job. `inputs` as in a job: values, paths, `Input`s; `input` is the only data input."""
        from ...spec.inputs import Input, Output

        sent = {**(inputs or {}), **({"UriFolder": input} if input is not None else {})}
        job = {
            "inputs": self._localized_inputs({name: value.document() if isinstance(value, Input) else value for name, value in sent.items()}),
            "outputs": {name: value.document() if isinstance(value, Output) else value for name, value in (outputs or {}).items()},
            "deployment_name": deployment_name, "job_name": job_name, "experiment_name": experiment_name,
        }  # fmt: skip
        body = {key: value for key, value in job.items() if value is not None}
        return self._transport.read("job", self._call("POST", f"{self._address(endpoint_name)}/jobs", body=body))

    def _localized_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The inputs with local files and folders uploaded and replaced by their addresses."""

        from ...spec.references import is_local
        from ..upload import upload

        def uploaded(value: Any) -> Any:
            path = value.get("path") if isinstance(value, dict) else value
            if not isinstance(path, (str, Path)) or not is_local(str(path)) or not Path(path).exists():
                return value
            address = upload(self._transport, Path(path), progress=self._progress)
            return {**value, "path": address} if isinstance(value, dict) else address

        return {name: uploaded(value) for name, value in inputs.items()}

    def list_jobs(self, endpoint_name: str, **kwargs: Any) -> Iterator[Any]:
        return _jobs(self._transport, self._pages(f"{self._address(endpoint_name)}/jobs"))


class BatchDeploymentOperations(DeploymentOperations["BatchDeployment"]):
    noun = NOUNS["batch_deployment"]

    def list_jobs(self, name: str, endpoint_name: str, **kwargs: Any) -> Iterator[Any]:
        return _jobs(self._transport, self._pages(f"/batch-endpoints/{endpoint_name}/jobs", {"deployment": name}))


def _jobs(transport: Transport, documents: Iterator[Any]) -> Iterator[Any]:
    return (transport.read("job", document) for document in documents)

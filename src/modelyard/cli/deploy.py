"""Waiting for a deployment: its environment's build, its instances, and why it did not become ready."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ..core.errors import Invalid, YardError
from .output import say
from .progress import waiting

if TYPE_CHECKING:
    from ..sdk.client import MLClient

TAIL = 15
"""Lines of the log of a deployment that failed."""
_LOOK_S = 1.0
"""Seconds between two looks at the log of a build."""


def wait_for(ml_client: MLClient, poller: Any, name: str, endpoint: str) -> Any:
    """The deployment when it is ready. None when it did not become so: the reason and the end of its log are said then."""
    what = f"deploying {name} to {endpoint}"
    on = f"the deployment goes on; `yard online-deployment show -n {name} -e {endpoint}` shows it, `… delete -n {name} -e {endpoint}` ends it"
    build = _Build(ml_client, name, endpoint)
    try:
        with waiting(what, on) as line:

            def seen(deployment: Any) -> None:
                for text in build.new_lines():
                    line.clear()
                    say(f"  {text}")
                line.show(f"{what}: {_instances(deployment)}")

            return poller.result(seen=seen)
    except Invalid as error:
        say(f"error: {error}")
        text = _log(ml_client, name, endpoint, "inference-server")
        if text.strip():
            say("its log ends with:")
            for row in text.splitlines()[-TAIL:]:
                say(f"  {row}")
        return None


def _instances(deployment: Any) -> str:
    """`building its environment`, or how many instances answer."""
    instances = deployment.instances or []
    states = [instance.get("state") for instance in instances]
    if not any(states):
        return "preparing its environment"
    return f"{states.count('Running')} of {max(len(states), deployment.instance_count or 1)} instances answer"


class _Build:
    """The log of the environment's build, line by line; nothing where it was built before."""

    def __init__(self, ml_client: MLClient, name: str, endpoint: str) -> None:
        self._client, self._name, self._endpoint = ml_client, name, endpoint
        self._shown, self._looked = 0, time.monotonic()

    def new_lines(self) -> list[str]:
        if time.monotonic() - self._looked < _LOOK_S:
            return []
        self._looked = time.monotonic()
        lines = _log(self._client, self._name, self._endpoint, "storage-initializer").splitlines()
        fresh, self._shown = lines[self._shown :], len(lines)
        # The list of packages stays in the log, and which instance prepared it is of no interest.
        return [text for text in fresh if " + " not in text and not text.startswith("==> instance ")]


def _log(ml_client: MLClient, name: str, endpoint: str, container: str) -> str:
    try:
        return ml_client.online_deployments.get_logs(name, endpoint, container_type=container)
    except YardError:
        return ""  # there is none yet

from __future__ import annotations

from collections.abc import Callable

from ...core.errors import Invalid
from ...spec.environment import Environment
from ...spec.nouns import NOUNS
from ..resources import VersionedOperations
from ..transport import check_stream


class EnvironmentOperations(VersionedOperations[Environment]):
    noun = NOUNS["environment"]

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
            remaining = [line for line in response.iter_lines()] if last.startswith("failed: ") and not response.is_stream_consumed else []
        if last.startswith("failed: "):
            raise Invalid("\n".join([last.removeprefix("failed: "), *remaining]), code="build_failed")
        return last.removeprefix("done: ")

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...core.errors import Invalid
from ...spec.nouns import NOUNS
from ..resources import VersionedOperations

if TYPE_CHECKING:
    from ...spec.environment import Environment


class EnvironmentOperations(VersionedOperations["Environment"]):
    noun = NOUNS["environment"]

    def build(self, name: str, version: str | None = None, log: Callable[[str], None] = print) -> str:
        """Build now; each line of the build's log goes to `log`. The key of the built environment; raises Invalid."""
        return self._streamed(f"/environments/{name}/build", log, params={"version": version} if version else None)

    def lock(self, environment: Environment, log: Callable[[str], None] = print) -> dict[str, Any]:
        """Resolve a definition without building or keeping it: `python`, `packages`, `from_source`, `relaxed`, `notes` and `key`.

        Raises Invalid, which says which requirements stand against which.
        """
        from ..environment_files import with_files

        document = with_files(environment.document(), environment.base_path)
        try:
            answer: dict[str, Any] = json.loads(self._streamed("/environments/lock", log, body=document))
        except Invalid as error:
            raise environment.located(error) from None
        return answer

    def _streamed(self, path: str, log: Callable[[str], None], **request: Any) -> str:
        """The lines of a log go to `log`; how it ended is the answer, or raised."""
        held: list[str] = []
        with self._transport.stream(self._path(path), method="POST", **request) as response:
            for line in response.lines():
                if held and not held[0].startswith("failed: "):
                    log(held.pop())
                held.append(line)  # the last one, or all from the first that may be the end
        if held and held[-1].startswith("done: "):
            for line in held[:-1]:
                log(line)
            return held[-1].removeprefix("done: ")
        raise Invalid("\n".join(held).removeprefix("failed: ") or "the answer broke off", code="build_failed")

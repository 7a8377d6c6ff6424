"""Fields that a yard keeps and answers, and does nothing with: each is declared so where it stands, and named in a note when somebody sets it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel


class Unused:
    """Metadata of such a field: why nothing comes of it. `silent` are values that ask for nothing which a yard does otherwise."""

    def __init__(self, why: str, *silent: Any) -> None:
        self.why, self.silent = why, silent


CLOUD = Unused("belongs to the cloud; it is kept and has no effect here")
NETWORK = Unused("a yard has no networks of its own; who reaches it is settled by where it listens", "enabled", "Enabled")
IDENTITY = Unused("there are no managed identities here", {"type": "none"})
CONTAINERS = Unused("belongs to containers and clusters; it is kept and has no effect here")
SERVICES = Unused("not run on local compute")
TIERS = Unused("the local queue is fair between workspaces and has no tiers")
DELETION = Unused("nothing is deleted by itself")


def unused(spec: BaseModel) -> list[str]:
    """A line for each field that was set and has no effect, by its path."""
    return [f"{path}: {why}" for path, why in _unused(spec, "")]


def _unused(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, BaseModel):
        for name in sorted(value.model_fields_set & type(value).model_fields.keys(), key=list(type(value).model_fields).index):
            field, part = type(value).model_fields[name], getattr(value, name)
            mark = next((item for item in field.metadata if isinstance(item, Unused)), None)
            if mark is None:
                yield from _unused(part, f"{path}{name}.")
            elif part != field.get_default(call_default_factory=True) and _plain(part) not in (None, {}, [], *mark.silent):
                yield f"{path}{name}", mark.why
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _unused(part, f"{path}{key}.")


def _plain(value: Any) -> Any:
    return value.model_dump(exclude_none=True) if isinstance(value, BaseModel) else value

"""Records of the registry, and the limits MLflow sets (reference `mlflow-protocol`, section 2)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ...core.clock import iso
from ...core.errors import Invalid
from ...spec.fields import from_row
from ...spec.model import Model

PROMPT = "mlflow.prompt.is_prompt"
"""The tag by which MLflow tells prompts, which are stored as models, from models."""
STAGES = ("None", "Staging", "Production", "Archived")
_ALIAS = re.compile(r"^[\w\-]{1,255}$", re.ASCII)


@dataclass(frozen=True)
class RegisteredModel:
    name: str
    description: str
    created_ms: int
    updated_ms: int
    created_by: str
    """Empty for one from before this was kept."""
    made_in: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    latest: tuple[ModelVersion, ...] = ()
    """The newest version in each stage."""


@dataclass(frozen=True)
class ModelVersion:
    """`path` is where the files lie, `source` what the client named; both survive the run they came from.

    `content` is where the files stay as they were when the version was created, when that is not the path in its spec.
    """

    name: str
    version: str
    stored: dict[str, Any]
    source: str
    run_id: str | None
    model_id: str | None
    status: str
    stage: str
    created_ms: int
    updated_ms: int
    created_by: str
    made_in: str
    archived: bool
    tags: dict[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    content: str | None = None

    @cached_property
    def spec(self) -> Model:
        return from_row(Model, self.stored, name=self.name, version=self.version)

    @property
    def path(self) -> str:
        return self.content or str(self.stored.get("path") or "")  # long lists are of paths, so that it parses nothing

    @property
    def description(self) -> str:
        return str(self.stored.get("description") or "")

    def document(self) -> dict[str, Any]:
        """Azure's view."""
        return {
            **self.stored,
            "name": self.name,
            "version": self.version,
            "tags": self.tags,
            "stage": None if self.stage == "None" else self.stage,
            **({"job_name": self.run_id} if self.run_id else {}),
            **({"content": self.content} if self.content else {}),
            "id": f"azureml://models/{self.name}/versions/{self.version}",
            "creation_context": {"created_at": iso(self.created_ms), "created_by": self.created_by},
        }


def check_model_name(name: object) -> str:
    """MLflow allows any text without `/` and `:`."""
    if not isinstance(name, str) or not name.strip() or len(name) > 255 or re.search(r"[/:\x00-\x1f]", name):
        raise Invalid("a registered model name has 1 to 255 characters, without `/`, `:` and control characters", code="invalid_name")
    return name


def check_alias(alias: object) -> str:
    if not isinstance(alias, str) or not _ALIAS.match(alias):
        raise Invalid("an alias has 1 to 255 letters, digits, `_` and `-`", code="invalid_alias")
    if re.fullmatch(r"[vV]\d+", alias) or alias.lower() == "latest":
        raise Invalid(f"the alias {alias!r} is reserved", code="invalid_alias")
    return alias


def check_stage(stage: object) -> str:
    for known in STAGES:
        if isinstance(stage, str) and known.lower() == stage.lower():
            return known
    raise Invalid(f"Invalid Model Version stage: {stage}. Value must be one of {', '.join(STAGES)}.", code="invalid_stage")


def check_tag(key: object, value: object) -> tuple[str, str]:
    if not isinstance(key, str) or not key or len(key) > 250:
        raise Invalid("a tag key has 1 to 250 characters", code="invalid_tag")
    text = "" if value is None else str(value)
    if len(text) > 100_000:
        raise Invalid("a tag value in the registry has 100000 characters at most", code="invalid_tag")
    return key, text

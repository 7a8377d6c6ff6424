"""Environments: which Python and packages a job or a deployment runs with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from .fields import Entity, Spec, Version
from .local import EnvironmentFiles, LocalPart
from .unused import CONTAINERS, DELETION


class BuildContext(Spec):
    path: str | None = None
    dockerfile_path: str | None = None


class Route(Spec):
    port: int
    path: str


class InferenceConfig(Spec):
    liveness_route: Route
    scoring_route: Route
    readiness_route: Route


class AutoDeleteSetting(Spec):
    value: str | None = None
    condition: Literal["created_greater_than", "last_accessed_greater_than"] | None = None


class Environment(Entity):
    """An image, a conda file (a path or the mapping itself), a build context, or `pip`: a requirements file or a list.

    On the embedded yard each resolves to a locked virtual environment; an image alone runs on the nearest curated one.
    """

    version: Version | None = None
    image: str | None = None
    conda_file: dict[str, Any] | str | None = None
    pip: list[str] | str | None = None
    constraints: list[str] | None = None
    """Requirements that only limit versions: what `-c FILE` in a requirements file stands for."""
    build: BuildContext | None = None
    inference_config: Annotated[InferenceConfig | None, CONTAINERS] = None
    os_type: Literal["linux", "windows"] | None = None
    datastore: str | None = None
    auto_delete_setting: Annotated[AutoDeleteSetting | None, DELETION] = None
    latest_version: SkipJsonSchema[str | None] = Field(default=None, exclude=True)

    def local_parts(self) -> Iterator[LocalPart]:
        yield EnvironmentFiles(())

    @model_validator(mode="after")
    def _describes_something(self) -> Environment:
        sources = [name for name in ("conda_file", "pip", "build") if getattr(self, name) is not None]
        if len(sources) > 1:
            raise ValueError(f"{' and '.join(sources)} exclude each other; give one")
        if not sources and self.image is None:
            raise ValueError("an environment needs one of image, conda_file, pip and build")
        if self.constraints and self.conda_file is None and self.pip is None:
            raise ValueError("constraints limit what conda_file or pip asks for; give one of them")
        if self.os_type == "windows":
            raise ValueError("os_type windows is not supported; environments run on Linux")
        return self

"""The properties that mean something to a yard, one class for each noun: every name with its type, default and meaning.

`properties` stays a free mapping, as in Azure ML and MLflow: what is not listed here is the user's own, kept and answered as it is.
Code reads and writes through these classes, never by name. No property chooses a program, and none but `job_identity` of a workspace gives a right.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from ..core.errors import Invalid
from ..core.names import nearest

OWN, NOTES = "modelyard.", "modelyard.notes"
"""Prefix of names that are the yard's; the one under which notes are answered."""
YOU, CLIENT, YARD = "you", "the client", "the yard"
"""Who writes a property. The yard's, but for those `noted` among a spec's own, are read from the yard's columns alone."""
_RATE = re.compile(r"\s*(\d+)\s*/\s*(s|sec|second|m|min|minute|h|hour)\s*")
_SECONDS = {"s": 1, "m": 60, "h": 3600}


def _set(default: Any, meaning: str, *, refused: tuple[str, str] | None = None) -> Any:
    """One that you set. `refused` is the code and the hint with which a wrong value is refused; any other is noted, and the default holds."""
    return Field(default, description=meaning, json_schema_extra={"by": YOU, "refused": refused})  # type: ignore[dict-item]


def _sent(meaning: str, name: str) -> Any:
    return Field(None, alias=name, description=meaning, json_schema_extra={"by": CLIENT})


def _noted(meaning: str, name: str | None = None) -> Any:
    """One that the yard writes among those of the spec."""
    return Field(None, alias=name, description=meaning, json_schema_extra={"by": YARD})


def _answered(meaning: str, name: str | None = None) -> Any:
    """One that the yard stores beside the spec, or computes for an answer: a value for it in a spec is ignored."""
    return Field(None, alias=name, description=meaning, json_schema_extra={"by": YARD, "answered": True})


def _extra(field: FieldInfo, key: str) -> Any:
    extra: Any = field.json_schema_extra
    return extra.get(key)


class Properties(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True, defer_build=True, allow_inf_nan=False)

    noun: ClassVar[str]
    answered_family: ClassVar[str | None] = None
    """Prefix of further names that are answered."""

    @classmethod
    def names(cls) -> dict[str, FieldInfo]:
        """Every property by the name under which it stands in a document."""
        return {field.alias or name: field for name, field in cls.model_fields.items()}

    @classmethod
    def read(cls, written: Mapping[str, Any], answered: Mapping[str, Any] | None = None) -> Self:
        """Of a spec, and of what the yard has settled beside it. What cannot be read has its default."""
        values = {**cls.kept(written), **(answered or {})}
        wrong = cls._wrong(values)
        return cls.model_validate({name: value for name, value in values.items() if name not in wrong})

    @classmethod
    def _wrong(cls, values: Mapping[str, Any]) -> dict[str, str]:
        try:
            cls.model_validate(dict(values))
        except ValidationError as error:
            return {str(item["loc"][0]): item["msg"].removeprefix("Value error, ") for item in error.errors(include_url=False)}
        return {}

    @classmethod
    def check(cls, written: Mapping[str, Any]) -> list[str]:
        """A line for each property that looks like one of the yard's and is none, or whose value is none of its type.

        Raises Invalid for a wrong value without which nothing sensible can be done.
        """
        known = cls.names()
        notes = [note for name in written if name not in known and (note := cls._unknown(name))]
        for name, message in cls._wrong({name: value for name, value in written.items() if name in cls._settable()}).items():
            refused = _extra(known[name], "refused")
            if refused is not None:
                raise Invalid(f"property {name} is {written[name]!r}", code=refused[0], hint=refused[1])
            notes.append(f"property {name} is {str(written[name])[:80]!r}, which counts for nothing: {message}")
        return notes

    @classmethod
    def kept(cls, written: Mapping[str, Any]) -> dict[str, Any]:
        """Without what the yard answers: a document that was answered can be sent again."""
        return {name: value for name, value in written.items() if not cls._is_answered(name)}

    @classmethod
    def _is_answered(cls, name: str) -> bool:
        field = cls.names().get(name)
        if field is None:
            return cls.answered_family is not None and name.startswith(cls.answered_family)
        return bool(_extra(field, "answered"))

    @classmethod
    def _settable(cls) -> list[str]:
        return [name for name, field in cls.names().items() if _extra(field, "by") == YOU]

    @classmethod
    def _unknown(cls, name: str) -> str:
        """The note on an unknown property; empty for one that is only the user's."""
        elsewhere = next((other.noun for other in nouns() if other is not cls and name in other._settable()), None)
        if elsewhere is not None:
            return f"property {name} belongs to {elsewhere}; here it has no effect"
        near = nearest(name, cls._settable())
        if near or name.startswith(OWN):
            return f"property {name[:80]} is none that the yard knows and has no effect{near}"
        return ""

    def over(self, written: Mapping[str, Any]) -> dict[str, Any]:
        """The properties `written`, overridden by those that are set on this object."""
        return {**written, **self.model_dump(mode="json", by_alias=True, exclude_unset=True)}


class NotedProperties(Properties):
    """Of a noun that has no field for warnings."""

    remarks: list[str] | None = _answered("When it is written: what was noted of its properties.", NOTES)


def noted(document: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    """An answer with what there is to note, for nouns that have no field for warnings."""
    return {**document, "properties": NotedProperties(remarks=notes).over(document.get("properties", {}))} if notes else document


class WorkspaceProperties(NotedProperties):
    noun = "workspaces"

    job_identity: Literal["job", "user_identity"] = _set(
        "job", "How the jobs act that say nothing of their `identity`: `job` with a token of their own, which changes only what the job has "
        "made; `user_identity` as the user who submitted them.",
        refused=("invalid_identity", "Write job or user_identity."),
    )  # fmt: skip


class JobProperties(Properties):
    noun = "jobs"
    answered_family = "input."

    git_commit: Any = _sent("Commit of the repository that the code lies in.", "azureml.git.commit")
    git_branch: Any = _sent("Its branch.", "azureml.git.branch")
    git_repository: Any = _sent("Its address, without credentials.", "azureml.git.repository_uri")
    git_dirty: Any = _sent("`True` when the code was changed since the commit.", "azureml.git.dirty")
    git_diff: Any = _sent("Where the changes are kept as a patch, or why they are not.", "azureml.git.diff")
    allow_empty: bool = _set(
        False, "A parallel step may have no items, or none that succeeds; otherwise it fails, whatever its thresholds are."
    )
    rerun_of: str | None = _noted("The job that this one was made again from.")
    schedule: str | None = _noted("The schedule that made it.")
    batch_endpoint: str | None = _noted("The batch endpoint that it is a run of.")
    batch_deployment: str | None = _noted("The deployment of that endpoint.")
    step: str | None = _noted("Of a nested pipeline: the step of the outermost one that it is, with those on the way.", "modelyard.step")
    environment: str | None = _answered("The version that `environment` stood for when the job was submitted.")
    environment_key: str | None = _answered("The lock that it ran in.")
    code: str | None = _answered("Digest of the code.")
    machine: dict[str, Any] | None = _answered("The hardware that it ran on.")
    usage: dict[str, Any] | None = _answered("CPU seconds and the most memory.")
    start: str | None = _answered("How its process was started: `warm` or `cold`, with the reason.")
    installed: list[str] | None = _answered("What its command installed beside the environment, as `name==version`.")
    attempt: int | None = _answered("How often it was started.")
    identity: str | None = _answered(
        "`user_identity` when its token may what its submitter may; left out, it changes what it has made itself."
    )
    registered: dict[str, str] | None = _answered("Its outputs that became assets: output → `NAME:VERSION`.")

    @property
    def git(self) -> dict[str, str]:
        """What the client sent of the repository, by property."""
        sent = self.model_dump(by_alias=True, exclude_unset=True)
        return {name: str(value) for name, value in sent.items() if name.startswith("azureml.git.")}

    @property
    def inputs(self) -> dict[str, str]:
        """input → what it stood for when the job was submitted: `name:version sha256:…`, a digest, or an address."""
        return {name.removeprefix("input."): str(value) for name, value in (self.model_extra or {}).items() if name.startswith("input.")}


def _rate(value: Any) -> Any:
    """(requests, seconds)"""
    match = _RATE.fullmatch(str(value)) if not isinstance(value, (tuple, type(None))) else None
    if match is None or int(match[1]) < 1:
        return value if value is None else _raise(f"{value!r} is no rate")
    return int(match[1]), _SECONDS[match[2][0]]


def _raise(message: str) -> Any:
    raise ValueError(message)


def _twin(value: Any) -> Any:
    return None if value in ("", "none") else value


MOST_ROWS = 10_000


def _batching(value: Any) -> Any:
    """The most rows."""
    most = value.get("max") if isinstance(value, dict) and set(value) == {"max"} else value
    if most is None and value is None:
        return None
    if isinstance(most, bool) or not str(most).isdigit() or not 1 <= int(str(most)) <= MOST_ROWS:
        return _raise(f"{value!r} does not say how many rows")
    return int(str(most))


def _callers(value: Any) -> Any:
    """Names. What is none lets nobody in, instead of everybody."""
    if value is None:
        return None
    return [name.strip() for part in (value if isinstance(value, list) else [value]) for name in str(part).split(",") if name.strip()]


class OnlineEndpointProperties(NotedProperties):
    noun = "online endpoints"

    allowed_callers: Annotated[list[str] | None, BeforeValidator(_callers)] = _set(
        None, "Of `auth_mode: aad_token`: callers that are let in, names between commas (`sub`, `oid`, `azp`, `appid`, `email`, "
        "`preferred_username`). Left out, whoever has a token for the yard.",
    )  # fmt: skip


class OnlineDeploymentProperties(Properties):
    noun = "online deployments"

    rate_limit: Annotated[tuple[int, int] | None, BeforeValidator(_rate)] = _set(
        None, "Most requests in a time: `100/s`, `600/min`, `1000/h`. More are answered 429.",
        refused=("invalid_rate", "Write it as 100/s, 600/min or 1000/h."),
    )  # fmt: skip
    scale_on: Literal["requests", "cpu"] = _set(
        "requests", "Of a deployment that scales, what its target is a share of: the requests that its instances may hold, or their CPU.",
        refused=("invalid_scale_on", "Write requests or cpu, or leave it out."),
    )  # fmt: skip
    scale_down_after_s: Annotated[float, Field(ge=0)] = _set(
        60.0, "How many seconds a deployment that scales must have had less to do before an instance ends."
    )
    optimize: Annotated[Literal["onnx"] | None, BeforeValidator(_twin)] = _set(
        None, "`onnx`: serve an MLflow model by an ONNX twin where that is proven to answer the same.",
        refused=("invalid_optimize", "Write onnx, or leave it out."),
    )  # fmt: skip
    batching: Annotated[int | None, BeforeValidator(_batching)] = _set(
        None, "`{max: 64}`: rows of several requests that an MLflow model may be given in one call, whatever its flavour; `{max: 1}`: one request a call.",
        refused=("invalid_batching", f"Write {{max: 64}}, with a number from 1 to {MOST_ROWS}."),
    )  # fmt: skip
    model: str | None = _answered("Where the model's files lie.")
    code: str | None = _answered("Where the scoring code stays as it was.")
    environment: str | None = _answered("The version that `environment` stood for.")
    environment_key: str | None = _answered("The lock that its instances run in.")
    optimized: str | None = _answered("Of `optimize`: whether the twin is used, or why not.")
    batched: str | None = _answered("Whether requests that meet are predicted in one call, or why not.")


class BatchEndpointProperties(NotedProperties):
    noun = "batch endpoints"


class BatchDeploymentProperties(NotedProperties):
    noun = "batch deployments"

    pipeline: str | None = _answered("The component that it runs, `name:version`.")


class DataProperties(NotedProperties):
    noun = "data"

    digest: str | None = _noted("Digest of the files when the version was made.")
    notes: list[str] | None = _noted("What there is to know about the version.")
    job_name: str | None = _noted("The job whose output it is.")
    shared_from: str | None = _noted("In a registry: the version that it was shared from.")


class ModelProperties(NotedProperties):
    noun = "models"

    shared_from: str | None = _noted("In a registry: the version that it was shared from.")


class EnvironmentProperties(NotedProperties):
    noun = "environments"

    notes: list[str] | None = _answered("What of it cannot be had here; once it was resolved, how it was.")
    lock: str | None = _answered("Once it was built: its packages, each at its version.")
    python: str | None = _answered("Once it was built: the version of Python.")
    from_source: list[str] | None = _answered("Once it was built: those of its packages that have no wheel and were built from source.")
    relaxed: list[str] | None = _answered(
        "Once it was resolved: what it asks for that has no release for the Python of this machine, and what was taken."
    )
    shared_from: str | None = _noted("In a registry: the version that it was shared from.")


class ScheduleProperties(NotedProperties):
    noun = "schedules"

    last_error: str | None = _answered("Why the last job could not be made.")


def nouns() -> tuple[type[Properties], ...]:
    return (
        WorkspaceProperties, JobProperties, OnlineEndpointProperties, OnlineDeploymentProperties, BatchEndpointProperties, BatchDeploymentProperties,
        DataProperties, ModelProperties, EnvironmentProperties, ScheduleProperties,
    )  # fmt: skip

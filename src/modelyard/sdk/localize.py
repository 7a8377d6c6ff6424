"""From a spec with local paths to the document that is sent: files uploaded, their addresses put in their place."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from ..core.errors import Invalid, NotFound
from ..spec import yamlfile
from ..spec.batch import PipelineComponentBatchDeployment
from ..spec.component import Component
from ..spec.data import Data
from ..spec.environment import Environment
from ..spec.fields import Spec
from ..spec.inputs import LITERAL_TYPES
from ..spec.job import CommandJob
from ..spec.loading import spec_class, with_files
from ..spec.model import Model
from ..spec.online import OnlineDeployment
from ..spec.pipeline import PipelineComponent, PipelineJob
from ..spec.references import is_local
from ..spec.requirements import file_lines, inline
from ..spec.schedule import Schedule
from ..spec.sweep import SweepJob
from .git import git_state
from .transport import Transport
from .upload import Progress, upload


class Localizer:
    def __init__(self, transport: Transport, progress: Progress | None = None) -> None:
        self.transport = transport
        self.progress = progress

    def document(self, spec: Spec) -> dict[str, Any]:
        """The document of any spec, with everything local uploaded."""
        document = spec.document()
        base = spec.base_path
        if isinstance(spec, CommandJob):
            self._job(document, base)
        elif isinstance(spec, (PipelineJob, PipelineComponent, SweepJob, Component)):
            self._workflow(spec, document, base)
        elif isinstance(spec, PipelineComponentBatchDeployment):
            for part in ("component", "job_definition"):
                inner = getattr(spec, part)
                if isinstance(inner, Spec):
                    self._inner(inner, document[part], base)
        elif isinstance(spec, Schedule):
            if isinstance(spec.create_job.job, dict):
                job = spec._job or with_files(spec_class("job", spec.create_job.job).model_validate(spec.create_job.job).settled(base))
                document["create_job"]["job"] = self.document(job)
        elif isinstance(spec, Environment):
            document = self._environment(document, base)
        elif isinstance(spec, (Data, Model)):
            self._path(document, "path", base)
            if isinstance(spec, Data) and spec.type == "mltable":
                self._check_mltable(spec, base)
        elif isinstance(spec, OnlineDeployment):
            self._deployment(document, base)
        return document

    def _job(self, document: dict[str, Any], base: Path) -> None:
        # Everything local is looked for before anything is sent: a wrong path costs no upload.
        places = [document.get("code"), *(value.get("path") for value in document.get("inputs", {}).values())]
        for place in places:
            if place and is_local(place):
                _existing(base, place)
        if document.get("code") and is_local(document["code"]):
            document["properties"] = {**self._source(_existing(base, document["code"])), **document.get("properties", {})}
            document["code"] = upload(self.transport, _existing(base, document["code"]), code=True, progress=self.progress)
        for value in document.get("inputs", {}).values():
            if value.get("path") and is_local(value["path"]):
                path = _existing(base, value["path"])
                if value.get("type") == "uri_file" and not path.is_file():
                    raise Invalid(f"{path} is a folder, but the input is a uri_file", code="wrong_type")
                value["path"] = upload(self.transport, path, progress=self.progress)
        if isinstance(document.get("environment"), dict):
            document["environment"] = self._environment(document["environment"], base)

    def _workflow(self, spec: Any, document: dict[str, Any], base: Path) -> None:
        """A pipeline, sweep or component: code, data and environments of every step, each relative to the file it stands in."""
        document.update(self._work(document, base, getattr(spec, "additional_includes", None)))
        for value in document.get("inputs", {}).values():
            place = value.get("path") or (value.get("default") if value.get("type") not in LITERAL_TYPES else None)
            if place and "${{" not in place and is_local(place):
                key = "path" if value.get("path") else "default"
                value[key] = upload(self.transport, _existing(base, place), progress=self.progress)
        trial = getattr(spec, "trial", None)
        if isinstance(trial, Spec):
            self._inner(trial, document["trial"], base)
        if isinstance(getattr(spec, "component", None), Component):
            self._inner(spec.component, document["component"], base)
        for name, node in (getattr(spec, "jobs", None) or {}).items():
            if isinstance(node, Spec):
                self._workflow(node.settled(base), document["jobs"][name], base)

    def _inner(self, spec: Any, document: dict[str, Any], base: Path) -> None:
        """A component inside: relative to its own file when it came from one."""
        self._workflow(spec, document, spec._base_path or base)

    def _work(self, document: dict[str, Any], base: Path, includes: list[str] | None) -> dict[str, Any]:
        """The code and environment of what runs, also of a parallel step's task."""
        found = dict(document)
        code = found.get("code")
        if code and is_local(code) and found.get("type") != "spark":
            path = _existing(base, code)
            found["code"] = (
                self._with_includes(path, base, includes) if includes else upload(self.transport, path, code=True, progress=self.progress)
            )
        elif includes and not code:
            found["code"] = self._with_includes(None, base, includes)
        found.pop("additional_includes", None)
        if isinstance(found.get("environment"), dict):
            found["environment"] = self._environment(found["environment"], base)
        if isinstance(found.get("task"), dict):
            found["task"] = self._work(found["task"], base, None)
        return found

    def _with_includes(self, code: Path | None, base: Path, includes: list[str]) -> str:
        """The code folder with the `additional_includes` beside its files, as one snapshot."""
        import shutil

        with tempfile.TemporaryDirectory() as scratch:
            whole = Path(scratch) / "code"
            if code is None:
                whole.mkdir()
            else:
                shutil.copytree(code, whole)
            for text in includes:
                path = _existing(base, text)
                if path.is_dir():
                    shutil.copytree(path, whole / path.resolve().name, dirs_exist_ok=True)
                else:
                    shutil.copyfile(path, whole / path.name)
            return upload(self.transport, whole, code=True, progress=self.progress)

    def _source(self, code: Path) -> dict[str, str]:
        """The state of the repository the code comes from; its uncommitted changes are kept as a file."""
        state, changes = git_state(code)
        if changes:
            with tempfile.TemporaryDirectory() as folder:
                patch = Path(folder) / "uncommitted.patch"
                patch.write_bytes(changes)
                state["azureml.git.diff"] = upload(self.transport, patch)
        return state

    def _environment(self, document: dict[str, Any], base: Path) -> dict[str, Any]:
        conda, pip, build = document.get("conda_file"), document.get("pip"), document.get("build")
        if build and build.get("path") and is_local(build["path"]):
            document = {
                **document,
                "build": {**build, "path": upload(self.transport, _existing(base, build["path"]), code=True, progress=self.progress)},
            }
        if isinstance(conda, str):
            path = _existing(base, conda)
            loaded = yamlfile.read(path).data
            if not isinstance(loaded, dict):
                raise Invalid(f"{path}: a conda file holds a mapping", code="invalid_environment")
            return _inlined({**document, "conda_file": loaded}, base, path)
        if isinstance(pip, str):
            path = _existing(base, pip)
            return _inlined({**document, "pip": file_lines(_text(path))}, base, path)
        return _inlined(document, base)

    def _deployment(self, document: dict[str, Any], base: Path) -> None:
        code = document.get("code_configuration") or {}
        if code.get("code") and is_local(code["code"]):
            code["code"] = upload(self.transport, _existing(base, code["code"]), code=True, progress=self.progress)
        model = document.get("model")
        if isinstance(model, dict):
            self._path(model, "path", base)
        elif isinstance(model, str) and is_local(model) and (base / model).exists():
            document["model"] = {"path": upload(self.transport, base / model, progress=self.progress), "type": _model_type(base / model)}
        if isinstance(document.get("environment"), dict):
            document["environment"] = self._environment(document["environment"], base)

    def _path(self, document: dict[str, Any], field: str, base: Path) -> None:
        if document.get(field) and is_local(document[field]):
            document[field] = upload(self.transport, _existing(base, document[field]), progress=self.progress)

    @staticmethod
    def _check_mltable(spec: Data, base: Path) -> None:
        if is_local(spec.path) and not (base / spec.path / "MLTable").is_file():
            raise Invalid(f"{base / spec.path} holds no MLTable file, which a data asset of type mltable needs", code="wrong_type")


def _existing(base: Path, text: str) -> Path:
    path = Path(text.removeprefix("file://").removeprefix("file:")).expanduser()
    path = path if path.is_absolute() else base / path
    if not path.exists():
        raise NotFound(f"{path}: there is no such file or folder", code="file_not_found", hint="Local paths are relative to the YAML file.")
    return path


def _model_type(path: Path) -> str:
    return "mlflow_model" if path.is_dir() and (path / "MLmodel").is_file() else "custom_model"


def _inlined(document: dict[str, Any], base: Path, file: Path | None = None) -> dict[str, Any]:
    """The environment with the files in its place that its pip lines name by `-r` and `-c`.

    `file` holds the lines when the document did not. Only files below `base`, or below the folder of `file` when that
    lies elsewhere, are read: a definition that somebody else wrote does not send away what lies around it.
    """
    home = base.resolve() if file is None or file.resolve().is_relative_to(base.resolve()) else file.resolve().parent
    constraints = list(document.get("constraints") or ())

    def read(name: str, source: str) -> tuple[str, str]:
        path = _existing(Path(source).parent, name).resolve()
        if "://" in name or not path.is_relative_to(home):
            raise Invalid(
                f"{source} names {name!r}, which lies outside {home}", code="invalid_environment", hint="Put the file into that folder."
            )
        return str(path), _text(path)

    def inlined(lines: list[str]) -> list[str]:
        found = inline(lines, read, source=str(file or base / "environment"), field="" if file else "pip")
        constraints.extend(found.constraints)
        return found.lines if found.files else lines

    document, conda = dict(document), document.get("conda_file")
    if isinstance(document.get("pip"), list):
        document["pip"] = inlined(document["pip"])
    elif isinstance(conda, dict) and isinstance(conda.get("dependencies"), list):
        document["conda_file"] = {**conda, "dependencies": [
            {**item, "pip": inlined(item["pip"])} if isinstance(item, dict) and isinstance(item.get("pip"), list) else item
            for item in conda["dependencies"]
        ]}  # fmt: skip
    return {**document, "constraints": constraints} if constraints else document


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise Invalid(f"{path} cannot be read as text", code="invalid_environment") from None

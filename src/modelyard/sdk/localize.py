"""From a spec with local paths to the document that is sent: files are uploaded, and their addresses replace the paths."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..core.errors import Invalid
from ..spec import yamlfile
from ..spec.fields import Spec
from ..spec.loading import component_file, spec_class, with_files
from ..spec.local import Code, EnvironmentFiles, Files, Inside, LocalPart, ModelFiles, Unread
from ..spec.references import is_local
from . import environment_files
from .environment_files import existing
from .git import git_state
from .transport import Transport
from .upload import Progress, files_of, upload, upload_files


class Slot(NamedTuple):
    """A part, the document that it is of, and the folder that its paths are relative to."""

    part: LocalPart
    document: dict[str, Any]
    base: Path

    @property
    def value(self) -> Any:
        return _value(self.document, self.part.at)

    def put(self, value: Any) -> None:
        _value(self.document, self.part.at[:-1])[self.part.at[-1]] = value


class Localizer:
    def __init__(self, transport: Transport, progress: Progress | None = None) -> None:
        self.transport = transport
        self.progress = progress

    def document(self, spec: Spec) -> dict[str, Any]:
        """The document of any spec, with everything local uploaded."""
        document = spec.document()
        parts = list(_parts(spec, document, spec.base_path))
        for part in parts:  # a wrong path costs no upload
            _check(part)
        for part in parts:
            self._upload(part)
        return document

    def _upload(self, slot: Slot) -> None:
        match slot.part:
            case Code():
                self._code(slot, slot.part)
            case Files():
                self._files(slot)
            case ModelFiles():
                self._model(slot)
            case EnvironmentFiles():
                self._environment(slot)

    def _code(self, slot: Slot, part: Code) -> None:
        code = slot.value
        if code and not is_local(code) or not (code or part.includes):
            return
        path = existing(slot.base, code) if code else None
        if part.described and path is not None:
            slot.document["properties"] = {**self._source(path), **slot.document.get("properties", {})}
        slot.put(self._with_includes(path, slot.base, part.includes) if part.includes or path is None else self._sent(path, code=True))

    def _files(self, slot: Slot) -> None:
        if slot.value and is_local(slot.value):
            slot.put(self._sent(existing(slot.base, slot.value)))

    def _model(self, slot: Slot) -> None:
        """A path that is there becomes a model by itself; any other text is a reference."""
        model = slot.value
        if isinstance(model, str) and is_local(model) and (slot.base / model).exists():
            slot.put({"path": self._sent(slot.base / model), "type": _model_type(slot.base / model)})

    def _environment(self, slot: Slot) -> None:
        environment, base = slot.value, slot.base
        if (file := component_file(environment)) is not None:
            spec = environment_files.read_definition(existing(base, file))
            environment, base = spec.document(), spec.base_path
            slot.put(environment)
        if not isinstance(environment, dict):
            return
        build = environment.get("build")
        if build and build.get("path") and is_local(build["path"]):
            environment["build"] = {**build, "path": self._sent(existing(base, build["path"]), code=True)}
        environment.update(environment_files.with_files(environment, base))

    def _sent(self, path: Path, *, code: bool = False) -> str:
        return upload(self.transport, path, code=code, progress=self.progress)

    def _with_includes(self, code: Path | None, base: Path, includes: tuple[str, ...]) -> str:
        """The code folder with the `additional_includes` beside its files, as one snapshot."""
        files = dict(files_of(code, code=True)) if code is not None else {}
        for text in includes:
            path = existing(base, text)
            folder = f"{path.resolve().name}/" if path.is_dir() else ""
            files |= {folder + relative: file for relative, file in files_of(path, code=True)}
        return upload_files(self.transport, files.items(), code or base, progress=self.progress)

    def _source(self, code: Path) -> dict[str, str]:
        """The state of the repository the code comes from; its uncommitted changes are uploaded as a patch."""
        state, changes = git_state(code)
        if changes:
            with tempfile.TemporaryDirectory() as folder:
                patch = Path(folder) / "uncommitted.patch"
                patch.write_bytes(changes)
                state["azureml.git.diff"] = upload(self.transport, patch)
        return state


def _parts(spec: Spec, document: dict[str, Any], base: Path) -> Iterator[Slot]:
    """The local parts of a spec and of all that stands in it, each relative to the file that it came from."""
    for part in spec.local_parts():
        match part:
            case Inside(at, inner):
                yield from _parts(inner, _value(document, at), inner._base_path or base)
            case Unread(at, noun):
                yield from _read(Slot(part, document, base), noun)
            case _:
                yield Slot(part, document, base)


def _read(slot: Slot, noun: str) -> Iterator[Slot]:
    """The parts of an inline document, which becomes a spec only here and is replaced by that spec's document."""
    spec = with_files(spec_class(noun, slot.value).model_validate(slot.value).settled(slot.base))
    slot.put(spec.document())
    yield from _parts(spec, slot.value, slot.base)


def _check(slot: Slot) -> None:
    """Raise NotFound or Invalid when a path is not there, or is not what it should be."""
    if isinstance(slot.part, EnvironmentFiles) and (file := component_file(slot.value)) is not None:
        existing(slot.base, file)
        return
    if not isinstance(slot.part, (Code, Files)) or not slot.value or not is_local(slot.value):
        return
    path = existing(slot.base, slot.value)
    if isinstance(slot.part, Code):
        return
    if slot.part.shape == "file" and not path.is_file():
        raise Invalid(f"{path} is a folder, but the input is a uri_file", code="wrong_type")
    if slot.part.shape == "table":
        _check_table(path)


def _check_table(folder: Path) -> None:
    """Raise Invalid when a folder holds no table, or one over files that are not uploaded with it."""
    if not (folder / "MLTable").is_file():
        raise Invalid(f"{folder} holds no MLTable file, which a data asset of type mltable needs", code="wrong_type")
    table = yamlfile.read(folder / "MLTable").data
    for number, entry in enumerate(table.get("paths") or [] if isinstance(table, dict) else []):
        path = next(iter(entry.values()), None) if isinstance(entry, dict) else None
        if isinstance(path, str) and is_local(path) and (path.startswith("/") or ".." in path.split("/")):
            raise Invalid(
                f"{folder / 'MLTable'}: paths.{number}: {path!r} lies outside the folder that is uploaded", code="invalid_table",
                hint="Put the files into the folder, or name them where they are kept: azureml://datastores/…",
            )  # fmt: skip


def _value(document: Any, at: tuple[str, ...]) -> Any:
    """The value at the end of these keys; None where one is absent."""
    for key in at:
        document = document.get(key) if isinstance(document, dict) else None
    return document


def _model_type(path: Path) -> str:
    return "mlflow_model" if path.is_dir() and (path / "MLmodel").is_file() else "custom_model"

"""The files that an environment names, inlined: its conda file, its requirements, and the files that these name in turn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..core.errors import Invalid, NotFound
from ..spec import yamlfile
from ..spec.environment import Environment
from ..spec.loading import load


def with_files(document: dict[str, Any], base: Path) -> dict[str, Any]:
    """An environment's document with the content of its files. Raises NotFound, Invalid."""
    conda, pip = document.get("conda_file"), document.get("pip")
    if isinstance(conda, str):
        path = existing(base, conda)
        loaded = yamlfile.read(path).data
        if not isinstance(loaded, dict):
            raise Invalid(f"{path}: a conda file holds a mapping", code="invalid_environment")
        return _inlined({**document, "conda_file": loaded}, base, path)
    if isinstance(pip, str):
        from ..spec.requirements import file_lines

        path = existing(base, pip)
        return _inlined({**document, "pip": file_lines(_text(path))}, base, path)
    return _inlined(document, base)


def read_definition(path: Path) -> Environment:
    """A file as an environment: one of the noun, a bare conda file, or (`.txt`) a list of requirements. Raises NotFound, Invalid."""
    if path.suffix == ".txt":
        return Environment(pip=path.name).settled(path.resolve().parent)
    document = yamlfile.read(path).data
    if isinstance(document, dict) and "dependencies" in document and not document.keys() & {"conda_file", "image", "pip", "build"}:
        return Environment(conda_file=path.name).settled(path.resolve().parent)
    spec = load("environment", path)
    assert isinstance(spec, Environment)
    return spec


def existing(base: Path, text: str) -> Path:
    """The path that `text` names, relative to `base`. Raises NotFound."""
    path = Path(text.removeprefix("file://").removeprefix("file:")).expanduser()
    path = path if path.is_absolute() else base / path
    if not path.exists():
        raise NotFound(f"{path}: there is no such file or folder", code="file_not_found", hint="Local paths are relative to the YAML file.")
    return path


def _inlined(document: dict[str, Any], base: Path, file: Path | None = None) -> dict[str, Any]:
    """The environment with the files inlined that its pip lines name by `-r` and `-c`.

    `file` holds the lines when the document did not. Only files below `base`, or below the folder of `file` when that
    lies elsewhere, are read: a definition that somebody else wrote cannot upload files from outside its folder.
    """
    home = base.resolve() if file is None or file.resolve().is_relative_to(base.resolve()) else file.resolve().parent
    constraints = list(document.get("constraints") or ())

    def read(name: str, source: str) -> tuple[str, str]:
        path = existing(Path(source).parent, name).resolve()
        if "://" in name or not path.is_relative_to(home):
            raise Invalid(
                f"{source} names {name!r}, which lies outside {home}", code="invalid_environment", hint="Put the file into that folder."
            )
        return str(path), _text(path)

    def inlined(lines: list[str]) -> list[str]:
        if not any(str(line).lstrip().startswith("-") for line in lines):
            return lines  # no option, so no file; the parser of requirements takes long to import
        from ..spec.requirements import inline

        inlined_lines = inline(lines, read, source=str(file or base / "environment"), field="" if file else "pip")
        constraints.extend(inlined_lines.constraints)
        return inlined_lines.lines if inlined_lines.files else lines

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

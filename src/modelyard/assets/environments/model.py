"""From an environment's definition to a list of pip requirements: pure, so that it can be shown before it is built."""

from __future__ import annotations

import fnmatch
import functools
import re
import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Any

from ...core.errors import Invalid, NotFound
from ...core.names import nearest
from ...ports.builder import Requirements
from ...spec.environment import Environment
from ...spec.references import AssetRef

_CONDA = re.compile(r"^(?:(?P<channel>[\w./-]+)::)?(?P<name>[A-Za-z0-9][\w.-]*)\s*(?P<rest>.*)$")
_PIP_NAME = re.compile(r"^(?P<name>[A-Za-z0-9][\w.-]*)\s*(?P<rest>(?:\[[^\]]*\])?.*)$")
_INDEX_OPTION = re.compile(r"^(-i|-f|--index-url|--extra-index-url|--find-links|--trusted-host|--pre)(\s|=|$)")


@dataclass(frozen=True)
class Wanted:
    """What to install, and what a person should know about how it was understood."""

    requirements: Requirements
    notes: tuple[str, ...] = ()


@functools.cache
def _table(name: str) -> dict[str, Any]:
    return tomllib.loads(resources.files(__package__).joinpath(name).read_text())


def curated_names() -> list[str]:
    return [entry["pattern"] for entry in _table("curated.toml")["environment"]]


def curated(name: str) -> Wanted | None:
    """The local equivalent of one of Azure's curated environments, or None for any other name."""
    plain = re.sub(r"^azureml-", "", name.lower())
    for entry in _table("curated.toml")["environment"]:
        if fnmatch.fnmatch(plain, entry["pattern"]):
            note = f"{name} is a curated environment of the cloud service; here it is {', '.join(entry['packages'])}"
            return Wanted(Requirements(tuple(entry["packages"]), entry["python"]), (note,))
    return None


def wanted_by(spec: Environment) -> Wanted:
    """Read a definition. Raises Invalid naming the package or line that cannot be installed here."""
    if spec.build is not None:
        raise Invalid(
            "an environment with a build context needs container builds, which this yard does not do",
            code="containers_unsupported",
            hint="Give conda_file or pip; the image is then not needed.",
        )
    if spec.conda_file is not None:
        wanted = _from_conda(spec.conda_file)
    elif spec.pip is not None:
        lines = spec.pip if isinstance(spec.pip, list) else spec.pip.splitlines()
        wanted = _from_pip(lines)
    else:
        return _from_image(str(spec.image))
    if spec.image:
        note = f"image {spec.image} is not used: the environment is built from its package list"
        return Wanted(wanted.requirements, (*wanted.notes, note))
    return wanted


def _from_image(image: str) -> Wanted:
    plain = image.split("@")[0]
    head, _, rest = plain.partition("/")
    if rest and ("." in head or ":" in head):
        plain = rest
    plain = plain.rsplit(":", 1)[0] if ":" in plain.rsplit("/", 1)[-1] else plain
    for entry in _table("curated.toml")["image"]:
        if fnmatch.fnmatch(plain.lower(), entry["pattern"]):
            found = curated(entry["environment"])
            assert found is not None
            note = f"image {image} is not run: containers come later; here it is {', '.join(found.requirements.packages)}"
            python = match[1] if (match := re.search(r"py(?:thon)?:?(3\.?\d+)", image)) else found.requirements.python
            return Wanted(Requirements(found.requirements.packages, _dotted(python)), (note,))
    raise Invalid(
        f"image {image} has no equivalent here: containers are not run by this yard",
        code="containers_unsupported",
        hint="Give the environment a conda_file or pip list beside the image.",
    )


def _dotted(python: str) -> str:
    """`312` and `3.12` are both Python 3.12."""
    return python if "." in python else f"{python[0]}.{python[1:]}"


def _from_conda(document: dict[str, Any] | str) -> Wanted:
    if isinstance(document, str):
        raise Invalid("conda_file is a path; the client reads the file before it sends the environment", code="invalid_environment")
    dependencies = document.get("dependencies")
    if not isinstance(dependencies, list):
        raise Invalid("a conda file has a list `dependencies`", code="invalid_environment")
    packages: list[str] = []
    options: list[str] = []
    notes: list[str] = []
    python = ""
    for item in dependencies:
        if isinstance(item, dict):
            if set(item) != {"pip"} or not isinstance(item["pip"], list):
                raise Invalid(f"a conda file's dependencies are names, or `pip:` with a list; not {item!r}", code="invalid_environment")
            inner = _from_pip([str(line) for line in item["pip"]])
            packages += inner.requirements.packages
            options += inner.requirements.index_options
            notes += inner.notes
            continue
        match = _CONDA.match(str(item).strip())
        if not match:
            raise Invalid(f"{item!r} is not a conda dependency that can be read", code="invalid_environment")
        name, rest = match["name"].lower(), match["rest"].strip()
        if name == "python":
            python = found[0] if (found := re.search(r"\d+(\.\d+)?", rest)) else ""
            continue
        package = _conda_package(name)
        if package:
            packages.append(package + _conda_version(name, rest))
        elif name not in ("pip", "setuptools"):
            notes.append(f"conda package {name} comes with the machine and is not installed")
    return Wanted(Requirements(tuple(packages), python, tuple(options)), tuple(notes))


def _conda_package(name: str) -> str:
    table = _table("conda_names.toml")
    if name in table["base"]:
        return ""
    if name in table["renamed"]:
        return str(table["renamed"][name])
    if name in table["same"]:
        return name
    known = (*table["same"], *table["renamed"], *table["base"])
    raise Invalid(
        f"conda package {name!r} has no known equivalent on PyPI{nearest(name, known)}",
        code="unmapped_conda_package",
        hint="Put it under `pip:` with the name it has there, or leave it out.",
    )


def _conda_version(name: str, rest: str) -> str:
    """Conda's version syntax as pip's: `=1.2` means 1.2.*, `==1.2` exactly, a second `=` is a build string."""
    if not rest:
        return ""
    if rest.startswith("=") and not rest.startswith("=="):
        version = rest[1:].split("=")[0].strip()
        return f"=={version}" if version.endswith("*") else f"=={version}.*" if version.count(".") < 2 else f"=={version}"
    if rest[0].isdigit():
        return f"=={rest.split('=')[0].split(' ')[0]}"
    if re.fullmatch(r"[\s<>=!~,.\w*+-]+", rest):
        return rest.replace(" ", "")
    raise Invalid(f"the version {rest!r} of conda package {name} cannot be read", code="invalid_environment")


def _from_pip(lines: list[str]) -> Wanted:
    provided, before = _table("conda_names.toml")["provided"], _table("conda_names.toml")["provided_before"]
    packages: list[str] = []
    options: list[str] = []
    notes: list[str] = []
    for line in lines:
        text = re.sub(r"(^|\s)#.*$", "", line).strip()
        if not text:
            continue
        if _INDEX_OPTION.match(text):
            options.append(text)
            continue
        if text.startswith("-") or re.match(r"^(git|hg|svn|bzr)\+|^[./~]|^file:", text) or " @ " in text:
            raise Invalid(
                f"requirement {text!r} would have to be built from source; only packages with a wheel are installed",
                code="no_wheel",
                hint="Name a released package, or put the code into the job's own code folder.",
            )
        match = _PIP_NAME.match(text)
        if not match:
            raise Invalid(f"{text!r} is not a requirement that can be read", code="invalid_environment")
        name = re.sub(r"[-_.]+", "-", match["name"]).lower()
        if name in provided:
            replacement = provided[name]
            stands = [replacement] if isinstance(replacement, str) and replacement else list(replacement)
            notes.append(
                f"{match['name']} belongs to the cloud service; "
                + (f"{', '.join(stands)} stands for it" if stands else "the yard provides what it does")
            )
            if name == "xgboost":
                notes[-1] = "xgboost is installed as xgboost-cpu, without its GPU libraries"
                stands = [replacement + match["rest"]]
            packages += stands
            continue
        if name in before and not _installable(text, before[name]["released"]):
            notes.append(f"{text} needs packages without a wheel; the yard provides what it does")
            packages += [package for extra, package in before[name]["extras"].items() if extra in text]
            continue
        packages.append(text)
    return Wanted(Requirements(tuple(packages), "", tuple(options)), tuple(notes))


def _installable(requirement: str, released: list[str]) -> bool:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        allowed = Requirement(requirement).specifier
    except InvalidRequirement:
        return True  # the resolver says what is wrong with it
    return any(allowed.contains(version) for version in released)


def unknown(ref: AssetRef, workspace: str) -> NotFound:
    names = ", ".join(curated_names()[:6])
    return NotFound(
        f"there is no environment {str(ref).removeprefix('azureml:')} in workspace {workspace}, nor among the curated ones",
        code="environment_not_found",
        hint=f"Curated names begin with {names}, …; `yard environment list` shows your own.",
    )

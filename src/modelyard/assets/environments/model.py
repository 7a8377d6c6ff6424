"""From an environment's definition to a list of pip requirements: pure, so that it can be shown before it is built."""

from __future__ import annotations

import fnmatch
import functools
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

from packaging.utils import canonicalize_name

from ...core.errors import Invalid, NotFound
from ...core.names import nearest
from ...ports.builder import Requirements
from ...spec.environment import Environment
from ...spec.references import AssetRef
from ...spec.requirements import Package, file_lines, parse_package, parse_requirements

_CONDA = re.compile(
    r"(?:(?P<channel>[\w./-]+)::)?(?P<name>[A-Za-z0-9][\w.-]*)"
    r"(?P<rest>(?:\[[\w., -]*\])?(?:[ \t]*[=<>!~][=<>!~\w.*+|, \t-]*|[ \t]+[\w.*+]+(?:[ \t]+[\w.*+]+)?|))",
    re.ASCII,
)
"""A name, extras as pip has them, then nothing, a comparison, or (conda's own form) a version and a build apart."""
_CONDA_CHANNELS = ("conda-forge", "defaults", "anaconda", "main", "nodefaults")
"""Channels whose packages are on PyPI too; another one may hold what is nowhere else, so a note says that it is not asked."""


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
        wanted = _from_conda(spec.conda_file, spec.constraints or ())
    elif spec.pip is not None:
        lines = spec.pip if isinstance(spec.pip, list) else file_lines(spec.pip)
        wanted = _from_pip(lines, spec.constraints or ())
    else:
        return _from_image(str(spec.image))
    if spec.image:
        note = f"image {spec.image} is not used: the environment is built from its package list"
        return Wanted(wanted.requirements, (*wanted.notes, note))
    return wanted


def _from_image(image: str) -> Wanted:
    plain = image.split("@")[0]
    head, _, repository = plain.partition("/")
    if repository and ("." in head or ":" in head):
        plain = repository
    plain = plain.rsplit(":", 1)[0] if ":" in plain.rsplit("/", 1)[-1] else plain
    for entry in _table("curated.toml")["image"]:
        if fnmatch.fnmatch(plain.lower(), entry["pattern"]):
            standard = curated(entry["environment"])
            assert standard is not None
            note = f"image {image} is not run: containers come later; here it is {', '.join(standard.requirements.packages)}"
            python = match[1] if (match := re.search(r"py(?:thon)?:?(3\.?[0-9]{1,3})", image)) else standard.requirements.python
            return Wanted(Requirements(standard.requirements.packages, _dotted(python)), (note,))
    raise Invalid(
        f"image {image} has no equivalent here: containers are not run by this yard",
        code="containers_unsupported",
        hint="Give the environment a conda_file or pip list beside the image.",
    )


def _dotted(python: str) -> str:
    """`312` and `3.12` are both Python 3.12."""
    return python if "." in python else f"{python[0]}.{python[1:]}"


def _from_conda(document: dict[str, Any] | str, constraints: Sequence[str]) -> Wanted:
    if isinstance(document, str):
        raise Invalid("conda_file is a path; the client reads the file before it sends the environment", code="invalid_environment")
    dependencies = document.get("dependencies")
    if not isinstance(dependencies, list):
        raise Invalid("a conda file has a list `dependencies`", code="invalid_environment")
    packages: list[str] = []
    pip: list[str] = []
    notes = _unused_fields(document)
    python = ""
    for item in dependencies:
        if isinstance(item, dict):
            if set(item) != {"pip"} or not isinstance(item["pip"], list):
                raise Invalid(f"a conda file's dependencies are names, or `pip:` with a list; not {item!r}", code="invalid_environment")
            pip += item["pip"]
            continue
        name, version = _conda_dependency(item, notes)
        if name == "python":
            python = match[0] if (match := re.search(r"[0-9]{1,3}(\.[0-9]{1,3})?", version)) else ""
            if version and not python:
                raise Invalid(f"{item!r} names no version of Python", code="invalid_environment")
            if "," in version or "|" in version:
                notes.append(f"python {version} is read as Python {python}")
            continue
        package = _conda_package(name)
        if package:
            packages.append(str(parse_package(package + _conda_version(name, version, notes), f"conda dependency {item!r}")))
        elif name not in ("pip", "setuptools"):
            notes.append(f"conda package {name} comes with the machine and is not installed")
    inner = _from_pip(pip, constraints, "conda_file's pip")
    requirements = replace(inner.requirements, packages=(*packages, *inner.requirements.packages), python=python)
    return Wanted(requirements, (*notes, *inner.notes))


def _unused_fields(document: dict[str, Any]) -> list[str]:
    """Notes on the fields of a conda file that have no effect here."""
    channels = document.get("channels")
    private = [str(name) for name in channels if name not in _CONDA_CHANNELS] if isinstance(channels, list) else []
    notes = [f"conda channels {', '.join(private)} are not asked: packages come from the package index"] if private else []
    if document.get("variables"):
        notes.append("variables of a conda file are not set; use environment_variables")
    return notes


def _conda_dependency(item: object, notes: list[str]) -> tuple[str, str]:
    """(name, version as conda writes it). Raises Invalid for what is no name."""
    text = item.strip() if isinstance(item, str) else ""
    match = _CONDA.fullmatch(text)
    if not match or not text.isprintable():
        raise Invalid(f"{item!r} is not a conda dependency that can be read", code="invalid_environment")
    if match["channel"] and match["channel"] not in _CONDA_CHANNELS:
        notes.append(f"{text}: the channel is not asked; the package comes from the package index")
    return match["name"].lower(), match["rest"].strip()


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


def _conda_version(name: str, version_text: str, notes: list[str]) -> str:
    """Conda's version syntax as pip's: `=1.2` means 1.2.*, `==1.2` exactly, a second `=` is a build string."""
    if not version_text:
        return ""
    plain = re.fullmatch(r"=?[ ]*(?P<version>[0-9][\w.!+*-]*)([ ]*=[ ]*|[ ]+)(?P<build>[\w.*-]+)", version_text, re.ASCII)
    if plain:
        notes.append(f"{name} {version_text}: the build {plain['build']} is conda's own and is not looked for")
    if version_text.startswith("=") and not version_text.startswith("=="):
        version = version_text[1:].strip().split("=")[0].split(" ")[0]
        return f"=={version}" if version.endswith("*") else f"=={version}.*" if version.count(".") < 2 else f"=={version}"
    if version_text[0].isdigit():
        return f"=={version_text.split('=')[0].split(' ')[0]}"
    if re.fullmatch(r"[ <>=!~,.\w*+-]+", version_text, re.ASCII):
        return version_text.replace(" ", "")
    raise Invalid(f"the version {version_text!r} of conda package {name} cannot be read", code="invalid_environment")


def _from_pip(lines: Sequence[str], constraints: Sequence[str] = (), field: str = "pip") -> Wanted:
    parsed = parse_requirements(lines, constraints, field=field)
    notes = list(parsed.notes)
    packages = [text for package in parsed.packages for text in _stand_ins(package, notes)]
    requirements = Requirements(tuple(packages), "", parsed.sources, tuple(str(package) for package in parsed.constraints))
    return Wanted(requirements, tuple(notes))


def _stand_ins(package: Package, notes: list[str]) -> list[str]:
    """What is installed for a requirement: itself, or what stands for a package of the cloud service; a note says so."""
    table = _table("conda_names.toml")
    provided, provided_before = table["provided"], table["provided_before"]
    requirement = package.requirement
    if requirement.url is not None:
        return [str(package)]
    if package.name == "xgboost":
        notes.append("xgboost is installed as xgboost-cpu, without its GPU libraries")
        if package.hashes:
            notes.append("xgboost: its hashes are left out, they are of the other package's files")
        return [str(package.renamed(provided["xgboost"]))]
    if package.name in provided:
        replacement = provided[package.name]
        replacements = ([replacement] if replacement else []) if isinstance(replacement, str) else list(replacement)
        instead = f"{', '.join(replacements)} stands for it" if replacements else "the yard provides what it does"
        notes.append(f"{requirement.name} belongs to the cloud service; {instead}")
        return replacements
    if package.name in provided_before and not _installable(package, provided_before[package.name]["released"]):
        notes.append(f"{requirement} needs packages without a wheel; the yard provides what it does")
        extras = {canonicalize_name(extra) for extra in requirement.extras}
        return [stand_in for extra, stand_in in provided_before[package.name]["extras"].items() if extra in extras]
    return [str(package)]


def _installable(package: Package, released: list[str]) -> bool:
    return any(package.requirement.specifier.contains(version) for version in released)


def of_mlflow_model(lines: Sequence[str], constraints: Sequence[str], python: str) -> Wanted:
    """The packages an MLflow model says it needs, in its requirements.txt and python_env.yaml.

    `mlflow` itself becomes `mlflow-skinny` with pandas and numpy: the same loader, without its server.
    """
    parsed = parse_requirements(lines, constraints, field="the model's requirements.txt")
    notes = list(parsed.notes)
    packages = []
    for package in parsed.packages:
        if package.name == "mlflow" and package.requirement.url is None:
            notes.append(f"{package.requirement} is installed as mlflow-skinny with pandas and numpy: the loader without its server")
            package = package.renamed("mlflow-skinny", extras=False)
        packages.append(str(package))
    names = {package.name for package in parsed.packages}
    packages += [name for name in ("pandas", "numpy") if name not in names]
    minor = re.match(r"[0-9]{1,3}\.[0-9]{1,3}(?![0-9])", python)
    if python and minor is None:
        notes.append(f"python_env.yaml asks for Python {python[:40]!r}, which is no version; the yard's own is used")
    limits = tuple(str(package) for package in parsed.constraints)
    return Wanted(Requirements(tuple(packages), minor[0] if minor else "", parsed.sources, limits), tuple(notes))


PUBLIC = "azureml"
"""The registry of the cloud service that has its curated environments."""


def reference_of(identity: str) -> str:
    """What a spec writes for the environment of an identity, as `Resolved` gives it: the name with which the same is resolved again."""
    path, _, version = identity.rpartition(":")
    match path.split("/"):
        case ["curated", name]:
            return f"azureml://registries/{PUBLIC}/environments/{name}/versions/{version}"
        case ["registries", registry, name]:
            return f"azureml://registries/{registry}/environments/{name}/versions/{version}"
    return f"azureml:{identity}"


def unknown(ref: AssetRef, workspace: str) -> NotFound:
    names = ", ".join(curated_names()[:6])
    return NotFound(
        f"there is no environment {str(ref).removeprefix('azureml:')} in workspace {workspace}, nor among the curated ones",
        code="environment_not_found",
        hint=f"Curated names begin with {names}, …; `yard environment list` shows your own.",
    )

"""From an environment's definition to a list of pip requirements: pure, so that it can be shown before it is built."""

from __future__ import annotations

import fnmatch
import functools
import posixpath
import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version
from pydantic import TypeAdapter, ValidationError

from ...core.errors import Invalid, NotFound
from ...ports.builder import OLDEST_RUNTIME, Lock, Requirements
from ...spec import yamlfile
from ...spec.environment import Environment
from ...spec.fields import Variables
from ...spec.references import AssetRef
from ...spec.requirements import Package, file_lines, inline, parse_package, parse_requirements

_CONDA = re.compile(
    r"(?:(?P<channel>[\w./-]+)::)?(?P<name>[A-Za-z0-9_][\w.-]*)"
    r"(?P<rest>(?:\[[\w., -]*\])?\[[^\[\]]*\]|(?:\[[\w., -]*\])?(?:[ \t]*[=<>!~][=<>!~\w.*+|, \t-]*|[ \t]+[\w.*+]+(?:[ \t]+[\w.*+]+)?|))",
    re.ASCII,
)
"""A name, extras as pip has them, then nothing, a comparison, or (conda's own forms) a version and a build apart, or fields in brackets."""
_BRACKET = re.compile(r"\[(.*)\]")
MOST_VARIABLES = 16_000
"""Characters of the variables of a conda file."""
_VARIABLES: TypeAdapter[dict[str, str]] = TypeAdapter(Variables)
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


CURATED = (
    "sklearn-1.5", "lightgbm-3.3", "xgboost-sklearn-py38", "acpt-pytorch-2.8-cuda12.6", "tensorflow-2.16-cuda12", "responsibleai-tabular",
    "model-evaluation", "AutoML", "minimal-py311-inference", "mlflow-py312-inference",
)  # fmt: skip
"""Some of the curated names, for people to choose from; many more are understood."""


def curated(name: str) -> Wanted | None:
    """The local equivalent of one of Azure's curated environments, or None for any other name."""
    table = _table("curated.toml")
    plain = re.sub(r"^azureml-", "", name.lower())
    for entry in table["environment"]:
        match = re.fullmatch(entry["name"], plain, re.ASCII)
        if match is None:
            continue
        packages = [line.replace("{version}", match.groupdict().get("version") or "") for line in entry["packages"]]
        python = f"{of_name[1]}.{of_name[2]}" if (of_name := re.search(r"-py(3)\.?([0-9]{1,2})(?![0-9])", plain)) else entry["python"]
        if entry.get("torch"):
            python = entry["python"]  # of the wheels of torch
        elif "inference" in plain and python == "3.7" and not plain.startswith("tensorflow-1"):
            python = "3.8"  # on which model servers run
        packages += (*table["shared"]["client"], *table["shared"]["tables"])
        notes = [f"{name} is a curated environment of the cloud service; here it is {', '.join(packages)}"]
        if entry.get("torch"):
            notes.append(f"{name}: its own PyTorch build is not had here; {packages[0]} stands for it")
        stand_ins = _StandIns(frozenset(), frozenset(), python, [])
        installed = tuple(text for line in packages for text in stand_ins.of(parse_package(line)))
        return Wanted(_with_setuptools(Requirements(installed, python, originals=tuple(stand_ins.originals))), tuple(notes))
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
            standard = curated(entry["environment"].format(name=plain.rsplit("/", 1)[-1])) or curated("minimal-image")
            assert standard is not None
            requirements = standard.requirements
            note = f"image {image} is not run: containers come later; here it is {', '.join(requirements.packages)}"
            python = match[1] if (match := re.search(r"py(?:thon)?:?(3\.?[0-9]{1,3})", image)) else requirements.python
            return Wanted(replace(requirements, python=_dotted(python)), (note,))
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
    packages: dict[str, None] = {}
    pip: list[str] = []
    notes = _unused_fields(document)
    python = ""
    left_out: list[str] = []
    for item in dependencies:
        if isinstance(item, dict):
            pip += _pip_part(item)
            continue
        name, version = _conda_dependency(item, notes)
        if name == "python":
            python = _conda_python(version, item)
            continue
        package = (
            _conda_package(name, notes) if version else _table("conda_names.toml")["succeeded"].get(name) or _conda_package(name, notes)
        )
        if package:
            packages[str(parse_package(package + _conda_version(name, version, notes), f"conda dependency {item!r}"))] = None
        elif name != "pip":
            left_out.append(name)
    if left_out:
        notes.append(f"not installed, they come with the machine or with other packages: {', '.join(left_out)}")
    inner = _from_pip(pip, constraints, "conda_file's pip", python, tuple(map(parse_package, packages)))
    requirements = replace(inner.requirements, variables=_conda_variables(document))
    return Wanted(_with_setuptools(requirements), (*notes, *inner.notes))


def _pip_part(item: dict[Any, Any]) -> list[str]:
    """The list below `pip:`, none when it is left empty."""
    lines = item.get("pip")
    if set(item) != {"pip"} or not (lines is None or isinstance(lines, list)):
        raise Invalid(f"a conda file's dependencies are names, or `pip:` with a list; not {item!r}", code="invalid_environment")
    return lines or []


def _unused_fields(document: dict[str, Any]) -> list[str]:
    """Notes on the fields of a conda file that have no effect here."""
    channels = document.get("channels")
    private = [str(name) for name in channels if name not in _CONDA_CHANNELS] if isinstance(channels, list) else []
    notes = [f"conda channels {', '.join(private)} are not asked: packages come from the package index"] if private else []
    unknown_keys = [str(key) for key in document if key not in ("name", "channels", "dependencies", "variables", "prefix")]
    if unknown_keys:
        notes.append(f"a conda file has no {', '.join(unknown_keys)}: not used")
    return notes


def _conda_variables(document: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """What conda sets when an environment is activated. Raises Invalid for a name or a value that a process cannot have."""
    try:
        variables = _VARIABLES.validate_python(document.get("variables") or {})
        if (size := len(str(variables))) > MOST_VARIABLES:
            raise Invalid(f"conda_file, variables: {size:,} characters; {MOST_VARIABLES:,} are allowed", code="invalid_environment")
        return tuple(sorted(variables.items()))
    except ValidationError as error:
        raise Invalid(f"conda_file, variables: {error.errors()[0]['msg']}", code="invalid_environment") from None


def _conda_python(version: str, item: object) -> str:
    """`3.8`, or the limits that a range sets, such as `>=3.6,<3.9`; empty for any."""
    choices = [choice.strip() for choice in version.split("|")] if version else []
    plain = [
        match[1] for choice in choices if (match := re.fullmatch(r"(?:=|==|~=)?[ ]*([0-9]{1,3}(?:\.[0-9]{1,3})?)(?:[.=* ].*)?", choice))
    ]
    if choices and len(plain) == len(choices):
        return max(plain, key=lambda text: [int(part) for part in text.split(".")])
    limits = re.sub(r"\.\*", "", choices[0].split(" ")[0] if "," not in choices[0] else choices[0]).replace(" ", "") if choices else ""
    try:
        return str(SpecifierSet(limits)) if limits and limits != "*" else ""
    except InvalidSpecifier:
        raise Invalid(f"{item!r} names no version of Python", code="invalid_environment") from None


def _with_setuptools(requirements: Requirements) -> Requirements:
    """conda brings setuptools along, and packages of the time of Python before 3.12 import `pkg_resources` without saying so."""
    minor = re.fullmatch(r"3\.([0-9]{1,3})", requirements.python)
    named = any(parse_package(line).name == "setuptools" for line in requirements.packages)
    if named or not minor or int(minor[1]) >= 12:
        return requirements
    return replace(requirements, packages=(*requirements.packages, "setuptools<81"))


def _conda_dependency(item: object, notes: list[str]) -> tuple[str, str]:
    """(name, version as conda writes it). Raises Invalid for what is no name."""
    text = item.strip() if isinstance(item, str) else ""
    match = _CONDA.fullmatch(text)
    if not match or not text.isprintable():
        raise Invalid(f"{item!r} is not a conda dependency that can be read", code="invalid_environment")
    if match["channel"] and match["channel"] not in _CONDA_CHANNELS:
        notes.append(f"{text}: the channel is not asked; the package comes from the package index")
    rest = match["rest"].strip()
    if bracket := _BRACKET.fullmatch(rest):
        fields = dict(re.findall(r"(\w+)\s*=\s*['\"]?([^'\"\],]+(?:,[<>=!~][^'\"\],]+)*)", bracket[1]))
        if "version" not in fields and "build" not in fields and "channel" not in fields:
            return match["name"].lower(), rest  # extras, as pip has them
        rest = fields.get("version", "").strip()
    return match["name"].lower(), rest


def _conda_package(name: str, notes: list[str]) -> str:
    """The name on the package index; empty for what is not installed."""
    table = _table("conda_names.toml")
    if name in table["renamed"]:
        return str(table["renamed"][name])
    if name in table["same"] or name in table["known"]:
        return name
    if any(fnmatch.fnmatchcase(name, pattern) for pattern in table["base"]):
        return ""
    if name.startswith("r-"):
        raise Invalid(
            f"conda package {name} is a package of R, which the package index does not have",
            code="unmapped_conda_package",
            hint="Leave it out and install it by R itself, in the command or on the machine.",
        )
    notes.append(f"conda package {name} is looked for under the same name on the package index")
    return name


def _conda_version(name: str, version_text: str, notes: list[str]) -> str:
    """Conda's version syntax as pip's: `=1.2` means 1.2.*, `==1.2` exactly, a second `=` is a build string, `|` parts choices."""
    extras, version_text = (version_text, "") if version_text.startswith("[") else ("", version_text)
    text = version_text.split("|")[0].strip()
    if text != version_text:
        notes.append(f"{name} {version_text}: the first of these versions is taken")
    if not text or text == "*" or re.fullmatch(r"=?\*=[\w.*]+", text, re.ASCII):
        return extras
    plain = re.fullmatch(r"=?=?[ ]*(?P<version>[0-9][\w.!+*-]*)([ ]*=[ ]*|[ ]+)(?P<build>[\w.*-]+)", text, re.ASCII)
    if plain:
        notes.append(f"{name} {text}: the build {plain['build']} is conda's own and is not looked for")
        text = text[: plain.start("build")].rstrip("= ")
    if re.fullmatch(r"[0-9][\w.!+*]*", text, re.ASCII):
        return f"=={text}"
    if re.fullmatch(r"=[ ]*[0-9][\w.!+*]*", text, re.ASCII):
        version = text[1:].strip()
        return f"=={version}" if version.endswith("*") else f"=={version}.*" if version.count(".") < 2 else f"=={version}"
    if re.fullmatch(r"[ <>=!~,.\w*+-]+", text, re.ASCII):
        return text.replace(" ", "")
    raise Invalid(f"the version {version_text!r} of conda package {name} cannot be read", code="invalid_environment")


def _from_pip(
    lines: Sequence[str], constraints: Sequence[str] = (), field: str = "pip", python: str = "", of_conda: tuple[Package, ...] = ()
) -> Wanted:  # fmt: skip
    parsed = parse_requirements(lines, constraints, field=field)
    notes = list(parsed.notes)
    all_packages = (*of_conda, *parsed.packages)
    named = frozenset(package.name for package in (*all_packages, *parsed.constraints))
    stand_ins = _StandIns(named, frozenset(package.name for package in parsed.constraints), python, notes)
    packages = dict.fromkeys(text for package in all_packages for text in stand_ins.of(package))
    limits = tuple(str(package) for package in parsed.constraints)
    requirements = Requirements(tuple(packages), python, parsed.sources, limits, originals=tuple(stand_ins.originals))
    return Wanted(requirements, tuple(notes))


class _StandIns:
    """What is installed for a requirement: itself, or what stands for it here, of which a note says so."""

    def __init__(self, named: frozenset[str], limited: frozenset[str], python: str, notes: list[str]) -> None:
        """`named`: all that the list names; `limited`: whose versions its constraints limit."""
        self.originals: list[tuple[str, str]] = []
        self._named, self._limited, self._python, self._notes = named, limited, python, notes
        self._table = _table("conda_names.toml")

    def of(self, package: Package) -> list[str]:
        requirement = package.requirement
        if requirement.url is not None:
            return [str(package)]
        if package.name in self._table["cpu_build"] and (build := self._cpu_build(package)):
            return [build]
        if package.name in self._table["provided"]:
            replacements = [line for line in self._table["provided"][package.name] if not self._is_named(parse_package(line).name)]
            instead = f"{', '.join(replacements)} stands for it" if replacements else "what it does here is provided, or in this list"
            if package.name in ("azureml-core", "azureml-defaults"):
                instead = "it is left out: it speaks to the service"
            self._notes.append(f"{requirement.name} belongs to the cloud service; {instead}")
            return replacements
        before = self._table["provided_before"].get(package.name)
        if before and not _has_release(package, before["released"]):
            self._notes.append(f"{requirement} needs packages without a wheel; the yard provides what it does")
            extras = {canonicalize_name(extra) for extra in requirement.extras}
            return [stand_in for extra, stand_in in before["extras"].items() if extra in extras]
        return [str(package)]

    def _is_named(self, name: str) -> bool:
        return name in self._named or (name == "mlflow-skinny" and "mlflow" in self._named)

    def _cpu_build(self, package: Package) -> str:
        """The build without GPU libraries; empty where it does not have what is asked for."""
        build = self._table["cpu_build"][package.name]
        minor = re.fullmatch(r"3\.([0-9]{1,3})", self._python)
        if minor and int(minor[1]) < int(build["python"].removeprefix("3.")) or package.name in self._limited or package.hashes:
            return ""
        if not _has_release(package, build["released"]):
            return ""
        line = str(package.renamed(build["name"]))
        self._notes.append(f"{package.name} is installed as {build['name']}, without its GPU libraries")
        self.originals.append((line, str(package)))
        return line


def _has_release(package: Package, released: list[str]) -> bool:
    return any(package.requirement.specifier.contains(version) for version in released)


SKINNY_FROM = Version("1.14.0")
"""The first release of MLflow whose loader there is alone."""


def of_mlflow_model(read: Callable[[str], str | None]) -> Wanted:
    """What an MLflow model was logged with; it is never relaxed. `read` answers a file of the model's folder, None where there is none.

    In MLflow's own order: python_env.yaml, which usually names requirements.txt; else that file; else the pip list of conda.yaml. Packages
    that conda.yaml alone names are installed too (MLflow: only by conda itself). `mlflow` becomes `mlflow-skinny` with pandas and numpy:
    the same loader, without its server. Raises Invalid for a model that says nothing.
    """
    described, conda, text = _yaml(read, "python_env.yaml"), _yaml(read, "conda.yaml"), read("requirements.txt")
    if described is None and conda is None and text is None:
        raise Invalid(
            "the model holds no python_env.yaml, requirements.txt or conda.yaml; give the deployment an environment",
            code="model_without_requirements",
        )
    notes: list[str] = []
    conda_python, of_conda, pip = _conda_of_model(conda or {}, notes)
    if isinstance(listed := (described or {}).get("dependencies"), list):
        lines, source = [*_setuptools_of(described or {}), *listed], "python_env.yaml"
    else:
        lines, source = (pip, "conda.yaml") if text is None else (file_lines(text), "requirements.txt")

    def included(name: str, source: str) -> tuple[str, str]:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), name))
        content = read(path)
        if content is None:
            raise Invalid(f"{source} names {name!r}, which is no file of the model", code="invalid_environment")
        return path, content

    inlined = inline(map(str, lines), included, source=source)
    parsed = parse_requirements(inlined.lines, inlined.constraints, field=f"the model's {source}")
    notes += parsed.notes
    named = {package.name for package in parsed.packages}
    every = (*parsed.packages, *(package for package in of_conda if package.name not in named))
    python = str((described or {}).get("python") or conda_python or "")
    minor = re.match(r"[0-9]{1,3}\.[0-9]{1,3}(?![0-9])", python)
    if python and minor is None:
        notes.append(f"the model asks for Python {python[:40]!r}, which is no version; the yard's own is used")
    limited = frozenset(package.name for package in parsed.constraints)
    stand_ins = _StandIns(frozenset(package.name for package in every), limited, minor[0] if minor else "", notes)
    packages: dict[str, None] = {}
    for package in every:
        if package.name == "mlflow" and package.requirement.url is None and _has_skinny(package):
            notes.append(f"{package.requirement} is installed as mlflow-skinny with pandas and numpy: the loader without its server")
            skinny = package.renamed("mlflow-skinny", extras=False)
            stand_ins.originals.append((str(skinny), str(package)))
            packages[str(skinny)] = None
        else:
            packages.update(dict.fromkeys(stand_ins.of(package)))
    packages.update(dict.fromkeys(name for name in ("pandas", "numpy") if name not in {package.name for package in every}))
    requirements = Requirements(
        tuple(packages), minor[0] if minor else "", parsed.sources, tuple(map(str, parsed.constraints)), originals=tuple(stand_ins.originals),
        exact=True, programs=True,
    )  # fmt: skip
    return Wanted(requirements if described else _with_setuptools(requirements), tuple(notes))


def _yaml(read: Callable[[str], str | None], name: str) -> dict[str, Any] | None:
    """A YAML file of a model; None where there is none, or an empty one."""
    text = read(name)
    document = yamlfile.loads(text, file=name).data if text else None
    if document is not None and not isinstance(document, dict):
        raise Invalid(f"the model's {name} is no mapping", code="invalid_environment")
    return document


def _conda_of_model(document: dict[str, Any], notes: list[str]) -> tuple[str, list[Package], list[str]]:
    """(Python, conda's own packages, the pip list) of a model's conda.yaml; what cannot be installed here is noted, as MLflow does."""
    python, packages, pip, left_out = "", [], [], []
    table, dependencies = _table("conda_names.toml"), document.get("dependencies")
    for item in dependencies if isinstance(dependencies, list) else ():
        try:
            if isinstance(item, dict):
                pip += _pip_part(item)
                continue
            name, version = _conda_dependency(item, notes)
            if name == "python":
                python = _conda_python(version, item)
            elif not any(name in table[part] for part in ("renamed", "same", "known")):
                left_out.append(name)
            elif package := _conda_package(name, notes):
                packages.append(parse_package(package + _conda_version(name, version, notes), f"conda.yaml, {item!r}"))
        except Invalid as error:
            notes.append(f"conda.yaml, {str(item)[:80]!r} is not installed: {error.message}")
    if left_out := [name for name in left_out if name != "pip"]:
        notes.append(f"conda.yaml: not installed, as they are conda's own: {', '.join(left_out)}")
    return python, packages, pip


def _setuptools_of(described: dict[str, Any]) -> list[str]:
    """Of what MLflow installs before the packages: some of them import `pkg_resources`."""
    build = described.get("build_dependencies")
    lines = [str(item) for item in build] if isinstance(build, list) else []
    return [line for line in lines if re.match(r"setuptools(?![\w-])", line)]


def _has_skinny(package: Package) -> bool:
    return all(clause.operator != "==" or Version(clause.version.rstrip(".*")) >= SKINNY_FROM for clause in package.requirement.specifier)


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


def older_than_programs(requirements: Requirements) -> bool:
    """Whether a definition asks for a Python on which the programs of the runtime do not run."""
    asked = re.match(r"3\.([0-9]{1,3})(?![0-9])", requirements.python)
    return bool(asked and (3, int(asked[1])) < OLDEST_RUNTIME)


def relaxed(requirements: Requirements, lock: Lock) -> list[str]:
    """Requirements whose version in a lock is none that they allow, each with it."""
    found = []
    versions = {package.name: package.requirement.specifier for package in map(parse_package, lock.packages.splitlines())}
    originals = dict(requirements.originals)
    for line in requirements.packages:
        package = parse_package(line)
        if package.name not in versions and line in originals:
            package = parse_package(originals[line])
        version = next((item.version for item in versions.get(package.name, ())), None)
        if version is not None and not package.requirement.specifier.contains(version, prereleases=True):
            found.append(f"{package.requirement} is {version}")
    return found


def unknown(ref: AssetRef, workspace: str) -> NotFound:
    names = ", ".join(CURATED)
    return NotFound(
        f"there is no environment {str(ref).removeprefix('azureml:')} in workspace {workspace}, nor among the curated ones",
        code="environment_not_found",
        hint=f"Curated names are {names} and their like; `yard environment list` shows your own.",
    )

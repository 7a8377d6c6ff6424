"""What releases of packages need and do not say, from `releases.toml`: pure."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterable
from importlib import resources
from typing import Any

from packaging.requirements import Requirement
from packaging.version import Version

from ...spec.requirements import parse_package


@functools.cache
def _table() -> dict[str, Any]:
    return tomllib.loads(resources.files(__package__).joinpath("releases.toml").read_text())


def needs(pinned: Iterable[str]) -> dict[str, str]:
    """Requirements that the releases of a lock need and that it breaks, each with the line that says so."""
    versions = _versions(pinned)
    found: dict[str, str] = {}
    known: set[tuple[str, str]] = set()
    for entry in _table()["needs"]:
        version, required = versions.get(entry["package"]), Requirement(entry["requires"])
        other = versions.get(required.name)
        if version is None or other is None or version >= Version(entry["before"]) or (entry["package"], required.name) in known:
            continue
        known.add((entry["package"], required.name))
        if required.specifier.contains(other, prereleases=True):
            continue
        found.setdefault(entry["requires"], f"{entry['package']} {version} needs {entry['requires']}, though it does not say so")
    return found


def notes(pinned: Iterable[str]) -> list[str]:
    """What a person should know of the releases of a lock."""
    versions = _versions(pinned)
    return [
        f"{entry['package']} {versions[entry['package']]} {entry['text']}"
        for entry in _table()["note"]
        if entry["beside"] in versions and entry["package"] in versions and versions[entry["package"]] >= Version(entry["since"])
    ]


def _versions(pinned: Iterable[str]) -> dict[str, Version]:
    packages = [parse_package(line) for line in pinned]
    return {package.name: Version(item.version) for package in packages for item in package.requirement.specifier if item.operator == "=="}

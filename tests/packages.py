"""Packages that tests make, and builders that find no others."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

from modelyard.core.addresses import AddressGuard
from modelyard.drivers.builder.configuration import PackageConfiguration
from modelyard.drivers.builder.venv import VenvBuilder
from modelyard.drivers.isolation import Isolation, detect

CONFINED = detect(Path("/tmp"), "auto")


def sdist(folder: Path, name: str, backend: str) -> None:
    """A source distribution that brings its own build backend, so that nothing else is needed to build it."""
    files = {
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": backend,
    }
    with tarfile.open(folder / f"{name}-1.0.tar.gz", "w:gz") as archive:
        for path, text in files.items():
            member = tarfile.TarInfo(f"{name}-1.0/{path}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))


def wheel(
    folder: Path,
    name: str,
    files: dict[str, str] | None = None,
    *requires: str,
    version: str = "1.0",
    tag: str = "py3-none-any",
    python: str = "",
) -> Path:
    """A wheel; `python` is what it says of the Pythons that it needs."""
    stem = name.replace("-", "_")
    about = f"{stem}-{version}.dist-info"
    needed = "".join(f"Requires-Dist: {line}\n" for line in requires) + (f"Requires-Python: {python}\n" if python else "")
    all_files = {
        **(files or {f"{stem}.py": ""}),
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needed}",
        f"{about}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    path = folder / f"{stem}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in all_files.items():
            archive.writestr(member, text)
        archive.writestr(f"{about}/RECORD", "".join(f"{member},,\n" for member in (*all_files, f"{about}/RECORD")))
    return path


def builder_of(tmp_path: Path, isolation: Isolation = CONFINED, allow: str = "", **variables: str) -> VenvBuilder:
    """One whose operator has the folder of packages and an index that is empty."""
    (tmp_path / "empty").mkdir(exist_ok=True)
    settings = {"UV_FIND_LINKS": str(tmp_path / "packages"), "UV_DEFAULT_INDEX": f"file://{tmp_path}/empty", **variables}
    configuration = PackageConfiguration({name: value for name, value in settings.items() if value}, cache=tmp_path / "cache")
    (tmp_path / "envs").mkdir(exist_ok=True)
    return VenvBuilder(tmp_path / "envs", isolation, configuration, AddressGuard.of_setting(allow))

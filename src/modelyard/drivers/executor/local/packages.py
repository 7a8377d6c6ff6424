"""A virtual environment of a job's own, above the one that it runs in, so that `pip install` in a command works as it does anywhere.

jobs/<name>/packages/bin/           python, pip, and the scripts of what was installed: first on the PATH
                    lib/…/site-packages
                    pyvenv.cfg  pip.conf  constraints.txt

The environment below is shared and read-only. Its packages are on the path after the job's own, so that pip finds what is there already,
installs only what is not, and where another version is wanted shadows the shared one, which it sees as outside its environment.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from ....core import trees
from ....ports.builder import Built
from ...isolation import RUNTIME

PLUGIN = RUNTIME / "plugin"
"""By which MLflow asks what the yard wants to know of a run; on the path of every Python."""
MOST_INSTALLED = 1000
_INSTALLED = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._]*)-(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_]*)\.dist-info", re.ASCII)
_PIP = '#!/bin/sh\nexec "${0%/*}/python" -m pip "$@"\n'


def lay_out(packages: Path, built: Built, constraints: Iterable[str]) -> dict[str, str]:
    """Make the environment. The variables by which a command uses it; none where what it stands on is not known."""
    if built.base is None or (below := _site_packages(built.python.parent.parent)) is None:
        return {}
    own = packages / below.relative_to(built.python.parent.parent)
    path = [f"import site; site.addsitedir({str(below)!r})", str(PLUGIN), *([str(built.pip)] if built.pip else [])]
    options = {**built.pip_options, "disable-pip-version-check": "true"}
    limits = "".join(f"{line}\n" for line in constraints)
    if limits:
        options["constraint"] = str(packages / "constraints.txt")
    texts = {
        "pyvenv.cfg": f"home = {built.base.parent}\ninclude-system-site-packages = false\nversion = {below.parent.name.removeprefix('python')}\n",
        "pip.conf": "[global]\n" + "".join(f"{name} = {value}\n" for name, value in options.items()),
        "constraints.txt": limits,
        str((own / "environment.pth").relative_to(packages)): "\n".join((*path, "")),
    }
    trees.make(packages, 0o755)
    with trees.Folder(packages) as folder:
        for name, text in texts.items():
            folder.replace(name, [text.encode()], 0o644)
        for name in ("pip", "pip3"):
            folder.replace(f"bin/{name}", [_PIP.encode()], 0o755)
    for name in ("python", "python3", below.parent.name):
        trees.link(packages / "bin" / name, built.base)
    return {
        "PATH": f"{packages / 'bin'}:{built.variables(1)['PATH']}",
        "VIRTUAL_ENV": str(packages),
        "YARD_PACKAGES": str(own),
        "JUPYTER_PATH": str(built.python.parent.parent / "share" / "jupyter"),  # looked for below the prefix, which is the job's
    }


def _site_packages(environment: Path) -> Path | None:
    """Where packages lie in a virtual environment."""
    try:
        with trees.Folder(environment / "lib") as lib:
            names = [name for name in lib.names() if name.startswith("python3")]
    except OSError:
        return None
    return environment / "lib" / names[0] / "site-packages" if names else None


def installed(packages: Path) -> list[str]:
    """What the command installed, as `name==version`; read from the names of files alone."""
    site = _site_packages(packages)
    if site is None:
        return []
    try:
        with trees.Folder(site) as folder:
            matches = [_INSTALLED.fullmatch(name) for name in folder.names()]
    except (OSError, trees.TooMany):
        return []
    return [f"{match['name']}=={match['version']}" for match in matches if match][:MOST_INSTALLED]

"""python -I …/modelyard_runtime PROGRAM ARGUMENTS…: runs one program of this package, by its path, on any Python.

The package becomes importable under its own name and nothing else does: its folder leaves `sys.path`, so no module of it stands in the
way of a user's. A link to the folder that is named after a program runs that program, for commands that have room for one word only.
"""

import importlib
import importlib.util
import os
import sys

PROGRAMS = {
    "supervisor": "supervision.supervisor",
    "runner": "supervision.runner",
    "sandbox": "supervision.sandbox",
    "build": "supervision.build",
    "router": "serving.router",
    "model_server": "serving.startup",
    "twin": "scoring.twin",
}
FOLDER = os.path.dirname(os.path.realpath(__file__))
PACKAGE = "modelyard_runtime"


def of_jobs() -> "dict[str, str]":
    """Each module of the folder `jobs` is a program."""
    names = (os.path.splitext(file) for file in os.listdir(os.path.join(FOLDER, "jobs")))
    return {name: "jobs." + name for name, suffix in names if suffix == ".py" and not name.startswith("_")}


def register() -> None:
    """Make the package in this folder the one of its name."""
    sys.path[:] = [path for path in sys.path if not path or os.path.realpath(path) != FOLDER]
    spec = importlib.util.spec_from_file_location(PACKAGE, os.path.join(FOLDER, "__init__.py"), submodule_search_locations=[FOLDER])
    assert spec is not None and spec.loader is not None
    sys.modules[PACKAGE] = package = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)


def main() -> int:
    programs = {**PROGRAMS, **of_jobs()}
    name = os.path.basename(sys.argv[0])
    if name not in programs:
        name = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    if name not in programs:
        print("usage: python -I %s PROGRAM ARGUMENTS…, where PROGRAM is one of %s" % (FOLDER, ", ".join(sorted(programs))), file=sys.stderr)
        return 2
    register()
    program = importlib.import_module(PACKAGE + "." + programs[name])
    return int(program.main(sys.argv[1:]) or 0)


if __name__ == "__main__":
    sys.exit(main())

"""The rules of the house, as checks that fail."""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import pytest

import modelyard
from modelyard.core.actor import permission_of
from modelyard.engine.feature import Composition, Feature
from modelyard.storage.unit import Unit

B = TypeVar("B", bound=Unit)
ROOT = Path(modelyard.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
FLOORS = ("tenancy", "assets", "work", "serving", "oversight")

ALLOWED = {
    "sqlalchemy": lambda name: name.startswith("modelyard.storage.") or name.endswith(".store"),
    "fastapi": lambda name: (
        name.endswith((".rest", ".routes"))
        or name
        in (
            "modelyard.app.asgi",
            "modelyard.engine.http",
            "modelyard.engine.openapi",
            "modelyard.engine.resources",
            "modelyard.engine.feature",
        )
    ),
    "starlette": lambda name: (
        name.startswith("modelyard.wire.") or name in ("modelyard.app.asgi", "modelyard.engine.http", "modelyard.engine.dialect")
    ),
    "alembic": lambda name: name.startswith("modelyard.storage."),
    "click": lambda name: name.startswith("modelyard.cli.") or name == "modelyard.app.__main__",
    "rich": lambda name: name.startswith("modelyard.cli."),
}


def module_name(path: Path) -> str:
    return ".".join(("modelyard", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


def imports_of(path: Path) -> list[str]:
    """Absolute names of everything a file imports, inside functions and TYPE_CHECKING blocks too."""
    name = module_name(path)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])])
            found += [f"{base}.{alias.name}" for alias in node.names]
    return found


def test_floors_import_only_downwards() -> None:
    done = subprocess.run([Path(sys.executable).parent / "lint-imports"], capture_output=True, text=True, cwd=ROOT.parent.parent)
    assert done.returncode == 0, done.stdout[-3000:]


def test_libraries_are_imported_only_where_they_belong() -> None:
    wrong = [
        f"{module_name(path)} imports {name}"
        for path in FILES
        for name in imports_of(path)
        if (rule := ALLOWED.get(name.split(".")[0])) is not None and not rule(module_name(path))
    ]
    assert not wrong


def test_of_another_feature_only_its_model_and_use_cases_are_seen() -> None:
    """And what is named here."""
    from modelyard.app.features import FEATURES

    visible = {module.__name__ for feature in FEATURES for module in feature.use_cases}
    helpers = (
        "modelyard.assets.versions.routes", "modelyard.assets.files.fetch",
        "modelyard.assets.files.intake", "modelyard.assets.files.rest.blob_answer", "modelyard.assets.files.rest.take_content",
        "modelyard.assets.files.rest.lost_content",
        "modelyard.work.jobs.kinds", "modelyard.work.jobs.logs.YardLog",
    )  # fmt: skip
    wrong = []
    for path in FILES:
        own = module_name(path).split(".")
        if own[1:2] == ["app"]:
            continue
        for name in imports_of(path):
            parts = name.split(".")
            if parts[0] != "modelyard" or len(parts) < 4 or parts[1] not in FLOORS or parts[1:3] == own[1:3]:
                continue
            if parts[3] != "model" and ".".join(parts[:4]) not in visible and not name.startswith(helpers):
                wrong.append(f"{module_name(path)} imports {name}")
    assert not wrong


FILE_CALLS = {
    "walk", "fwalk", "scandir", "listdir", "glob", "rglob", "iterdir", "rmtree", "copytree", "copy", "copy2", "copyfile", "copyfileobj", "move",
    "read_text", "read_bytes", "write_text", "write_bytes", "touch", "chmod", "lchown", "chown", "mkdir", "makedirs", "rmdir", "unlink",
    "symlink_to", "hardlink_to",
}  # fmt: skip
"""Methods and functions that reach files by path. `open` is looked for as well."""
OWN_FOLDERS = {
    "modelyard.app.home": "control/",
    "modelyard.app.serve": "control/",
    "modelyard.app.soundness": "control/",
    "modelyard.app.maintenance.backup": "control/, backups",
    "modelyard.app.maintenance.restore": "backups, and a home that is not served yet",
    "modelyard.app.maintenance.report": "blobs/",
    "modelyard.app.maintenance.rotate": "control/",
    "modelyard.app.maintenance.gc": "blobs/, trees/, jobs/ by name",
    "modelyard.app.__main__": "makes the folder of a home",
    "modelyard.settings": "server.toml",
    "modelyard.core.home": "makes the folders of a home",
    "modelyard.core.trees": "the one module for what user code can write",
    "modelyard.storage.migrate": "control/backups",
    "modelyard.storage.postgres_copy": "where PostgreSQL's programs are installed",
    "modelyard.drivers.objects.local": "blobs/",
    "modelyard.drivers.vault.local": "control/",
    "modelyard.tenancy.audit.files": "control/audit",
    "modelyard.drivers.supervisor_client": "control/supervisor",
    "modelyard.drivers.executor.local.machine": "/proc and /dev",
    "modelyard.drivers.objects.chunks": "blobs/",
    "modelyard.app.maintenance.replicas": "homes and backups that the operator names",
    "modelyard.drivers.builder.venv": "envs/ but what lies in environments, and the yard's own shims",
    "modelyard.drivers.builder.sandbox": "envs/.scratch, locks in envs/ and the cache of packages by name, and the operator's netrc",
    "modelyard.drivers.builder.configuration": "the operator's configuration of pip and uv",
    "modelyard.drivers.builder.interpreters": "the interpreters of this machine",
    "modelyard.drivers.builder.pythons": "envs/.pythons by name",
    "modelyard.drivers.objects.layout": "trees/, which jobs read only",
    "modelyard.assets.environments.model": "the package's own data",
    "modelyard.drivers.builder.releases": "the package's own data",
    "modelyard.work.compute.model": "the package's own data",
    "modelyard.serving.online.traffic": "control/router",
}
"""Modules of the server that reach files by path → folders that user code cannot write, and which alone they reach so."""


def test_what_user_code_can_write_is_reached_through_one_module() -> None:
    """Of the server, `core.trees` alone reaches files of jobs, models and builds; whoever reaches others by path is named above."""
    client = ("modelyard.sdk", "modelyard.cli", "modelyard.testing", "modelyard.spec", "modelyard.entities", "modelyard.storage.migrations")
    found = {
        module_name(path): calls
        for path in FILES
        if not module_name(path).startswith(client) and (calls := sorted(file_calls(ast.parse(path.read_text()))))
    }
    assert {name: calls for name, calls in found.items() if name not in OWN_FOLDERS} == {}
    assert set(OWN_FOLDERS) - set(found) == set(), "these reach no file by path any more"


def test_what_callers_send_comes_in_by_one_door() -> None:
    """Quotas and possession are decided there; a store is written to otherwise by drivers and by what the yard itself writes."""
    calls = {"put_stream", "append"}
    doors = {
        module_name(path)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in calls
        and isinstance(node.func.value, ast.Attribute)
        and node.func.value.attr == "objects"
    }
    assert doors == {"modelyard.assets.files.intake", "modelyard.assets.files.fetch"}


def file_calls(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id == "open":
            yield "open"
        elif isinstance(node.func, ast.Attribute):
            called, of = node.func.attr, node.func.value
            by_mode = not node.args or isinstance(node.args[0], ast.Constant)  # Path.open(), and not the one of a vault or an object store
            if called in FILE_CALLS or (called == "open" and (by_mode or (isinstance(of, ast.Name) and of.id == "os"))):
                yield called


def test_no_module_is_named_for_nothing() -> None:
    banned = {"utils", "helpers", "manager", "base", "impl", "common", "misc"}
    assert not [path for path in FILES if path.stem in banned]


def test_package_files_hold_no_logic() -> None:
    """Only the root's lazy exports define functions."""
    for path in ROOT.rglob("__init__.py"):
        if path.parent != ROOT:
            assert not [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, (ast.FunctionDef, ast.ClassDef))], path


def test_every_use_case_states_its_permission() -> None:
    from modelyard.app.compose import compose
    from modelyard.app.features import FEATURES

    compose(FEATURES)


def forgotten(unit: Unit) -> None: ...


def hidden_by_its_bound(unit: B) -> None: ...


def internal_one(unit: Unit) -> None: ...


internal_one.internal = True  # type: ignore[attr-defined]


def of_no_unit(text: str) -> None: ...


@pytest.mark.parametrize(
    ("function", "refused"), [(forgotten, True), (hidden_by_its_bound, True), (internal_one, False), (of_no_unit, False)]
)
def test_a_use_case_without_a_permission_keeps_the_server_from_starting(function: Any, refused: bool) -> None:
    """By the type of its first argument, in whatever module a manifest names."""
    module = ModuleType("somewhere")
    module.case = function  # type: ignore[attr-defined]
    function.__module__ = module.__name__
    composition = Composition([Feature("work.somewhere", use_cases=(module,))])
    with pytest.raises(RuntimeError, match="somewhere.case states no permission") if refused else contextlib.nullcontext():
        composition.check_permissions()


def test_a_manifest_names_every_module_with_use_cases_and_every_table() -> None:
    """Nothing of a feature is left out of its manifest: no public function on a unit outside `use_cases`, no table outside `tables`."""
    from modelyard.app.features import FEATURES
    from modelyard.engine.feature import takes_unit
    from modelyard.storage import tables as shared
    from modelyard.storage.tables import metadata

    assert {feature.name for feature in FEATURES} == {
        f"{floor}.{folder.name}" for floor in FLOORS for folder in (ROOT / floor).iterdir() if (folder / "__init__.py").exists()
    }
    own = {name for name, value in vars(shared).items() if isinstance(value, shared.Table)}
    assert {table.name for feature in FEATURES for table in feature.tables} == set(metadata.tables) - own
    for feature in FEATURES:
        named = {module.__name__ for module in feature.use_cases}
        for path in (ROOT / feature.name.replace(".", "/")).glob("*.py"):
            module = importlib.import_module(module_name(path))
            if path.stem in ("store", "feature", "__init__") or module.__name__ in named:
                continue
            cases = [
                n for n, f in vars(module).items() if inspect.isfunction(f) and f.__module__ == module.__name__ and not n.startswith("_")
            ]
            assert not [n for n in cases if takes_unit(getattr(module, n)) and permission_of(getattr(module, n))], module.__name__


def test_no_permission_is_stated_by_a_dialect() -> None:
    """`rest` and `wire` translate: who may do a thing stands where it is done."""
    words = ("actor.requires", "actor.internal", "actor.open_to_all", "actor.permission_of")
    dialects = [path for path in FILES if path.stem in ("rest", "routes") or "wire" in path.parts]
    assert dialects and not [(path, name) for path in dialects for name in imports_of(path) if name.endswith(words)]
    assert not [path for path in dialects if ".permission" in path.read_text()]


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from modelyard.cli.main import run; run(['--help']); print(*sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert not loaded & {"pydantic", "httpx", "rich", "yaml", "fastapi", "sqlalchemy", "modelyard.sdk.client", "modelyard.app"}


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import sys; before = set(sys.modules); import modelyard; print(*[m for m in set(sys.modules) - before if 'pydantic' in m or 'httpx' in m])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""


def test_every_exported_name_exists() -> None:
    for name in modelyard.__all__:
        assert getattr(modelyard, name) is not None
    entities = importlib.import_module("modelyard.entities")
    assert all(hasattr(entities, name) for name in entities.__all__)


def test_runtime_programs_run_on_the_oldest_python() -> None:
    """The programs beside user code keep to the syntax of Python 3.8."""
    import modelyard_runtime

    for path in Path(modelyard_runtime.__file__).parent.rglob("*.py"):
        ast.parse(path.read_text(), feature_version=(3, 8))


def test_migrations_follow_one_another() -> None:
    names = sorted(path.name for path in (ROOT / "storage/migrations/versions").glob("[0-9]*.py"))
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))


def test_lock_file_names_no_index() -> None:
    text = (ROOT.parent.parent / "constraints.txt").read_text()
    assert "://" not in text and "--index" not in text

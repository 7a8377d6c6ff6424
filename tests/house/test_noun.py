"""A noun is said once: the example of docs/extend/noun.md, built into a copy of the program, has everything that a noun has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard.storage.migrations import HEAD
from program_copy import ProgramCopy, insert

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/extend/noun.md").read_text()
FILES = re.findall(r"^\| `(\S+)` \|", PAGE, re.MULTILINE)
MOST = 8
"""Files that a new noun may need, with its migration, its test and its guide."""


def block(language: str, name: str) -> str:
    text = re.search(rf"```{language}\n# {re.escape(name)}\n(.*?)```", PAGE, re.DOTALL)
    assert text is not None, f"the page has no block of {name}"
    return text[1]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProgramCopy]:
    made = ProgramCopy.made(tmp_path_factory.mktemp("noun"))
    package = made.package
    number = f"{int(HEAD) + 1:04}"
    for name in FILES:
        if name.startswith(("tests/", "docs/")) or name in ("spec/nouns.py", "app/features.py"):
            continue
        path = package / name.replace("0042", number)
        path.parent.mkdir(exist_ok=True)
        path.write_text(block("python", name).replace("0042", number).replace("0041", HEAD))
    insert(package / "spec/nouns.py", '    Noun("run", "runs",', block("text", "spec/nouns.py"))
    insert(package / "app/features.py", "\nFEATURES: ", block("text", "app/features.py"))
    insert(package / "app/features.py", "    lineage, cards,\n", "    monitors,\n")
    made.yard("up", "--port", "0", "-o", "none")
    yield made
    made.yard("down", "--all", "-o", "none")


def write(copy: ProgramCopy, **fields: Any) -> str:
    path = copy.root / "monitor.yml"
    path.write_text(json.dumps({"name": "loss", "experiment": "churn", "metric": "loss", "at_most": 0.3, **fields}))
    return str(path)


def test_a_new_noun_needs_no_more_files_than_promised() -> None:
    assert len(FILES) == len(set(FILES)) <= MOST
    assert {"spec/nouns.py", "app/features.py"} <= set(FILES)
    written = re.findall(r"```(?:python|text)\n# (\S+\.py)\n", PAGE)
    assert set(written) == {name for name in FILES if not name.startswith(("tests/", "docs/"))}


def test_the_command_line_has_it(copy: ProgramCopy) -> None:
    assert "Monitors." in copy.yard("--help")
    created = copy.json("monitor", "create", "-f", write(copy))
    assert (created["at_most"], created["severity"], created["creation_context"]["created_by"]) == (0.3, "note", "admin")
    assert copy.json("monitor", "update", "-n", "loss", "--set", "at_most=0.25")["at_most"] == 0.25
    assert [found["name"] for found in copy.json("monitor", "list")] == ["loss"]
    assert copy.yard("monitor", "list", "-o", "table").split()[:3] == ["name", "experiment", "metric"]
    copy.yard("monitor", "delete", "-n", "loss", "-y")
    assert "yard monitor list" in copy.yard("monitor", "show", "-n", "loss", code=3)


def test_a_wrong_file_is_refused_with_its_line_and_the_nearest_name(copy: ProgramCopy) -> None:
    (copy.root / "wrong.yml").write_text("name: loss\nexperiment: churn\nmetrics: loss\nat_most: 1\n")
    said = copy.yard("monitor", "create", "-f", str(copy.root / "wrong.yml"), code=2)
    assert "wrong.yml:3:" in said and "did you mean 'metric'" in said


def test_the_sdk_has_it(copy: ProgramCopy) -> None:
    code = (
        "import sys; from modelyard import MLClient, load_monitor; from modelyard.entities import Monitor; c = MLClient()\n"
        "m = c.monitors.begin_create_or_update(load_monitor(sys.argv[1])).result(); assert isinstance(m, Monitor)\n"
        "assert c.begin_create_or_update(Monitor(name='acc', experiment='e', metric='acc', at_least=1)).result().at_least == 1\n"
        "assert sorted(m.name for m in c.monitors.list()) == ['acc', 'loss']\n"
        "[c.monitors.begin_delete(m.name).wait() for m in list(c.monitors.list())]; print(list(c.monitors.list()))"
    )
    assert copy.python(code, write(copy)).strip() == "[]"


def test_the_api_its_document_the_schema_and_the_references_have_it(copy: ProgramCopy) -> None:
    assert json.loads(copy.yard("schema", "monitor"))["properties"]["severity"]["enum"] == ["note", "alarm"]
    code = (
        "import cli_page, yaml_page, sdk_page, openapi; from modelyard.engine.openapi import document_of, operations; from rest_page import permissions\n"
        "assert '## Monitor' in yaml_page.page() and '| `severity` |' in yaml_page.page()\n"
        "assert '| `monitor create` |' in cli_page.page() and '`load_monitor(' in sdk_page.page() and '`monitors`' in sdk_page.page()\n"
        "of = [o for o in operations(openapi.application()) if o.tag == 'monitors']; document_of(openapi.application())\n"
        "print(*sorted(o.id for o in of)); print(*sorted({p for o in of for p in permissions(o.endpoint)}))"
    )
    ids, actions = copy.python(code).splitlines()
    assert ids.split() == ["monitors_create_or_update", "monitors_delete", "monitors_get", "monitors_list"]
    assert actions.split() == ["workspaces/monitors/delete", "workspaces/monitors/read", "workspaces/monitors/write"]


def test_the_migration_makes_the_table_that_the_noun_has(copy: ProgramCopy) -> None:
    copy.yard("fsck")
    code = (
        "import modelyard.app.features, os; from alembic.autogenerate import compare_metadata; from alembic.migration import MigrationContext\n"
        "import sqlalchemy as sa; from modelyard.storage.tables import metadata\n"
        "engine = sa.create_engine('sqlite:///' + os.environ['YARD_HOME'] + '/control/yard.db')\n"
        "with engine.connect() as c:\n"
        "    print([d for d in compare_metadata(MigrationContext.configure(c), metadata) if 'monitors' in str(d)])"
    )
    assert copy.python(code).strip() == "[]"

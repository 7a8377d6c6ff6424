"""What the documentation says is true."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import click
import pytest

from checked_yard import YardUnderTest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def commands_in(page: Path) -> list[str]:
    """Every `yard …` command of a page's code, in blocks and in tables."""
    text = page.read_text().replace("\\\n", " ")
    found = re.findall(r"^\$? ?(yard [a-z][^\n#]*)", "\n".join(re.findall(r"```(?:sh|console)\n(.*?)```", text, re.DOTALL)), re.MULTILINE)
    return found + re.findall(r"`(yard [a-z][^`…]*)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "noun.md"], ids=lambda page: page.name
)  # its noun is test_noun.py's
def test_every_command_in_the_docs_exists_with_its_flags(page: Path) -> None:
    from modelyard.cli.main import yard

    for command in commands_in(page):
        words = shlex.split(command.split("|")[0].split("&&")[0].replace("[", " ").replace("]", " "))[1:]
        current: click.Command = yard
        while isinstance(current, click.Group) and words and not words[0].startswith("-"):
            context = click.Context(current)
            following = current.get_command(context, words[0].rstrip(",")) if words[0].islower() else None
            if following is None:
                assert current is not yard or words[0].isupper(), f"{page.name}: {command}"
                break
            current, words = following, words[1:]
        known = {option for parameter in current.params for option in parameter.opts} | {"--help"}
        unknown = [word for word in words if word.startswith("-") and word not in known]
        assert not unknown, f"{page.name}: {command}: {unknown}"


def test_every_setting_is_documented() -> None:
    from modelyard.settings import Settings

    text = (ROOT / "docs/reference/settings.md").read_text()
    for field in fields(Settings):
        assert f"| `{field.name}` | `{field.default!r}` |" in text


def test_the_documentation_builds_and_every_link_leads_somewhere(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", tmp_path / "site"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_file_that_the_architecture_says_to_read_first_exists() -> None:
    section = (ROOT / "ARCHITECTURE.md").read_text().split("## Read these ten files first")[1].split("\n## ")[0]
    paths = re.findall(r"^\d+\. `(\S+)`", section, re.MULTILINE)
    assert len(paths) == 10
    assert [path for path in paths if not (ROOT / path).is_file()] == []


def test_every_file_in_the_glossary_exists() -> None:
    code = "\n".join(re.findall(r"^: .*?Code: (.*)", (ROOT / "docs/concepts/glossary.md").read_text(), re.MULTILINE))
    paths = re.findall(r"`(\w[\w/]*(?:\.py|/))`", code)
    assert len(paths) > 40
    assert [path for path in paths if not ((ROOT / "src" / path).exists() or (ROOT / "src/modelyard" / path).exists())] == []


def test_the_glossary_defines_a_term_once() -> None:
    entries = re.findall(r"^\*\*(.+?)\*\* – (.*)\n: ", (ROOT / "docs/concepts/glossary.md").read_text(), re.MULTILINE)
    terms = [term.lower() for names, _ in entries for term in names.split(", ")]
    assert len(terms) == len(set(terms)) > 40


def test_examples_are_read_by_the_loader() -> None:
    from modelyard.spec import loading
    from modelyard.spec.nouns import NOUNS, written

    nouns = {
        "prepare": "job",
        "train": "job",
        "generate": "job",
        "pipeline": "job",
        "endpoint": "online_endpoint",
        "deployment": "online_deployment",
    }
    for path in (ROOT / "examples").rglob("*.yml"):
        text = path.read_text()
        schema = re.search(r"/(\w+)\.schema\.json", text)
        stated = [noun.name for noun in written() if schema and (schema[1] in noun.schemas or schema[1] == noun.name)]
        if "dependencies:" in text and not schema:
            continue  # a conda file
        noun = stated[0] if stated else "component" if path.parent.name == "components" else nouns.get(path.stem, path.stem)
        assert noun in NOUNS, path
        loading.load(noun, path)


@pytest.mark.environment
def test_the_five_minutes_of_the_readme_run_as_they_stand_and_leave_no_file(own_yard: YardUnderTest, tmp_path: Path) -> None:
    """Every line of the tour's blocks, in order, by a shell in a copy of the examples; then the Python."""
    tour = (ROOT / "README.md").read_text().split("## Five minutes")[1].split("## What is here")[0]
    examples = tmp_path / "examples"
    shutil.copytree(ROOT / "examples", examples, ignore=shutil.ignore_patterns("__pycache__"))
    before = sorted(examples.rglob("*"))
    path = f"{Path(sys.executable).parent}:{own_yard.environment['PATH']}"
    environment = {**own_yard.environment, "PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}

    def ran(command: list[str], cwd: Path) -> str:
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    # Who reads this has MLflow in their Python; here the one of the first job has it.
    python = 'python() { "$ENVIRONMENTS/$(yard job show -n train --query properties.environment_key -o tsv)/bin/python" "$@"; }'
    script = "\n".join(["set -ex", f"ENVIRONMENTS={own_yard.built}", python, *commands_of(tour)]).replace(" /tmp", f" {tmp_path}/elsewhere")
    assert len(commands_of(tour)) >= 11 and "import mlflow" in script
    printed = ran(["bash", "-c", script], tmp_path)
    assert json.loads(printed.strip().splitlines()[-1])[0] in (0, 1) and "metrics.accuracy" in printed
    (program,) = re.findall(r"```python\n(.*?)```", tour, re.DOTALL)
    assert "trained on 100% of the data" in ran([sys.executable, "-c", program], examples / "quickstart")
    assert sorted(examples.rglob("*")) == before


def commands_of(text: str) -> list[str]:
    """The lines of the sh blocks, and of the console blocks those with a prompt."""
    blocks = re.findall(r"```(sh|console)\n(.*?)```", text, re.DOTALL)
    lines = [(kind, line) for kind, block in blocks for line in block.splitlines()]
    return [line.removeprefix("$ ") for kind, line in lines if line.startswith("$ ") or kind == "sh"]


@pytest.mark.environment
@pytest.mark.parametrize(
    "installer",
    [
        pytest.param(("tool", "install"), id="uv"),
        pytest.param(("tool", "run", "pipx", "install"), id="pipx", marks=pytest.mark.torture),  # installs without a cache
    ],
)
def test_the_command_is_put_on_path_as_the_readme_says(installer: tuple[str, ...], tmp_path: Path) -> None:
    words = "uv tool install ." if installer == ("tool", "install") else "pipx install ."
    assert words in (ROOT / "README.md").read_text() and words in (ROOT / "examples/quickstart/demo.py").read_text()
    source = tmp_path / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".venv", ".git", "tests", "__pycache__", ".*_cache"))
    folders = {name: str(tmp_path / name) for name in ("UV_TOOL_DIR", "PIPX_HOME")}
    bins = dict.fromkeys(("UV_TOOL_BIN_DIR", "PIPX_BIN_DIR"), str(tmp_path / "bin"))
    uv = str(Path(sys.executable).parent / "uv")
    done = subprocess.run(
        [uv, *installer, "."], cwd=source, env={**os.environ, **folders, **bins}, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = subprocess.run(["yard", "--version"], env={**os.environ, "PATH": str(tmp_path / "bin")}, capture_output=True, text=True)
    assert said.stdout.startswith("yard, version "), said.stderr

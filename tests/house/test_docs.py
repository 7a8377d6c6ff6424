"""What the documentation says is true."""

from __future__ import annotations

import json
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
def test_the_five_minutes_of_the_readme_run_as_they_stand(own_yard: YardUnderTest, tmp_path: Path) -> None:
    """Every `yard` line of the tour's blocks, in order, by a shell in a copy of the examples."""
    tour = (ROOT / "README.md").read_text().split("## Five minutes")[1].split("## What is here")[0]
    lines = "\n".join(re.findall(r"```(?:sh|console)\n(.*?)```", tour, re.DOTALL)).splitlines()
    steps = [line.removeprefix("$ ") for line in lines if re.match(r"(\$ )?(yard |cd |eval )", line)]
    assert len(steps) >= 10
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    path = f"{Path(sys.executable).parent}:{own_yard.environment['PATH']}"
    script = "set -ex\n" + "\n".join(steps)
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env={**own_yard.environment, "PATH": path}, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.rstrip().endswith("[1,1,1]") or json.loads(done.stdout.strip().splitlines()[-1])[0] in (0, 1)

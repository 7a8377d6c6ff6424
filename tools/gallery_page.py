"""The page "Bring your own": the gallery's projects, each with its README and the YAML that its commands name."""

from __future__ import annotations

import re
from pathlib import Path

GALLERY = Path(__file__).parent.parent / "examples/gallery"


def page() -> str:
    head, _, table = (GALLERY / "README.md").read_text().partition("\n| project")
    rows = re.sub(r"\[(\S+)\]\(\S+\)", r"[\1](#\1)", "| project" + table)
    projects = re.findall(r"^\| \[(\S+)\]", "| project" + table, re.MULTILINE)
    return "\n".join([head.replace("each in a folder", "each in a folder of `examples/gallery`"), rows, *map(_project, projects)])


def _project(name: str) -> str:
    """A heading of its own for links, then the README a level lower with its files."""
    title, _, text = (GALLERY / name / "README.md").read_text().partition("\n")
    text = re.sub(r"\]\(\.\./\.\./\.\./docs/guide/", "](", text)
    files = [GALLERY / name / file for file in re.findall(r"-f ([\w/-]+\.yml)", text)]
    shown = [f"`{file.relative_to(GALLERY / name)}`\n\n```yaml\n{file.read_text().rstrip()}\n```\n" for file in dict.fromkeys(files)]
    return "\n".join([f"## {name}", "", f"{title.removeprefix('# ')}. {text.strip()}", "", *shown])

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any

import click

from ...spec.nouns import NOUNS
from ...spec.tracking import LINEAGE_KINDS, Relation
from ..options import client, noun_group, verb
from ..output import say

group = noun_group(NOUNS["lineage"])
MOST_ALIKE = 10
"""Resources of one kind under another that the tree shows."""


def tree(lineage: Any) -> Iterator[str]:
    """The lines that a person reads: what the resource was made from, and what was made from it. Events have a line each."""
    if isinstance(lineage, list):
        yield from map(json.dumps, lineage)
        return
    yield _line(lineage["thing"])
    for way, title in (("upstream", "made from"), ("downstream", "used for")):
        if lineage[way]:
            yield title
            yield from _Branches(lineage, way).lines(_key(lineage["thing"]), "")
    if not lineage["upstream"] and not lineage["downstream"]:
        yield "(nothing is known that it was made from or used for)"


class _Branches:
    """One direction of a lineage as a tree: each resource stands once, and is only named where it comes again."""

    def __init__(self, lineage: dict[str, Any], way: str) -> None:
        steps = {_key(step): step for step in lineage[way]}
        self.below: dict[str, list[tuple[str, str, str | None]]] = {}
        """Resource → (kind, text, its key when what lies below it is to follow)."""
        parents = {(_key(edge["source"]), _key(edge["target"])) for edge in lineage["edges"] if edge["relation"] == Relation.PART}
        for key, step in steps.items():
            prefix = f"{Relation.PART} " if (step["via"], key) in parents else ""
            self.below.setdefault(step["via"], []).append((step["kind"], prefix + _line(step), key))
        near, far = ("target", "source") if way == "upstream" else ("source", "target")
        for edge in lineage["edges"]:
            if edge["relation"] == Relation.PART:
                child, parent = _key(edge["source"]), _key(edge["target"])
                if parent in steps and child in steps and steps[parent]["via"] != child and steps[child]["via"] != parent:
                    self.below.setdefault(child, []).append(("job", f"{Relation.PART} {_named(edge['target'])} (again)", None))
                continue
            above, again = _key(edge[near]), _key(edge[far])
            if again in steps and steps[again]["via"] != above:
                self.below.setdefault(above, []).append((edge[far]["kind"], f"{_named(edge[far])} (again)", None))

    def lines(self, above: str, indent: str) -> Iterator[str]:
        entries: list[tuple[str, str | None]] = []
        for kind, alike in groupby(sorted(self.below.get(above, ()), key=itemgetter(0)), key=itemgetter(0)):
            found = list(alike)
            entries += [(text, key) for _, text, key in found[:MOST_ALIKE]]
            if len(found) > MOST_ALIKE:
                entries.append((f"… and {len(found) - MOST_ALIKE:,} more of kind {kind}; -o json has them all", None))
        for number, (text, key) in enumerate(entries, 1):
            last = number == len(entries)
            yield f"{indent}{'└── ' if last else '├── '}{text}"
            if key is not None:
                yield from self.lines(key, indent + ("    " if last else "│   "))


def _key(node: dict[str, Any]) -> str:
    return f"{node['kind']} {node['name']}"


def _named(node: dict[str, Any]) -> str:
    name = node["name"][:19] + "…" if node["kind"] == "code" else node["name"]
    return f"{node['kind']} {name}"


def _line(node: dict[str, Any]) -> str:
    who = f"by {node['created_by']}" if node.get("created_by") else None
    when = str(node["created_at"])[:16].replace("T", " ") if node.get("created_at") else None
    about = ", ".join(str(item) for item in (node.get("title"), node.get("status"), who, when) if item)
    return _named(node) + (f"  ({about})" if about else "")


@verb(group, "show", help="Show what a model, job or data version was made of, and what was made of it.", draw=tree)
@click.option("-n", "--name", required=True, help="Name; with :VERSION for models and data, else the newest.")
@click.option("-v", "--version", help="Version, if the name has none.")
@click.option("--kind", type=click.Choice(LINEAGE_KINDS), default="model", show_default=True)
@click.option("--depth", type=int, default=10, show_default=True, help="Steps in each direction.")
@click.option("--openlineage", is_flag=True, help="Print OpenLineage events instead.")
def show(name: str, version: str | None, kind: str, depth: int, openlineage: bool) -> Any:
    ml_client = client()
    name = f"{name}:{version}" if version else name
    if openlineage:
        return ml_client.lineage.openlineage(kind, name, depth=depth)
    lineage = ml_client.lineage.show(kind, name, depth=depth)
    if lineage["truncated"]:
        say("note: this is not all: there are more steps, or more resources than one answer holds; --depth says how far to follow")
    return lineage

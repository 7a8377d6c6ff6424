"""A card as a document, and the document as Markdown (after Mitchell et al., Model Cards for Model Reporting, 2019)."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

import orjson

from ...core.errors import Invalid
from ...spec import yamlfile

Document = dict[str, Any]


def read_mlmodel(chunks: Iterable[bytes]) -> Document:
    """Signature, flavors and the like of an MLmodel file: what of it belongs on a card. Raises Invalid, of one that is too long too."""
    text = bytearray()
    for chunk in chunks:
        text += chunk
        if len(text) > yamlfile.MAX_BYTES:
            raise Invalid(f"the model's MLmodel file has more than {yamlfile.MAX_BYTES:,} bytes")
    mlmodel = yamlfile.loads(text.decode("utf-8", "replace"), file="MLmodel").data
    if not isinstance(mlmodel, dict):
        raise Invalid("the model's MLmodel file is not a mapping")
    signature = mlmodel.get("signature") or {}
    columns = {part: _columns(signature.get(part)) for part in ("inputs", "outputs", "params") if isinstance(signature, dict)}
    flavors: Any = mlmodel.get("flavors")
    if not isinstance(flavors, dict):
        flavors = {}
    return {
        "signature": {part: value for part, value in columns.items() if value},
        "flavors": {name: _version(name, flavor) for name, flavor in flavors.items()},
        "mlflow_version": mlmodel.get("mlflow_version"),
    }


def _columns(text: Any) -> list[Document]:
    try:
        columns = orjson.loads(text) if isinstance(text, str) else text
    except orjson.JSONDecodeError:
        return []
    return [item for item in columns if isinstance(item, dict)] if isinstance(columns, list) else []


def _version(name: str, flavor: Any) -> str:
    if not isinstance(flavor, dict):
        return ""
    return str(flavor.get(f"{name}_version") or flavor.get("sklearn_version") or flavor.get("python_version") or "")


def markdown(card: Document) -> str:
    """Sections that have nothing to say are left out."""
    model = card["model"]
    lines = [f"# {model['name']} version {model['version']}", ""]
    if model.get("description"):
        lines += [model["description"], ""]
    files = card["files"]
    about = {
        "Type": model.get("type"), "Stage": model.get("stage"), "Aliases": ", ".join(card["aliases"]),
        "Registered": f"{model['creation_context']['created_at']} by {model['creation_context']['created_by']}",
        "Made by": (card.get("run") or {}).get("run_id"), "Taken over by": (card.get("run") or {}).get("taken_over_by"),
        "Files": f"{files['count']}, {files['size']:,} bytes",
        "Digest": f"sha256:{files['digest']}" if files["count"] else None,
        "Flavors": ", ".join(f"{name} {version}".strip() for name, version in card.get("flavors", {}).items()),
    }  # fmt: skip
    lines += _table(("", ""), [(key, value) for key, value in about.items() if value])
    run = card.get("run") or {}
    lines += _section("Metrics", ("metric", "value"), sorted(run.get("metrics", {}).items()))
    lines += _section("Parameters", ("parameter", "value"), sorted(run.get("params", {}).items()))
    lines += _section("Inputs", ("input", "value"), sorted(card.get("inputs", {}).items()))
    for part in ("inputs", "outputs", "params"):
        columns = card.get("signature", {}).get(part, [])
        rows = [(item.get("name", ""), _type_of(item), "" if item.get("required", True) else "optional") for item in columns]
        lines += _section(f"Signature: {part}", ("name", "type", ""), rows)
    lines += _section("Data", ("input", "version"), list(card.get("data", {}).items()))
    lines += _section("Made from", ("data", ""), [(name, "") for name in card.get("made_from", [])])
    origin = {"Code": card.get("code"), "Environment": card.get("environment"), **card.get("git", {}), **card.get("machine", {})}
    lines += _section("How it was made", ("", ""), [(key, value) for key, value in origin.items() if value])
    lines += _section("Used by", ("kind", "name"), [(item["kind"], item["name"]) for item in card.get("used_by", [])])
    lines += _section("Tags", ("tag", "value"), sorted(model.get("tags", {}).items()))
    if run.get("rerun"):
        lines += ["## Make it again", "", "```sh", run["rerun"], "```", ""]
    return "\n".join(lines)


def _type_of(column: Document) -> str:
    shape = (column.get("tensor-spec") or {}).get("shape")
    kind = (column.get("tensor-spec") or {}).get("dtype") or column.get("type") or column.get("dtype") or ""
    return f"{kind} {shape}" if shape else str(kind)


def _section(title: str, head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[str]:
    return [f"## {title}", "", *_table(head, rows)] if rows else []


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    return [*lines, ""]


def _cell(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else "" if value is None else str(value)
    return _inert(text[:400])


def _inert(text: str) -> str:
    """Text of runs and models that stays text: no markup, no link, no end of a cell or line."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", "&#124;").replace("`", "&#96;").replace("](", "]&#40;")

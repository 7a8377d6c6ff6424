"""Writes what is derived from the native API: the snapshot of its OpenAPI document, and the reference page.

python tools/openapi.py [--break]

A change that would break clients is refused without `--break`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from api_changes import breaking_changes
from fastapi import FastAPI
from rest_page import page

from modelyard.app.features import FEATURES
from modelyard.engine.openapi import document_of, operations

ROOT = Path(__file__).parent.parent
SNAPSHOT = ROOT / "tests/snapshots/openapi.json"
PAGE = ROOT / "docs/reference/rest.md"


def application() -> FastAPI:
    """The routes without a yard behind them."""
    made = FastAPI(title="modelyard", version="0")
    for feature in FEATURES:
        if feature.routes is not None:
            made.include_router(feature.routes, prefix="/api/v1")
    return made


def normalised(document: dict[str, Any]) -> str:
    """Sorted, and without the version of the program."""
    return json.dumps({**document, "info": {**document["info"], "version": "0"}}, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    made = application()
    document = document_of(made)
    broken = breaking_changes(json.loads(SNAPSHOT.read_text()), document) if SNAPSHOT.exists() else []
    if broken and "--break" not in arguments:
        print("This would break clients of /api/v1, which only grows:", *broken, sep="\n- ", file=sys.stderr)
        return 1
    SNAPSHOT.parent.mkdir(exist_ok=True)
    SNAPSHOT.write_text(normalised(document))
    PAGE.write_text(page(document, list(operations(made))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Writes the reference pages of the command line, of YAML and of the SDK from the program itself, and the gallery's page from its projects.

python tools/reference.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import cli_page
import gallery_page
import sdk_page
import yaml_page

FOLDER = Path(__file__).parent.parent / "docs/reference"
PAGES = {"cli.md": cli_page.page, "yaml.md": yaml_page.page, "sdk.md": sdk_page.page, "../guide/bring-your-own.md": gallery_page.page}


def main() -> int:
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())

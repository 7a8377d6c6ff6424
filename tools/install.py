"""Installs the project and its development tools into this environment, with the user's own pip configuration."""

import subprocess
import sys
from pathlib import Path


def main() -> int:
    # pip, not uv: before the installation pip is the one tool whose configuration is known to be right.
    command = [
        sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--constraint", "constraints.txt",
        "--editable", ".[postgres]", *_development(),
    ]  # fmt: skip
    return subprocess.call(command)


def _development() -> list[str]:
    import tomllib

    document = tomllib.loads(Path("pyproject.toml").read_text())
    group: list[str] = document["dependency-groups"]["dev"]
    return group


if __name__ == "__main__":
    sys.exit(main())

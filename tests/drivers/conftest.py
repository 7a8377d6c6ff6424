from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """The operator's folder of packages."""
    tmp_path.chmod(0o755)
    folder = tmp_path / "packages"
    folder.mkdir()
    return folder

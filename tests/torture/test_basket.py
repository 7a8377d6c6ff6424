"""Environments of the kind that people bring are resolved, or refused for a reason: what `bench/environments.py` counts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.torture
ROOT = Path(__file__).parents[2]


def test_none_of_the_basket_is_refused_but_what_nobody_can_resolve() -> None:
    done = subprocess.run([sys.executable, "bench/environments.py"], cwd=ROOT, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stdout[:5000] + done.stderr

"""Schemathesis against a running yard: whatever is sent, the answers are the declared ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from checked_yard import YardUnderTest

SECONDS = 120
WITHOUT = (
    "positive_data_acceptance",  # a document that fits the schema may name what is not there
    "negative_data_rejection",  # the loader takes more than the schema says: numbers as text, names in any case
    "missing_required_header",  # the token is one, and is tried by `ignored_auth`
)
OVERLAPPING = r"/(models/import|runs/groups)$"
"""Addresses that are also those of a model and a run of these names: `Allow` says what both take, the document has a page for each."""


@pytest.mark.torture
def test_the_api_keeps_its_word_whatever_it_is_sent(own_yard: YardUnderTest, tmp_path: Path) -> None:
    command = [
        Path(sys.executable).parent / "st", "run", f"{own_yard.url}/openapi.json", "--header", f"Authorization: Bearer {own_yard.token}",
        "--phases", "coverage,fuzzing,stateful", "--max-time", str(SECONDS), "--exclude-checks", ",".join(WITHOUT), "--continue-on-failure",
        "--exclude-path-regex", OVERLAPPING, "--suppress-health-check", "filter_too_much", "--no-color",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    assert "Traceback" not in own_yard.log()

"""Scoring scripts beside Azure's own inference server: what it answers for the scripts in `decorated/` was recorded by `record.py` there."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from checked_yard import YardUnderTest

HERE = Path(__file__).parent / "decorated"
SOURCES = Path(__file__).parents[2] / "src"
STAND_IN = SOURCES / "modelyard_runtime/shims"


@pytest.fixture(scope="module")
def python(yard: YardUnderTest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With inference-schema itself."""
    file = tmp_path_factory.mktemp("decorated") / "environment.yml"
    packages = ["inference-schema[numpy-support,pandas-support]==1.8", "numpy<3", "pandas<4"]
    file.write_text(json.dumps({"name": "decorated", "version": "1", "pip": packages}))
    yard.run("environment", "create", "-f", str(file))
    return yard.built / yard.json("environment", "build", "-n", "decorated")["key"] / "bin" / "python"


def without_texts(document: Any) -> Any:
    """An OpenAPI document but for its descriptions, which are ours, and the schemes: a yard answers http too."""
    if isinstance(document, dict):
        kept = {name: without_texts(value) for name, value in document.items() if name != "schemes"}
        return {name: value for name, value in kept.items() if name != "description" or not isinstance(value, str)}
    return [without_texts(item) for item in document] if isinstance(document, list) else document


@pytest.mark.parametrize("shims", [(), (STAND_IN,)], ids=["inference-schema", "its stand-in"])
def test_a_decorated_script_answers_and_describes_itself_as_in_azure(python: Path, shims: tuple[Path, ...]) -> None:
    for name, recorded in json.loads((HERE / "recorded.json").read_text()).items():
        done = subprocess.run([python, HERE / "answers.py", SOURCES, name, *shims], capture_output=True, text=True)
        assert done.returncode == 0, (name, done.stderr)
        ours = json.loads(done.stdout.splitlines()[-1])
        for number, (azure, here) in enumerate(zip(recorded["answers"], ours["answers"], strict=True)):
            if azure[0] == 200:
                assert here == azure, (name, number)
            else:  # Azure answers 500 for an argument that cannot be read, and has words of its own for the rest
                assert here[0] == 400 and here[1]["message"], (name, number, here)
        for version, (status, document) in recorded["documents"].items():
            assert ours["documents"][version][0] == status, (name, version)
            if status == 200:
                assert without_texts(ours["documents"][version][1]) == without_texts(document), (name, version)

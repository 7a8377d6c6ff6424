"""Ports: what may run elsewhere is told values, and no paths of the server's machine."""

from __future__ import annotations

import ast
from pathlib import Path

import modelyard


def test_the_port_of_executors_knows_no_path() -> None:
    tree = ast.parse((Path(modelyard.__file__).parent / "ports/executor.py").read_text())
    modules = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    modules += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert not {"pathlib", "os", "tempfile"} & set(modules)
    assert not [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "Path"]

"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from modelyard_runtime.files import rename_durably, write_json, write_whole


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_replaced_with_its_mode_and_nothing_is_left_beside_it(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "key"
    path.write_text("old")
    write_whole(path, "new é", durable=durable)
    assert path.read_text() == "new é" and stat.S_IMODE(path.stat().st_mode) == 0o600
    write_whole(path, b"\0", 0o644, durable=durable)
    assert path.read_bytes() == b"\0" and stat.S_IMODE(path.stat().st_mode) == 0o644 & ~_umask()
    assert os.listdir(tmp_path) == ["key"]


@pytest.mark.parametrize("durable", [True, False])
def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "record.json"
    write_json(str(path), {"a": 1})
    unfit: Any = object()
    with pytest.raises(TypeError):
        write_whole(path, unfit, durable=durable)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        write_whole(tmp_path / "folder", b"", durable=durable)
    assert path.read_text() == '{"a": 1}' and sorted(os.listdir(tmp_path)) == ["folder", "record.json"]


def test_a_link_is_replaced_and_what_it_leads_to_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("other")
    (tmp_path / "link").symlink_to("other")
    write_whole(tmp_path / "link", b"own")
    assert (tmp_path / "other").read_text() == "other" and not (tmp_path / "link").is_symlink()


def test_a_file_gets_its_name_in_the_folder_that_the_process_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("partial").write_text("content")
    rename_durably("partial", "whole")
    assert os.listdir() == ["whole"] and Path("whole").read_text() == "content"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

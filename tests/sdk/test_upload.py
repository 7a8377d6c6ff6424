"""What a folder of the user's becomes when it is sent: its files by their names, links, and what is refused."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, cast

import pytest

from modelyard.core.errors import Invalid
from modelyard.sdk import upload


def walked(root: Path, *, code: bool = False) -> dict[str, str]:
    return {relative: path.read_text() for relative, path in upload.walk(root, code=code)}


def test_links_are_what_they_lead_to_and_circles_end_with_a_note(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "rows.csv").write_text("rows")
    top = tmp_path / "data"
    (top / "deep").mkdir(parents=True)
    (top / "shared").symlink_to(shared)
    (top / "one.csv").symlink_to("shared/rows.csv")
    (top / "deep" / "up").symlink_to("..")
    (top / "gone").symlink_to("nowhere")
    os.mkfifo(top / "pipe")
    with caplog.at_level(logging.WARNING):
        assert walked(top) == {"one.csv": "rows", "shared/rows.csv": "rows"}
    assert [record.message.rpartition(": ")[2] for record in caplog.records] == [
        "it is a link to nothing", "it is no plain file", "it is a link to a folder that it lies in",
    ]  # fmt: skip


def test_empty_folders_are_named_in_one_note(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a/none", "b", "c/full", "ignored"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "c/full/rows.csv").write_text("rows")
    (tmp_path / ".amlignore").write_text("ignored/\n.amlignore\n")
    with caplog.at_level(logging.WARNING):
        assert walked(tmp_path) == {"c/full/rows.csv": "rows"}
    assert [record.message for record in caplog.records] == ["note: empty folders are not uploaded: a/none/, b/"]


def test_ignored_names_are_not_entered_through_a_link_either(tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "x").write_text("x")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "cache").symlink_to("../big")
    (tmp_path / "src" / "main.py").write_text("main")
    (tmp_path / "src" / ".amlignore").write_text("cache/\n")
    assert walked(tmp_path / "src", code=True) == {"main.py": "main"}


def test_names_that_cannot_be_stored_are_refused_by_name_before_anything_is_sent(tmp_path: Path) -> None:
    (tmp_path / "good%2F#?.txt").write_text("x")
    for name in (b"latin-\xe9.txt", b"a\\b", b"tab\t"):
        with open(os.path.join(os.fsencode(tmp_path), name), "w") as file:
            file.write("x")
    with pytest.raises(Invalid) as refusal:
        upload.upload(cast(Any, _NoTransport()), tmp_path)
    message = refusal.value.message
    assert r"latin-\udce9.txt" in message and "its name is not UTF-8" in message
    assert "it has a backslash" in message and "it has a control character" in message and "good" not in message


class _NoTransport:
    def workspace_path(self, path: str) -> str:
        return path


def test_additional_includes_lie_beside_the_code_whatever_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from modelyard.sdk import localize

    for name in ("src/main.py", "lib/a.py", "lib/.git/x", "one.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "lib" / "again").symlink_to(".")  # a copy of the folder would never end
    sent: dict[str, Path] = {}

    def upload_files(transport: Any, sources: Any, what: Path, **_: Any) -> str:
        sent.update(sources)
        return "azureml://datastores/workspaceblobstore/paths/x/"

    monkeypatch.setattr(localize, "upload_files", upload_files)
    localize.Localizer(cast(Any, None))._with_includes(tmp_path / "src", tmp_path, ("lib", "one.py"))
    assert {name: path.read_text() for name, path in sent.items()} == {"main.py": "src/main.py", "lib/a.py": "lib/a.py", "one.py": "one.py"}
